//! Weights of the calls, measured by `frame-omni-bencher` 0.28.0 on the release WebAssembly (`scripts/bench-weights.sh`,
//! 2026-11-21, 10 steps, 5 repeats; two cores of a shared AMD EPYC with a network running beside). Times are the medians'
//! slopes, rounded up; reads and writes are those the bencher counted.

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

/// Time in microseconds; reads and writes of the database.
fn measured(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

fn times(micros: u64, count: u32) -> u64 {
	micros.saturating_mul(u64::from(count))
}

impl WeightInfo for () {
	fn register_key() -> Weight {
		measured(185, 2, 1)
	}
	// Both values: 15 ms for each at 64 members and 128 slots.
	fn deal(m: u32, s: u32) -> Weight {
		measured(times(57, m).saturating_add(times(174, s)).saturating_add(4_405), 4, 3)
	}
	fn open(s: u32) -> Weight {
		measured(times(80, s).saturating_add(380), 4, 2)
	}
	fn open_last(m: u32, s: u32) -> Weight {
		let reads = times(2, m).saturating_add(6);
		measured(times(14, m).saturating_add(times(80, s)).saturating_add(4_100), reads, 4)
	}
	fn authorize() -> Weight {
		measured(155, 12, 0)
	}
	fn authorize_dealing() -> Weight {
		measured(295, 12, 0)
	}
	fn track() -> Weight {
		measured(26, 6, 0)
	}
	// A thousand Hosts to seat; 64 dealings, 128 openings and 256 rejections to remove.
	fn turn() -> Weight {
		measured(715, 455, 456)
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
