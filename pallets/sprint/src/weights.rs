//! Weights of the calls, measured by `frame-omni-bencher` 0.28.0 on the release WebAssembly (`scripts/bench-weights.sh`,
//! 2026-11-21, 10 steps, 5 repeats; two cores of a shared AMD EPYC with a network running beside). Times are the medians,
//! rounded up; reads and writes are those the bencher counted. `benchmarking.rs` says what the worst cases are.

use frame_support::weights::{constants::RocksDbWeight, Weight};
use pacer_sprint::Preset;

/// Weights of the calls and of what happens at the border of sessions.
pub trait WeightInfo {
	/// `commit`
	fn commit() -> Weight;
	/// `challenge` and `challenge_signed`
	fn challenge() -> Weight;
	/// `answer`
	fn answer() -> Weight;
	/// `refute` and `refute_signed` on the network `dev`, for the step that costs most.
	fn refute_dev() -> Weight;
	/// The same on `bench`.
	fn refute_bench() -> Weight;
	/// The same on `whitepaper`.
	fn refute_whitepaper() -> Weight;
	/// The same on `wide`.
	fn refute_wide() -> Weight;
	/// `demand_list` and `demand_list_signed`
	fn demand_list() -> Weight;
	/// `post_openings`, of as many as fit.
	fn post_openings() -> Weight;
	/// Checking the payload of a commit, challenge or demand.
	fn authorize() -> Weight;
	/// Checking the payload of an answer, a refutation or openings: signature, and up to 512 hashes.
	fn authorize_proof() -> Weight;
	/// What every block does.
	fn track() -> Weight;
	/// Deciding so many matters by silence.
	fn sweep(settled: u32) -> Weight;
	/// `refute` and `refute_signed`, for the step that costs most on a network.
	fn refute(preset: Preset) -> Weight {
		match preset {
			Preset::Dev => Self::refute_dev(),
			Preset::Bench => Self::refute_bench(),
			Preset::Whitepaper => Self::refute_whitepaper(),
			Preset::Wide => Self::refute_wide(),
		}
	}
}

/// Time in microseconds; reads and writes of the database.
fn measured(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

/// The dearest step, the layer in which nothing is left out; the decision; and the strike, which ends eight other
/// disputes.
fn refute(micros: u64) -> Weight {
	measured(micros, 62, 63)
}

impl WeightInfo for () {
	fn commit() -> Weight {
		measured(38, 5, 2)
	}
	fn challenge() -> Weight {
		measured(144, 15, 10)
	}
	fn answer() -> Weight {
		measured(47, 6, 2)
	}
	fn refute_dev() -> Weight {
		refute(1_110)
	}
	fn refute_bench() -> Weight {
		refute(24_100)
	}
	fn refute_whitepaper() -> Weight {
		refute(160_000)
	}
	// Two runs of nine repeats with less beside them: 218 and 225 ms. In the long run, disturbed, it took 296 at least.
	fn refute_wide() -> Weight {
		refute(226_000)
	}
	// The list of weights is read and decoded: up to 56 KiB.
	fn demand_list() -> Weight {
		measured(265, 13, 5).saturating_add(Weight::from_parts(0, 56 * 1_024))
	}
	fn post_openings() -> Weight {
		measured(202, 6, 4)
	}
	fn authorize() -> Weight {
		measured(321, 14, 0).saturating_add(Weight::from_parts(0, 56 * 1_024))
	}
	// Measured in a list of 2^16: 915 us. The longest, of ten million, are half as deep again.
	fn authorize_proof() -> Weight {
		measured(1_400, 12, 0)
	}
	fn track() -> Weight {
		measured(40, 8, 1)
	}
	fn sweep(settled: u32) -> Weight {
		// The line below begins with the strike that the first of them is.
		if settled == 0 {
			return measured(27, 2, 0);
		}
		measured(193, 35, 14).saturating_add(measured(62, 5, 6).saturating_mul(u64::from(settled)))
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn step_of_the_production_network_should_weigh_a_quarter_of_a_second_at_most() {
		let whole = <() as WeightInfo>::refute(Preset::Whitepaper).saturating_add(<() as WeightInfo>::authorize_proof());
		assert!(whole.ref_time() <= 250_000_000_000, "{whole:?}");
		assert!(Preset::ALL.into_iter().all(|preset| <() as WeightInfo>::refute(preset).ref_time() < 350_000_000_000));
	}
}
