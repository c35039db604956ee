//! Weights of the calls. Estimates from counts of reads, writes and signature checks; to be replaced by benchmarks.

use frame_support::weights::{constants::RocksDbWeight, Weight};

/// Weights of the calls and of what happens at the border of sessions.
pub trait WeightInfo {
	/// `commit`
	fn commit() -> Weight;
	/// `vote_count`
	fn vote_count() -> Weight;
	/// Checking the payload of either.
	fn authorize() -> Weight;
	/// What every block does.
	fn track() -> Weight;
}

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
	fn commit() -> Weight {
		estimate(30, 4, 3)
	}
	// The list of weights is read and decoded: up to 56 KiB.
	fn vote_count() -> Weight {
		estimate(100, 4, 1).saturating_add(Weight::from_parts(0, 56 * 1_024))
	}
	fn authorize() -> Weight {
		estimate(150, 10, 0).saturating_add(Weight::from_parts(0, 56 * 1_024))
	}
	fn track() -> Weight {
		estimate(10, 4, 1)
	}
}
