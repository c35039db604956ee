//! What a node answers about Pacer.
//!
//! Agents and tools read the chain through `state_call` with these methods and the types of `pacer-types`, so they need
//! neither storage layouts nor metadata. `duty_extrinsic` wraps what an agent signed into the general transaction that
//! carries it, so an agent keeps working across upgrades that move call indices.
#![cfg_attr(not(feature = "std"), no_std)]
#![allow(clippy::too_many_arguments)]

extern crate alloc;

use alloc::vec::Vec;
use pacer_types::{
	ledger::{BatchKey, InferenceView, ModelView},
	traits::WorkCounts,
	views::{BeaconView, ClockView, ConservationView, EpochView, HostView, PayerView, SprintView},
	AccountId, Balance, DutyKey, EpochIndex, InferenceId, Lane, SignedDutyCall, Slot,
};

sp_api::decl_runtime_apis! {
	/// Phase, Hosts, races, inferences, prices and rewards.
	pub trait PacerApi {
		/// Parameters of the clock, current phase, and its end.
		fn clock() -> ClockView;
		/// All registered Hosts with weights and reputation.
		fn hosts() -> Vec<HostView>;
		/// One Host.
		fn host(who: AccountId) -> Option<HostView>;
		/// Weights and totals of an epoch; the last three are kept.
		fn epoch(epoch: EpochIndex) -> EpochView;
		/// The race of an epoch.
		fn sprint(epoch: EpochIndex) -> SprintView;
		/// The randomness of an epoch.
		fn beacon(epoch: EpochIndex) -> BeaconView;
		/// Next nonce of a Host's lane.
		fn lane_nonce(who: AccountId, lane: Lane) -> u64;
		/// Registered models and their prices.
		fn models() -> Vec<ModelView>;
		/// An inference by its id, while its batch is not sealed.
		fn inference(id: InferenceId) -> Option<InferenceView>;
		/// The inferences of a batch that is not sealed.
		fn batch(key: BatchKey) -> Vec<InferenceView>;
		/// Batches that are not sealed.
		fn open_batches() -> Vec<BatchKey>;
		/// A payer by account.
		fn payer(who: AccountId) -> Option<PayerView>;
		/// The payer of a Developer's signed requests, or of its API keys at a transfer agent.
		fn payer_of(developer: AccountId, ta: Option<AccountId>) -> Option<PayerView>;
		/// Keys that may sign requests for a Developer, beside its own.
		fn request_keys(developer: AccountId) -> Vec<DutyKey>;
		/// The value with which executors are drawn in this epoch.
		fn draw_seed() -> [u8; 32];
		/// Open batches that changed in or after a slot.
		fn recent_batches(since: Slot) -> Vec<BatchKey>;
		/// Running re-verifications: batch, position, whether fraud is claimed, and the deadline.
		fn open_rechecks() -> Vec<(BatchKey, u16, bool, Slot)>;
		/// What remains of the allowance by which `developer` lets `ta` spend from its deposit in this epoch.
		fn allowance(developer: AccountId, ta: AccountId) -> Balance;
		/// Rewards that wait for a claim.
		fn claimable(who: AccountId) -> Vec<(EpochIndex, Balance)>;
		/// What a Host did in an epoch.
		fn work(epoch: EpochIndex, who: AccountId) -> WorkCounts;
		/// What an account earned and claimed since it is known.
		fn earnings(who: AccountId) -> (Balance, Balance);
		/// Where the money is.
		fn conservation() -> ConservationView;
		/// The extrinsic that carries a signed duty call.
		fn duty_extrinsic(call: SignedDutyCall) -> Vec<u8>;
	}
}
