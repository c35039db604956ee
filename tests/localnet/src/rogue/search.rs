//! Nonces by the reference: those a Host may claim, and those it may not.

use anyhow::Context;
use pacer_sprint::{trace, Config, Preset, Sprint, Trace};
use pacer_types::views::SprintView;

/// Nonces that are evaluated together: rows of weights are derived once for all of them.
const BATCH: u64 = 32;

/// What decides whether a nonce is appropriate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaceOf {
	/// Shape of the network.
	pub config: Config,
	/// Its seed.
	pub seed: [u8; 32],
	/// Squared cosine in Q32.
	pub threshold: u64,
}

impl RaceOf {
	/// The race of a view; `None` without a seed.
	pub fn of(view: &SprintView) -> Option<Self> {
		let preset = Preset::from_index(view.preset)?;
		Some(Self { config: preset.config(), seed: view.seed?, threshold: view.threshold })
	}

	/// The same race with another seed.
	pub fn with_seed(self, seed: [u8; 32]) -> Self {
		Self { seed, ..self }
	}

	/// Every state of a nonce.
	///
	/// # Errors
	/// If the shape is none.
	pub fn trace(&self, host: &[u8; 32], nonce: u64) -> anyhow::Result<Trace> {
		Ok(trace(&self.config, &self.seed, self.threshold, host, nonce)?)
	}

	/// The first `n` nonces from `from` on that are appropriate, or that are not.
	fn first(&self, host: &[u8; 32], from: u64, n: usize, wanted: bool) -> anyhow::Result<Vec<u64>> {
		let (sprint, mut from) = (Sprint::new(self.config, self.seed)?, from);
		let mut found = Vec::with_capacity(n);
		while found.len() < n {
			let end = from.checked_add(BATCH).context("no nonces left")?;
			let nonces: Vec<u64> = (from..end).collect();
			let outputs = sprint.outputs_of_many(host, &nonces)?;
			for (nonce, y) in nonces.iter().zip(outputs.chunks_exact(self.config.outputs as usize)) {
				if sprint.score(host, *nonce, y)?.is_appropriate(self.threshold) == wanted {
					found.push(*nonce);
				}
			}
			from = end;
		}
		found.truncate(n);
		Ok(found)
	}

	/// The first `n` appropriate nonces of `host` from `from` on, ascending.
	///
	/// # Errors
	/// If there are not as many.
	pub fn good(&self, host: &[u8; 32], from: u64, n: usize) -> anyhow::Result<Vec<u64>> {
		self.first(host, from, n, true)
	}

	/// The first `n` nonces of `host` from `from` on that are not appropriate, ascending.
	///
	/// # Errors
	/// If there are not as many.
	pub fn bad(&self, host: &[u8; 32], from: u64, n: usize) -> anyhow::Result<Vec<u64>> {
		self.first(host, from, n, false)
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn search_should_tell_good_nonces_from_bad_ones() {
		let threshold = pacer_sprint::threshold_for_one_in(64, 256).unwrap();
		let race = RaceOf { config: Preset::Dev.config(), seed: [7; 32], threshold };
		let (host, other) = ([1; 32], [2; 32]);
		let good = race.good(&host, 0, 4).unwrap();
		let bad = race.bad(&host, 0, 4).unwrap();
		assert!(good.windows(2).all(|w| w[0] < w[1]) && bad.windows(2).all(|w| w[0] < w[1]));
		assert!(good.iter().all(|n| race.trace(&host, *n).unwrap().appropriate));
		assert!(bad.iter().all(|n| !race.trace(&host, *n).unwrap().appropriate));
		// Of 4 stolen or old nonces one in 64 is appropriate by chance.
		assert!(!good.iter().all(|n| race.trace(&other, *n).unwrap().appropriate));
		assert!(!good.iter().all(|n| race.with_seed([8; 32]).trace(&host, *n).unwrap().appropriate));
	}
}
