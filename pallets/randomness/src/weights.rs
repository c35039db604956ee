//! Weights of the calls. Estimates from counts of reads, writes and signature checks; to be replaced by benchmarks.

use frame_support::weights::{constants::RocksDbWeight, Weight};

/// Weights of the calls and of what happens at the border of phases.
pub trait WeightInfo {
	/// `deal`
	fn deal() -> Weight;
	/// `open`, the value included
	fn open() -> Weight;
	/// Checking the payload of either.
	fn authorize() -> Weight;
	/// What every block does.
	fn track() -> Weight;
	/// What the first block of a phase may do beside: a value, and forgetting an old epoch.
	fn turn() -> Weight;
}

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
	fn deal() -> Weight {
		estimate(20, 2, 1)
	}
	// A committee of 64: all dealings and openings are read when the last one opens.
	fn open() -> Weight {
		estimate(300, 132, 4)
	}
	fn authorize() -> Weight {
		estimate(120, 8, 0)
	}
	fn track() -> Weight {
		estimate(10, 2, 0)
	}
	fn turn() -> Weight {
		estimate(500, 330, 200)
	}
}
