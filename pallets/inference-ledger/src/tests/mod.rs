//! Tests by topic, and the steps they share.

mod finish;
mod invariants;
mod models;
mod payers;
mod recheck;
mod seal;
mod stale;
mod start;
mod verdict;

use frame_support::{assert_ok, traits::Authorize, BoundedVec};
use frame_system::RawOrigin;
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader},
	ledger::{BatchKey, FinishRecord, InferenceView, StartRecord, Verdict, VerdictRecord},
	traits::{DutyAuth, EpochClock},
	AccountId, Balance, Hash, Lane, PCR,
};
use sp_core::Pair;
use sp_runtime::{
	traits::Dispatchable,
	transaction_validity::{TransactionSource, TransactionValidityError},
};

use crate::{mock::*, Call, Event, RecordError};

/// Most that an inference of the tests may cost: 3 tokens.
pub const MAX_COST: Balance = 3 * PCR;

pub fn start(payer: u32, sequence: u32) -> StartRecord {
	StartRecord { payer, sequence, request: Hash::repeat_byte(sequence as u8), model: 0, max_cost_micro: 3_000_000, attempt: 0 }
}

/// 100 prompt and 200 completion tokens: one token of money.
pub fn finish() -> FinishRecord {
	FinishRecord { artifact: Hash::repeat_byte(7), prompt_tokens: 100, completion_tokens: 200 }
}

fn header(host: &AccountId, nonce: u64) -> DutyHeader {
	let now = Fake::now();
	DutyHeader { host: host.clone(), epoch: now.epoch, nonce, valid_until: now.slot + 16 }
}

/// A call signed by the Host for its next nonce.
pub fn starts(ta: &AccountId, records: Vec<StartRecord>) -> Call<Test> {
	let header = header(ta, Fake::next_nonce(ta, Lane::Ledger));
	let signature = duty_pair(ta).sign(&signing_hash(&Ledger::genesis_hash(), &header, CallKind::StartMany, &(&records,)));
	Call::start_many { header, records: BoundedVec::truncate_from(records), signature }
}

pub fn results(executor: &AccountId, records: Vec<(BatchKey, u16, FinishRecord)>) -> Call<Test> {
	let header = header(executor, Fake::next_nonce(executor, Lane::Ledger));
	let signature = duty_pair(executor).sign(&signing_hash(&Ledger::genesis_hash(), &header, CallKind::FinishMany, &(&records,)));
	Call::finish_many { header, records: BoundedVec::truncate_from(records), signature }
}

pub fn verdicts(validator: &AccountId, records: Vec<VerdictRecord>) -> Call<Test> {
	let header = header(validator, Fake::next_nonce(validator, Lane::Ledger));
	let signature =
		duty_pair(validator).sign(&signing_hash(&Ledger::genesis_hash(), &header, CallKind::VerdictMany, &(&records,)));
	Call::verdict_many { header, records: BoundedVec::truncate_from(records), signature }
}

pub fn vote(host: &AccountId, batch: &BatchKey, index: u16, pass: bool) -> Call<Test> {
	let header = header(host, 0);
	let signature =
		duty_pair(host).sign(&signing_hash(&Ledger::genesis_hash(), &header, CallKind::VoteInference, &(batch, index, pass)));
	Call::vote_inference { header, batch: batch.clone(), index, pass, signature }
}

/// What the pool says of a call.
pub fn judge(call: &Call<Test>) -> Result<(), TransactionValidityError> {
	call.authorize(TransactionSource::External).unwrap().map(|_| ())
}

/// Authorises and dispatches a call, as a block does.
pub fn send(call: Call<Test>) {
	judge(&call).unwrap();
	assert_ok!(RuntimeCall::Ledger(call).dispatch(RawOrigin::Authorized.into()));
}

/// The reasons for which records of the last block were rejected, with their positions.
pub fn rejections() -> Vec<(u16, RecordError)> {
	events()
		.into_iter()
		.filter_map(|event| match event {
			Event::RecordRejected { index, reason, .. } => Some((index, reason)),
			_ => None,
		})
		.collect()
}

/// Developer 0 has 50 tokens in deposit; its payer, with index 0, is ready.
pub fn fund() {
	assert_ok!(Ledger::fund(RuntimeOrigin::signed(developer(0)), 50 * PCR));
	next_block(1);
	next_block(1);
}

/// Host 0 starts one inference; returns it.
pub fn start_one(sequence: u32) -> InferenceView {
	let number = crate::NextBatch::<Test>::get(host(0));
	send(starts(&host(0), vec![start(0, sequence)]));
	Ledger::batch(&BatchKey { ta: host(0), number }).remove(0)
}

/// Host 0 starts one inference and its executor finishes it.
pub fn finish_one(sequence: u32) -> InferenceView {
	let view = start_one(sequence);
	send(results(&view.executor, vec![(view.batch.clone(), 0, finish())]));
	again(&view)
}

pub fn again(view: &InferenceView) -> InferenceView {
	Ledger::batch(&view.batch).remove(usize::from(view.index))
}

pub fn verdict(view: &InferenceView, verdict: Verdict) -> VerdictRecord {
	VerdictRecord { batch: view.batch.clone(), index: view.index, verdict }
}

/// The Hosts that may judge the inference: neither executor nor transfer agent.
pub fn judges(view: &InferenceView) -> Vec<AccountId> {
	(0..4).map(host).filter(|who| *who != view.executor && *who != view.batch.ta).collect()
}

pub fn free() -> Balance {
	Ledger::payer(&developer(0)).unwrap().free
}

pub fn reserved() -> Balance {
	Ledger::payer(&developer(0)).unwrap().reserved
}
