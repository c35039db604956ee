//! Weights of the calls and of a settlement's page. Estimates from counts of reads, writes and signature checks; to be
//! replaced by benchmarks.

use frame_support::weights::{constants::RocksDbWeight, Weight};

/// Weights of the calls.
pub trait WeightInfo {
	/// `reveal_duty_seed`
	fn reveal_duty_seed() -> Weight;
	/// Checking the payload's key, signature and VRF proof.
	fn authorize() -> Weight;
	/// Looking whether anything is to be settled.
	fn idle_page() -> Weight;
	/// One page of a settlement with this many Hosts.
	fn page(hosts: u32) -> Weight;
}

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

impl WeightInfo for () {
	fn reveal_duty_seed() -> Weight {
		estimate(150, 4, 1)
	}
	fn authorize() -> Weight {
		// A signature (90 us) and a VRF proof, which in WASM was guessed at a millisecond.
		estimate(1_200, 10, 0)
	}
	fn idle_page() -> Weight {
		estimate(5, 3, 0)
	}
	fn page(hosts: u32) -> Weight {
		let hosts = u64::from(hosts);
		estimate(
			hosts.saturating_mul(30).saturating_add(50),
			hosts.saturating_mul(8).saturating_add(4),
			hosts.saturating_mul(2).saturating_add(1),
		)
	}
}
