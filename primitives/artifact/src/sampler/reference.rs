//! The sampler in its plainest form: the definition the fast one is tested against.

use alloc::vec::Vec;

use super::{noise::gumbel, noise::Noise, SampleError, Sampler, TokenMask};

impl Sampler {
	/// Writes z into `x`: masks, bias, penalties. Returns how many tokens are possible.
	pub(super) fn prepare(&self, row: &[f32], mask: Option<&TokenMask>, x: &mut Vec<f64>) -> Result<usize, SampleError> {
		if row.len() != self.vocab.size || mask.is_some_and(|m| m.vocab() != self.vocab.size) {
			return Err(SampleError::RowLength);
		}
		x.clear();
		x.extend(row.iter().map(|&v| f64::from(if v.is_nan() { f32::NEG_INFINITY } else { v.min(f32::MAX) })));
		self.apply_masks(mask, x);
		let p = &self.params;
		for (id, bias) in p.logit_bias.iter() {
			edit(x, id.get(), |z| z + bias.get());
		}
		let repetition = p.repetition_penalty.get();
		if repetition != 1.0 {
			let penal = |z: f64| if z > 0.0 { z / repetition } else { z * repetition };
			for &id in self.prompt.iter() {
				edit(x, id, penal);
			}
			for &id in self.counts.keys().filter(|id| self.prompt.binary_search(id).is_err()) {
				edit(x, id, penal);
			}
		}
		let (frequency, presence) = (p.frequency_penalty.get(), p.presence_penalty.get());
		if frequency != 0.0 || presence != 0.0 {
			for (&id, &count) in &self.counts {
				edit(x, id, |z| z - frequency * f64::from(count) - presence);
			}
		}
		match x.iter().map(|&v| usize::from(v > f64::NEG_INFINITY)).sum() {
			0 => Err(SampleError::NoCandidate),
			possible => Ok(possible),
		}
	}

	fn apply_masks(&self, mask: Option<&TokenMask>, x: &mut [f64]) {
		const NEVER: f64 = f64::NEG_INFINITY;
		x[self.vocab.usable..].fill(NEVER);
		if let Some(mask) = mask {
			for (id, v) in x.iter_mut().enumerate() {
				if !mask.allows(id as u32) {
					*v = NEVER;
				}
			}
		}
		if let Some(allowed) = &self.params.allowed {
			let mut next = allowed.iter().map(|id| id.get() as usize).peekable();
			for (id, v) in x.iter_mut().enumerate() {
				if next.next_if_eq(&id).is_none() {
					*v = NEVER;
				}
			}
		}
		for word in self.params.bad_words.iter() {
			if let Some((last, start)) = word.split_last() {
				let tail = self.output.len().checked_sub(start.len()).map(|at| &self.output[at..]);
				if tail.is_some_and(|t| t.iter().zip(start).all(|(a, b)| *a == b.get())) {
					edit(x, last.get(), |_| NEVER);
				}
			}
		}
		// A text that is complete and may not go on ends, however short it is.
		let over = mask.is_some_and(|mask| self.allows_only_ends(mask));
		if self.output.len() < self.params.min_tokens as usize && !over {
			for &id in &self.vocab.eos {
				edit(x, id, |_| NEVER);
			}
			for id in self.params.stop_tokens.iter() {
				edit(x, id.get(), |_| NEVER);
			}
		}
	}

	/// Same result as [`Sampler::sample`], by sorting and scoring everything.
	pub fn sample_plainly(&self, row: &[f32], mask: Option<&TokenMask>) -> Result<u32, SampleError> {
		let mut z = Vec::new();
		self.prepare(row, mask, &mut z)?;
		let mut kept: Vec<(u32, f64)> =
			z.iter().enumerate().map(|(id, &z)| (id as u32, z)).filter(|s| s.1 > f64::NEG_INFINITY).collect();
		let p = self.params();
		if p.is_greedy() {
			return Ok(argmax(&kept));
		}
		for (_, v) in kept.iter_mut() {
			*v = *v / p.temperature.get() + 0.0;
		}
		let max = kept.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
		if p.min_p.get() > 0.0 {
			kept.retain(|s| s.1 >= max + libm::log(p.min_p.get()));
		}
		kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
		if let Some(k) = p.top_k {
			kept.truncate(k as usize);
		}
		if p.top_p.get() < 1.0 {
			let mut by_id = kept.clone();
			by_id.sort_by_key(|s| s.0);
			let total: f64 = by_id.iter().map(|s| libm::exp(s.1 - max)).sum();
			let mut preceding = 0.0;
			let mut keep = 0;
			for (i, s) in kept.iter().enumerate() {
				if i > 0 && preceding >= p.top_p.get() * total {
					break;
				}
				preceding += libm::exp(s.1 - max);
				keep = i + 1;
			}
			kept.truncate(keep);
		}
		let mut noise = Noise::new(&self.key, self.output().len() as u64);
		for (id, v) in kept.iter_mut() {
			*v += gumbel(noise.word(*id));
		}
		Ok(argmax(&kept))
	}
}

fn edit(x: &mut [f64], id: u32, change: impl FnOnce(f64) -> f64) {
	if let Some(v) = x.get_mut(id as usize).filter(|v| **v > f64::NEG_INFINITY) {
		*v = change(*v);
	}
}

fn argmax(scored: &[(u32, f64)]) -> u32 {
	let mut best = (u32::MAX, f64::NEG_INFINITY);
	for &(id, v) in scored {
		if v > best.1 || (v == best.1 && id < best.0) {
			best = (id, v);
		}
	}
	best.0
}
