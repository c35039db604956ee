//! Weights of the calls. `benchmarking.rs` measures all of them; until its results stand here, these are estimates, made
//! from the times that `docs/randomness.md` gives for WebAssembly (64 members, two slots each): a key 0.16 ms, decoding
//! and verifying a dealing 12.7 ms, adding it to a sum 2.1 ms, an opening of two slots 0.40 ms, interpolation 2.9 ms. What
//! is charged is about a third more.

use frame_support::weights::{constants::RocksDbWeight, Weight};
use pacer_beacon::{Dealing, Opening, SLOTS, THRESHOLD};

/// Weights of the calls and of what happens at the border of phases.
pub trait WeightInfo {
	/// `register_key`
	fn register_key() -> Weight;
	/// `deal` in a committee of `m` members with `s` live slots.
	fn deal(m: u32, s: u32) -> Weight;
	/// `open` of `s` slots that brings no value yet, or none any more.
	fn open(s: u32) -> Weight;
	/// `open` of `s` slots that brings the value, from openings of `m` members.
	fn open_last(m: u32, s: u32) -> Weight;
	/// Checking the payload of a key or an opening.
	fn authorize() -> Weight;
	/// Checking the payload of a dealing.
	fn authorize_dealing() -> Weight;
	/// What every block does.
	fn track() -> Weight;
	/// What the first block of a phase may do beside: fix a committee, and forget an old epoch.
	fn turn() -> Weight;
}

/// Live slots of a dealing with so many bytes.
pub fn slots_of_dealing(bytes: usize) -> u32 {
	per_slot(bytes, Dealing::size(0, THRESHOLD), Dealing::size(1, THRESHOLD))
}

/// Slots of an opening with so many bytes.
pub fn slots_of_opening(bytes: usize) -> u32 {
	per_slot(bytes, Opening::size(0), Opening::size(1))
}

fn per_slot(bytes: usize, none: usize, one: usize) -> u32 {
	let slots = bytes.saturating_sub(none).checked_div(one.saturating_sub(none)).unwrap_or(0);
	u32::try_from(slots).unwrap_or(SLOTS).min(SLOTS)
}

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
	fn register_key() -> Weight {
		estimate(300, 2, 1)
	}
	fn deal(m: u32, s: u32) -> Weight {
		let value = u64::from(s).saturating_mul(120).saturating_add(u64::from(m).saturating_mul(40)).saturating_add(1_500);
		estimate(value.saturating_mul(2), 4, 4)
	}
	fn open(s: u32) -> Weight {
		estimate(u64::from(s).saturating_mul(110).saturating_add(500), 4, 2)
	}
	fn open_last(m: u32, s: u32) -> Weight {
		let read = u64::from(m).saturating_mul(2);
		Self::open(s).saturating_add(estimate(4_000, read, 2))
	}
	fn authorize() -> Weight {
		estimate(150, 8, 0)
	}
	fn authorize_dealing() -> Weight {
		estimate(400, 8, 0)
	}
	fn track() -> Weight {
		estimate(10, 2, 0)
	}
	// A thousand Hosts to seat; 64 dealings, 128 openings and 256 rejections to remove.
	fn turn() -> Weight {
		estimate(2_000, 470, 470)
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn slots_should_follow_from_the_length_of_what_is_sent() {
		for slots in [1, 65, SLOTS] {
			assert_eq!(slots_of_dealing(Dealing::size(slots, THRESHOLD)), slots);
			assert_eq!(slots_of_opening(Opening::size(slots)), slots);
		}
		assert_eq!((slots_of_dealing(0), slots_of_opening(usize::MAX)), (0, SLOTS));
	}

	#[test]
	fn weights_should_fit_a_block_many_times() {
		// Normal calls have 0.6 s of it.
		assert!(<() as WeightInfo>::deal(64, SLOTS).ref_time() < 60_000_000_000);
		assert!(<() as WeightInfo>::open_last(64, 64).ref_time() < 30_000_000_000);
	}
}
