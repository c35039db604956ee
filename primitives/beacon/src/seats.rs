//! Slots by weight: D'Hondt's method of highest averages.
//!
//! # The bound
//! Let a coalition have the fraction `f > 0` of the weight of those that take part, and let `h` others take part. It
//! gets at most `f (slots + h)` slots. Proof: let `q` be the smallest quotient that won a slot. Every
//! slot of the coalition cost it at least `q`, so its `s` slots need `W_c >= s q`. Every other member's next quotient
//! lost, so with `s_i` slots it has `w_i <= q (s_i + 1)`; together `W_o <= q (slots - s + h)`. Hence
//! `s / (slots - s + h) <= W_c / W_o = f / (1 - f)`, that is `s <= f (slots + h)`.
//!
//! With 128 slots and 64 members `h <= 63`, so `f <= 1/3` gives `s <= 191/3 < 64`: at most 63 slots. That is too few
//! to open alone (65) and leaves the others 65, too many to be stopped. Accounts with little weight do not help: they
//! enter the bound only through `h`, which counts the *others*.
//!
//! # Who takes part
//! The [`MAX_MEMBERS`] heaviest entries; of equals those with the smaller account. That is what D'Hondt gives when the
//! 65th member is refused, because first slots go out in order of weight. `f` is a fraction of *their* weight.

use crate::{Host, MAX_MEMBERS};
use alloc::{vec, vec::Vec};
use core::cmp::Ordering;

/// How many of `slots` each entry of `weights` (account, weight) gets, aligned with `weights`.
///
/// An entry of weight zero gets none. Ties go to the smaller account, and among equal accounts to the earlier entry.
/// The sum is `slots`, or zero if no entry has weight. Takes `O(n log n + slots * min(n, MAX_MEMBERS))` steps.
pub fn seats(weights: &[(Host, u64)], slots: u32) -> Vec<u32> {
	let mut result = vec![0; weights.len()];
	let mut members: Vec<Candidate> = weights
		.iter()
		.enumerate()
		.filter(|(_, (_, weight))| *weight > 0)
		.map(|(at, (host, weight))| Candidate { at, host: *host, weight: *weight, slots: 0 })
		.collect();
	members.sort_unstable_by(|a, b| a.compare(b));
	members.truncate(MAX_MEMBERS as usize);
	for _ in 0..slots {
		let Some(best) = members.iter_mut().min_by(|a, b| a.compare(b)) else { break };
		best.slots = best.slots.saturating_add(1);
	}
	for member in members {
		if let Some(slots) = result.get_mut(member.at) {
			*slots = member.slots;
		}
	}
	result
}

/// An entry that can still get slots.
struct Candidate {
	at: usize,
	host: Host,
	weight: u64,
	slots: u32,
}

impl Candidate {
	/// `Less` if this one comes first: the larger quotient weight / (slots + 1), exactly, then the smaller account.
	fn compare(&self, other: &Self) -> Ordering {
		let own = u128::from(self.weight).saturating_mul(u128::from(other.slots).saturating_add(1));
		let others = u128::from(other.weight).saturating_mul(u128::from(self.slots).saturating_add(1));
		others.cmp(&own).then_with(|| self.host.cmp(&other.host)).then_with(|| self.at.cmp(&other.at))
	}
}
