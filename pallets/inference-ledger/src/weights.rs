//! Weights of the calls. Estimates from counts of reads, writes and hashes; to be replaced by benchmarks.

use frame_support::weights::{constants::RocksDbWeight, Weight};

/// Weights of the calls.
pub trait WeightInfo {
	/// `register_model` and `update_model`
	fn set_model() -> Weight;
	/// `fund`
	fn fund() -> Weight;
	/// `withdraw`
	fn withdraw() -> Weight;
	/// `allow` and `revoke`
	fn allow() -> Weight;
	/// `register_request_key` and `remove_request_key`
	fn request_key() -> Weight;
	/// `start_many` with n records.
	fn start_many(n: u32) -> Weight;
	/// `finish_many` with n records.
	fn finish_many(n: u32) -> Weight;
	/// `verdict_many` with n records.
	fn verdict_many(n: u32) -> Weight;
	/// `vote_inference`
	fn vote_inference() -> Weight;
	/// Sealing a batch of n records.
	fn seal(n: u32) -> Weight;
	/// Refunding a batch of n records that hang.
	fn expire(n: u32) -> Weight;
	/// Checking a payload's key, nonce and signature.
	fn authorize() -> Weight;
}

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
	fn set_model() -> Weight {
		estimate(30, 2, 2)
	}
	fn fund() -> Weight {
		estimate(80, 7, 7)
	}
	fn withdraw() -> Weight {
		estimate(150, 70, 110)
	}
	fn allow() -> Weight {
		estimate(40, 5, 5)
	}
	fn request_key() -> Weight {
		estimate(20, 1, 1)
	}
	fn start_many(n: u32) -> Weight {
		// Per record a payer, its account and an allowance, each of them a different one at worst.
		estimate(100, 12, 8).saturating_add(estimate(15, 3, 3).saturating_mul(u64::from(n)))
	}
	fn finish_many(n: u32) -> Weight {
		// Every record may be of another batch, which is read and written whole.
		estimate(60, 12, 6).saturating_add(estimate(60, 1, 1).saturating_mul(u64::from(n)))
	}
	fn verdict_many(n: u32) -> Weight {
		estimate(60, 8, 4).saturating_add(estimate(60, 2, 1).saturating_mul(u64::from(n)))
	}
	fn vote_inference() -> Weight {
		estimate(60, 12, 10)
	}
	fn seal(n: u32) -> Weight {
		estimate(300, 20, 6).saturating_add(estimate(250, 4, 4).saturating_mul(u64::from(n)))
	}
	fn expire(n: u32) -> Weight {
		estimate(20, 4, 3).saturating_add(estimate(10, 2, 2).saturating_mul(u64::from(n)))
	}
	fn authorize() -> Weight {
		estimate(90, 8, 0)
	}
}
