//! Recomputes nonces of a Host's list. What follows from that is decided elsewhere: [`super::audit`] for the agent,
//! [`super::report`] for a person. Where the list comes from: [`super::fetch`].
//!
//! # Words
//! - *rules*: what decides whether a nonce is appropriate: network, seed, threshold.
//! - *doubt*: a position of a proven list, or of a posted opening, whose nonce is not appropriate by the reference.
//!
//! Invariants
//! 1. Nothing is a doubt that the reference has not confirmed: a deposit hangs on it, and engines are other programs.
//! 2. No engine, however busy or broken, keeps an agent from looking at a list in time: the reference looks at some of
//!    it instead.

use std::{
	collections::BTreeSet,
	time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use pacer_sprint::{positions, sample::SAMPLES, trace, Preset, Trace};
use pacer_types::{
	views::{CommitView, SprintView},
	AccountId,
};
use rand::{seq::SliceRandom, Rng};

use crate::{
	engine::{Engines, Need, RaceStart},
	error::{Error, Result},
	wire::to_hex,
};

/// Bytes of the salt that belongs to the sample: two VRF outputs.
pub const SALT_BYTES: usize = 64;
/// Positions of the agent's own choosing.
pub const PRIVATE_SAMPLES: usize = 16;
/// Nonces in one question to an engine: a short piece of work, so that requests do not wait for it.
const MAX_QUESTION: usize = 256;
/// How long an engine may take for a question when no time presses.
pub const QUESTION_LIMIT: Duration = Duration::from_secs(120);
/// The same within Audit, where there must be time left for others: least and longest.
const URGENT_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Nonces the reference judges in place of engines, where one takes it seconds.
const FEW: usize = 4;
/// Engines that are asked one question.
const MAX_ENGINES: usize = 2;
/// Doubts confirmed in one check: one is enough, and the reference takes its time.
const MAX_DOUBTS: usize = 4;

/// A nonce and where it stands.
pub type Place = (u32, u64);

/// What decides about a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
	/// The network.
	pub preset: Preset,
	/// The race value.
	pub seed: [u8; 32],
	/// Squared cosine in Q32.
	pub threshold: u64,
}

impl Rules {
	/// Those of a race; `None` without a seed, or for a preset this agent does not know.
	pub fn of(sprint: &SprintView) -> Option<Self> {
		Some(Self { preset: Preset::from_index(sprint.preset)?, seed: sprint.seed?, threshold: sprint.threshold })
	}

	/// The race of a Host in words an engine understands.
	pub fn race(&self, host: &AccountId) -> RaceStart {
		RaceStart {
			preset: self.preset.name().to_owned(),
			seed: to_hex(self.seed),
			host: to_hex(host),
			threshold: self.threshold,
			first_nonce: 0,
		}
	}

	/// Every state of a nonce, by the reference. Takes milliseconds (`dev`) to seconds (`whitepaper`) of a thread.
	pub fn trace(&self, host: &AccountId, nonce: u64) -> Result<Trace> {
		trace(&self.preset.config(), &self.seed, self.threshold, host.as_ref(), nonce).map_err(Error::engine)
	}
}

/// Who recomputes nonces.
#[derive(Clone)]
pub enum Recompute {
	/// The least busy engine, then others; the reference where there is none and it is fast enough.
	Now(Engines),
	/// An engine that serves nobody; the reference where there is none and it is fast enough.
	WhenIdle(Engines),
	/// The reference, on every core, however long it takes.
	Reference,
}

impl Recompute {
	/// Whether there is somebody to ask.
	pub fn is_ready(&self, rules: &Rules) -> bool {
		match self {
			// Without engines the reference looks at a few.
			Recompute::Reference | Recompute::Now(_) => true,
			Recompute::WhenIdle(engines) if engines.able(Need::Race) == 0 => rules.preset == Preset::Dev,
			Recompute::WhenIdle(engines) => engines.has_idle(Need::Race),
		}
	}

	/// Which nonces of a Host are appropriate. An error says that they could not be judged. No engine is waited for
	/// longer than `limit` a question.
	pub async fn judge(&self, rules: &Rules, host: &AccountId, nonces: &[u64], limit: Duration) -> Result<Vec<bool>> {
		let mut judged = Vec::with_capacity(nonces.len());
		for part in nonces.chunks(MAX_QUESTION) {
			judged.extend(self.part(rules, host, part, limit).await?);
		}
		Ok(judged)
	}

	async fn part(&self, rules: &Rules, host: &AccountId, nonces: &[u64], limit: Duration) -> Result<Vec<bool>> {
		let race = rules.race(host);
		let mut why = Error::engine("no engine is there to recompute nonces");
		match self {
			Recompute::Reference => return by_reference(rules, host, nonces).await,
			Recompute::Now(engines) => {
				// Two are enough to see that the fault is not one engine's, and leave time for the reference.
				let mut tried = Vec::new();
				while let Some(lease) = engines.lease_another(Need::Race, &tried).filter(|_| tried.len() < MAX_ENGINES) {
					match lease.engine().race_verify(&race, nonces, limit).await {
						Ok(judged) => return Ok(judged),
						Err(e) => why = e,
					}
					tried.push(lease);
				}
				if !tried.is_empty() {
					return Err(why);
				}
			}
			Recompute::WhenIdle(engines) if engines.able(Need::Race) > 0 => {
				let lease = engines.lease_idle(Need::Race).ok_or_else(|| Error::engine("all are busy"))?;
				return lease.engine().race_verify(&race, nonces, limit).await;
			}
			Recompute::WhenIdle(_) => {}
		}
		match rules.preset {
			Preset::Dev => by_reference(rules, host, nonces).await,
			_ => Err(why),
		}
	}
}

async fn by_reference(rules: &Rules, host: &AccountId, nonces: &[u64]) -> Result<Vec<bool>> {
	let cores = std::thread::available_parallelism().map_or(1, usize::from);
	let one = |nonce: u64| {
		let (rules, host) = (*rules, host.clone());
		async move {
			let judge = move || {
				let config = rules.preset.config();
				pacer_sprint::is_appropriate(&config, &rules.seed, rules.threshold, host.as_ref(), nonce)
			};
			tokio::task::spawn_blocking(judge).await.map_err(Error::engine)?.map_err(Error::engine)
		}
	};
	futures::stream::iter(nonces.iter().copied().map(one)).buffered(cores).try_collect().await
}

/// Places that were judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
	/// Which.
	pub places: Vec<Place>,
	/// Those of them whose nonce is not appropriate, by position; not all, if there are many.
	pub doubts: Vec<Place>,
}

/// Judges places of a Host's list, where doubts can be voiced for as long as `left`. If engines fail or are too slow,
/// [`Recompute::Now`] has the reference judge some of the places instead. An error says that this agent could not
/// judge, also because its engine calls false what the reference calls right.
pub async fn doubts(recompute: &Recompute, rules: &Rules, host: &AccountId, places: &[Place], left: Duration) -> Result<Judged> {
	let until = Instant::now() + left;
	let limit = match recompute {
		Recompute::Now(_) => (left / 8).clamp(URGENT_LIMITS.0, URGENT_LIMITS.1),
		_ => QUESTION_LIMIT,
	};
	match asked(recompute, rules, host, places, limit).await {
		Ok(doubts) => Ok(Judged { places: places.to_vec(), doubts }),
		Err(why) if matches!(recompute, Recompute::Now(_)) => {
			let chosen = in_place_of_engines(rules.preset, places);
			tracing::warn!("{} of {} nonces of {host} are left to the reference: {why}", chosen.len(), places.len());
			looked_at(rules, host, &chosen, until).await
		}
		Err(why) => Err(why),
	}
}

/// Doubts by the word of an engine, confirmed by the reference.
async fn asked(recompute: &Recompute, rules: &Rules, host: &AccountId, places: &[Place], limit: Duration) -> Result<Vec<Place>> {
	let nonces: Vec<u64> = places.iter().map(|(_, nonce)| *nonce).collect();
	let judged = recompute.judge(rules, host, &nonces, limit).await?;
	let mut wrong: Vec<Place> = places.iter().zip(judged).filter(|(_, ok)| !ok).map(|(place, _)| *place).collect();
	wrong.truncate(MAX_DOUBTS);
	if wrong.is_empty() {
		return Ok(wrong);
	}
	let nonces: Vec<u64> = wrong.iter().map(|(_, nonce)| *nonce).collect();
	let confirmed = by_reference(rules, host, &nonces).await?;
	let kept: Vec<Place> = wrong.iter().zip(confirmed).filter(|(_, ok)| !ok).map(|(place, _)| *place).collect();
	if kept.is_empty() {
		return Err(Error::Engine(format!("it rejects nonce {} of {host}, which is right by the reference", wrong[0].1)));
	}
	Ok(kept)
}

/// Places the reference judges if engines do not, in random order, so that nobody knows which.
fn in_place_of_engines(preset: Preset, places: &[Place]) -> Vec<Place> {
	let mut chosen = places.to_vec();
	chosen.shuffle(&mut rand::thread_rng());
	if preset != Preset::Dev {
		chosen.truncate(FEW);
	}
	chosen
}

/// Judges places by the reference, as many as there is time for and at least one. One at a time: several checks may
/// do this at once, and the machine has other work.
async fn looked_at(rules: &Rules, host: &AccountId, chosen: &[Place], until: Instant) -> Result<Judged> {
	let (mut places, mut doubts) = (Vec::new(), Vec::new());
	for (position, nonce) in chosen {
		if !places.is_empty() && Instant::now() >= until {
			break;
		}
		let is_right = by_reference(rules, host, &[*nonce]).await?.iter().all(|ok| *ok);
		places.push((*position, *nonce));
		if !is_right && doubts.len() < MAX_DOUBTS {
			doubts.push((*position, *nonce));
		}
	}
	doubts.sort_unstable();
	Ok(Judged { places, doubts })
}

/// The positions of a commitment that everyone checks, ascending; `None` until the chain named them.
pub fn public_sample(sprint: &SprintView, commit: &CommitView) -> Option<Vec<u32>> {
	let audit = sprint.audit.filter(|_| sprint.salt.len() >= SALT_BYTES)?;
	let host: &[u8; 32] = commit.host.as_ref();
	Some(positions(&audit, &sprint.salt, host, &commit.root.0, commit.count, SAMPLES))
}

/// Adds `private` random positions below `count` to `chosen`; fewer where that many are not left.
pub fn add_private(chosen: &mut BTreeSet<u32>, count: u32, private: usize) {
	let wanted = chosen.len().saturating_add(private);
	if wanted >= count as usize {
		chosen.extend(0..count);
		return;
	}
	let mut random = rand::thread_rng();
	while chosen.len() < wanted {
		chosen.insert(random.gen_range(0..count));
	}
}

/// The nonces at positions, as far as the list goes.
pub fn places(nonces: &[u64], positions: impl IntoIterator<Item = u32>) -> Vec<Place> {
	positions.into_iter().filter_map(|p| Some((p, *nonces.get(p as usize)?))).collect()
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn reference_should_be_left_all_of_a_small_network_and_a_few_of_a_large_one() {
		let places: Vec<Place> = (0..80).map(|p| (p, u64::from(p))).collect();
		let sorted: BTreeSet<Place> = in_place_of_engines(Preset::Dev, &places).into_iter().collect();
		assert!(sorted.into_iter().eq(places.iter().copied()));
		let few = in_place_of_engines(Preset::Whitepaper, &places);
		assert!(few.len() == FEW && few.iter().all(|place| places.contains(place)));
	}

	#[test]
	fn private_positions_should_be_new_and_in_range_when_there_is_room() {
		let mut chosen = BTreeSet::from([3, 5]);
		add_private(&mut chosen, 1_000, 16);
		assert!(chosen.len() == 18 && chosen.iter().all(|p| *p < 1_000) && chosen.contains(&3));
		let mut all = BTreeSet::from([1]);
		add_private(&mut all, 9, 16);
		assert_eq!(all.len(), 9);
		let mut none = BTreeSet::new();
		add_private(&mut none, 0, 16);
		assert!(none.is_empty());
	}
}
