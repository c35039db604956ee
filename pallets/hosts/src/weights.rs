//! Weights of the calls. Estimates from counts of reads, writes and signature checks; to be replaced by benchmarks.

use frame_support::weights::{constants::RocksDbWeight, Weight};

/// Weights of the calls.
pub trait WeightInfo {
	/// `register`
	fn register() -> Weight;
	/// `update`
	fn update() -> Weight;
	/// `set_duty_key`
	fn set_duty_key() -> Weight;
	/// `leave`
	fn leave() -> Weight;
	/// `withdraw`
	fn withdraw() -> Weight;
	/// `heartbeat`
	fn heartbeat() -> Weight;
	/// Checking a payload's key, nonce and signature.
	fn authorize() -> Weight;
}

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
	fn register() -> Weight {
		estimate(120, 6, 6)
	}
	fn update() -> Weight {
		estimate(30, 1, 1)
	}
	fn set_duty_key() -> Weight {
		estimate(100, 3, 3)
	}
	fn leave() -> Weight {
		estimate(20, 2, 1)
	}
	fn withdraw() -> Weight {
		estimate(60, 5, 6)
	}
	fn heartbeat() -> Weight {
		estimate(20, 1, 1)
	}
	fn authorize() -> Weight {
		estimate(90, 6, 0)
	}
}
