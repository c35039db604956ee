//! Answers of the runtime API that are put together from several pallets.

use alloc::vec::Vec;
use codec::Encode;
use pacer_types::{
	duty::DutyCall,
	traits::{EpochClock, EpochWeights, HostRegistry, Standing, WorkRecord},
	views::{ConservationView, EpochView, HostView},
	AccountId, EpochIndex, SignedDutyCall,
};

use crate::*;

/// One Host.
pub fn host(who: &AccountId) -> Option<HostView> {
	let info = pallet_hosts::Hosts::<Runtime>::get(who)?;
	let epoch = Sprint::epoch();
	let weight = Sprint::weight(epoch, who);
	Some(HostView {
		account: who.clone(),
		duty_key: info.duty_key,
		endpoint: info.endpoint.into_inner(),
		models: info.models.into_inner(),
		bond: info.bond,
		work: weight.as_ref().map_or(0, |w| w.work),
		consensus: weight.as_ref().map_or(0, |w| w.consensus),
		reputation: Reputation::reputation(who),
		excluded: Reputation::is_excluded(epoch, who),
		heartbeat: pallet_hosts::Heartbeats::<Runtime>::contains_key(epoch, who),
		may_race: Hosts::may_race(who, epoch),
		work_counts: InferenceLedger::counts(epoch, who),
	})
}

/// All Hosts, by account.
pub fn hosts() -> Vec<HostView> {
	let mut accounts = <Hosts as HostRegistry>::hosts();
	accounts.sort_unstable();
	accounts.iter().filter_map(host).collect()
}

/// Weights and totals of an epoch.
pub fn epoch(epoch: EpochIndex) -> EpochView {
	EpochView { epoch, weights: Sprint::epoch_weights(epoch), totals: InferenceLedger::totals(epoch) }
}

/// Where the money is, over all pallets that hold any.
pub fn conservation() -> ConservationView {
	let ledger = InferenceLedger::conservation();
	let rewards = Rewards::conservation();
	ConservationView { escrow: ledger.escrow, ok: ledger.ok && rewards.ok, ..rewards }
}

/// The extrinsic that carries a signed duty call. Lists that are too long for the call are an empty answer: no such
/// extrinsic exists.
pub fn duty_extrinsic(signed: SignedDutyCall) -> Vec<u8> {
	duty_call(signed).map_or_else(Vec::new, |call| UncheckedExtrinsic::new_transaction(call, unsigned_extension()).encode())
}

fn duty_call(signed: SignedDutyCall) -> Option<RuntimeCall> {
	use pallet_inference_ledger::Call as Ledger;
	use pallet_sprint::Call as Sprint;
	let SignedDutyCall { header, call, signature } = signed;
	Some(match call {
		DutyCall::Commit { count, root } => Sprint::commit { header, count, root, signature }.into(),
		DutyCall::Challenge { race, subject, position } => Sprint::challenge { header, race, subject, position, signature }.into(),
		DutyCall::Answer { race, dispute, opening, hashes } =>
			Sprint::answer { header, race, dispute, opening, hashes: hashes.try_into().ok()?, signature }.into(),
		DutyCall::Refute { race, dispute, step } => Sprint::refute { header, race, dispute, step, signature }.into(),
		DutyCall::DemandList { subject, with_deposit } => Sprint::demand_list { header, subject, with_deposit, signature }.into(),
		DutyCall::PostOpenings { openings } =>
			Sprint::post_openings { header, openings: openings.try_into().ok()?, signature }.into(),
		DutyCall::RevealDutySeed { pre_output, proof } =>
			pallet_reputation::Call::reveal_duty_seed { header, pre_output, proof, signature }.into(),
		DutyCall::StartMany { records } => Ledger::start_many { header, records: records.try_into().ok()?, signature }.into(),
		DutyCall::FinishMany { records } => Ledger::finish_many { header, records: records.try_into().ok()?, signature }.into(),
		DutyCall::VerdictMany { records } => Ledger::verdict_many { header, records: records.try_into().ok()?, signature }.into(),
		DutyCall::VoteInference { batch, index, pass } => Ledger::vote_inference { header, batch, index, pass, signature }.into(),
	})
}
