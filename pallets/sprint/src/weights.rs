//! Weights of the calls.
//!
//! The times of the steps that `refute_*` recomputes are measured (see [`step_micros`]); the rest are estimates from
//! counts of reads, writes, hashes and signature checks. `benchmarking.rs` measures all but the authorizations.

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

fn estimate(micros: u64, reads: u64, writes: u64) -> Weight {
	Weight::from_parts(micros.saturating_mul(1_000_000), reads.saturating_mul(4_096))
		.saturating_add(RocksDbWeight::get().reads_writes(reads, writes))
}

/// Time of the dearest step in microseconds: the layer in which nothing is left out.
///
/// Measured as CPU time of [`pacer_sprint::dispute::judge`] in WebAssembly without SIMD, compiled by the wasmtime that
/// the node's executor uses, on a shared AMD EPYC core under load; largest of seven runs: `bench` 27 ms, `whitepaper`
/// 174 ms, `wide` 249 ms; `dev` is too short for that clock. The output step, permutation and score included, took at most half a layer. What
/// is charged is about a seventh more.
pub const fn step_micros(preset: Preset) -> u64 {
	match preset {
		Preset::Dev => 1_000,
		Preset::Bench => 32_000,
		Preset::Whitepaper => 200_000,
		Preset::Wide => 285_000,
	}
}

/// That step, the decision, and the strike, which ends up to eight other disputes.
fn refute(preset: Preset) -> Weight {
	estimate(step_micros(preset), 8, 4).saturating_add(<() as WeightInfo>::sweep(9))
}

impl WeightInfo for () {
	fn commit() -> Weight {
		estimate(30, 6, 3)
	}
	fn challenge() -> Weight {
		estimate(60, 14, 8)
	}
	fn answer() -> Weight {
		estimate(60, 8, 3)
	}
	fn refute_dev() -> Weight {
		refute(Preset::Dev)
	}
	fn refute_bench() -> Weight {
		refute(Preset::Bench)
	}
	fn refute_whitepaper() -> Weight {
		refute(Preset::Whitepaper)
	}
	fn refute_wide() -> Weight {
		refute(Preset::Wide)
	}
	// The list of weights is read and decoded: up to 56 KiB.
	fn demand_list() -> Weight {
		estimate(150, 14, 4).saturating_add(Weight::from_parts(0, 56 * 1_024))
	}
	fn post_openings() -> Weight {
		estimate(150, 8, 3)
	}
	fn authorize() -> Weight {
		estimate(250, 16, 0).saturating_add(Weight::from_parts(0, 56 * 1_024))
	}
	fn authorize_proof() -> Weight {
		estimate(1_500, 12, 0)
	}
	fn track() -> Weight {
		estimate(20, 8, 2)
	}
	fn sweep(settled: u32) -> Weight {
		estimate(5, 2, 0).saturating_add(estimate(60, 12, 12).saturating_mul(u64::from(settled)))
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
