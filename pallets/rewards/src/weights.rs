//! Weights of the calls and of a settlement's page. Estimates from counts of reads and writes; to be replaced by
//! benchmarks.

use frame_support::weights::{constants::RocksDbWeight, Weight};

/// Weights of the calls.
pub trait WeightInfo {
	/// `claim` of this many epochs.
	fn claim(epochs: u32) -> Weight;
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
	fn claim(epochs: u32) -> Weight {
		estimate(u64::from(epochs).saturating_add(60), 5, 5)
	}
	fn idle_page() -> Weight {
		estimate(5, 3, 0)
	}
	fn page(hosts: u32) -> Weight {
		let hosts = u64::from(hosts);
		estimate(
			hosts.saturating_mul(50).saturating_add(50),
			hosts.saturating_mul(11).saturating_add(5),
			hosts.saturating_mul(5).saturating_add(3),
		)
	}
}
