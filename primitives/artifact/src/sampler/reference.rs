//! The sampler in its plainest form: the definition the fast one is tested against.

use alloc::vec::Vec;

use super::{noise::gumbel, noise::Noise, SampleError, Sampler, TokenMask};

impl Sampler {
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

fn argmax(scored: &[(u32, f64)]) -> u32 {
	let mut best = (u32::MAX, f64::NEG_INFINITY);
	for &(id, v) in scored {
		if v > best.1 || (v == best.1 && id < best.0) {
			best = (id, v);
		}
	}
	best.0
}
