//! Batches over a chain in memory.

use super::*;
use crate::{
	ledger::queues::QueuedStart,
	store::DataDir,
	testing::{FakeChain, MODEL},
};
use pacer_types::{
	ledger::{Verdict, VerdictRecord},
	Hash,
};

struct Setup {
	chain: FakeChain,
	dir: tempfile::TempDir,
}

impl Setup {
	fn new() -> Self {
		Self { chain: FakeChain::four_hosts(), dir: tempfile::tempdir().unwrap() }
	}

	/// The agent of Host 0, as after a start.
	fn agent(&self) -> (DataDir, Arc<Queues>, Batcher) {
		let key = self.chain.key(0);
		let data = DataDir::open(self.dir.path(), &key.public()).unwrap();
		let queues = Arc::new(Queues::open(&data).unwrap());
		(data, queues.clone(), Batcher::new(self.chain.api(), key, queues))
	}

	fn start(&self, sequence: u32) -> QueuedStart {
		let id = InferenceId::from_low_u64_be(sequence.into());
		let view = self.chain.view(0);
		let model = view.model(MODEL).unwrap().id;
		let executor = draw::executor(&view, &id, 0, &self.chain.account(0), model).unwrap();
		let record = StartRecord { payer: 2, sequence, request: Hash::zero(), model, max_cost_micro: 5, attempt: 0 };
		QueuedStart { id, developer: AccountId::from([77; 32]), is_by_key: true, executor, record, failures: 0 }
	}

	fn finish(&self) -> FinishRecord {
		FinishRecord { artifact: Hash::repeat_byte(1), prompt_tokens: 2, completion_tokens: 3 }
	}
}

fn sequences(call: &DutyCall) -> Vec<u32> {
	match call {
		DutyCall::StartMany { records } => records.iter().map(|r| r.sequence).collect(),
		other => panic!("{other:?}"),
	}
}

#[test]
fn batch_should_go_out_when_it_is_full_or_two_blocks_old() {
	assert!(!is_due(0, 0, 100));
	assert!(is_due(256, 10, 10));
	assert!(!is_due(255, 10, 11));
	assert!(is_due(1, 10, 12));
}

#[tokio::test]
async fn starts_should_go_out_in_order_and_survive_a_restart() {
	let setup = Setup::new();
	let (data, queues, mut batcher) = setup.agent();
	for sequence in [1, 0, 2] {
		queues.start(setup.start(sequence)).unwrap();
	}
	batcher.step(&setup.chain.view(0)).await.unwrap();
	assert!(setup.chain.submitted().is_empty(), "they wait for company");
	drop((data, queues, batcher));
	let (_data, queues, mut batcher) = setup.agent();
	assert_eq!(queues.lengths(), [3, 0, 0]);
	batcher.step(&setup.chain.view(0)).await.unwrap();
	setup.chain.advance(2);
	batcher.step(&setup.chain.view(0)).await.unwrap();
	let sent = setup.chain.submitted();
	assert_eq!(sent.len(), 1);
	assert_eq!(sequences(&sent[0].call), [0, 1, 2]);
	assert_eq!((sent[0].header.nonce, queues.lengths()), (0, [3, 0, 0]), "a record stays until it took effect");
	// The chain takes them.
	for sequence in 0..3 {
		let start = setup.start(sequence);
		setup.chain.record(0, 1, start.id, start.record, None);
	}
	setup.chain.set_nonce(0, Lane::Ledger, 1);
	setup.chain.set_next_sequence(3);
	setup.chain.advance(1);
	batcher.step(&setup.chain.view(0)).await.unwrap();
	setup.chain.advance(2);
	batcher.step(&setup.chain.view(0)).await.unwrap();
	assert_eq!((queues.lengths(), setup.chain.submitted().len()), ([0, 0, 0], 1));
}

#[tokio::test]
async fn batch_should_be_sent_again_under_its_nonce_when_it_is_not_included() {
	let setup = Setup::new();
	let (_data, queues, mut batcher) = setup.agent();
	queues.start(setup.start(0)).unwrap();
	for slots in [2, 2, RESEND_SLOTS, VALIDITY_SLOTS] {
		batcher.step(&setup.chain.view(0)).await.unwrap();
		setup.chain.advance(slots);
	}
	batcher.step(&setup.chain.view(0)).await.unwrap();
	let sent = setup.chain.submitted();
	assert!(sent.len() >= 3 && sent.iter().all(|c| c.header.nonce == 0));
	assert_eq!(sent[0].header, sent[1].header, "the same transaction while it is valid");
	assert!(sent.last().unwrap().header.valid_until > sent[0].header.valid_until, "signed anew afterwards");
}

#[tokio::test]
async fn record_should_be_given_up_when_the_chain_never_takes_it() {
	let setup = Setup::new();
	let (_data, queues, mut batcher) = setup.agent();
	queues.start(setup.start(0)).unwrap();
	for nonce in 1..=u64::from(MAX_FAILURES) {
		for _ in 0..4 {
			batcher.step(&setup.chain.view(0)).await.unwrap();
			setup.chain.advance(1);
		}
		// Included, but without effect.
		setup.chain.set_nonce(0, Lane::Ledger, nonce);
		for _ in 0..4 {
			batcher.step(&setup.chain.view(0)).await.unwrap();
			setup.chain.advance(1);
		}
	}
	assert_eq!(queues.lengths(), [0, 0, 0]);
	assert!(setup.chain.submitted().len() <= usize::from(MAX_FAILURES) + 1);
}

#[tokio::test]
async fn finish_should_wait_for_its_start_and_match_its_request() {
	let setup = Setup::new();
	let (_data, queues, mut batcher) = setup.agent();
	let [good, forged] = [setup.start(0), setup.start(1)];
	queues.finish(good.id, setup.finish(), good.record.request, setup.chain.view(0).slot()).unwrap();
	queues.finish(forged.id, setup.finish(), Hash::repeat_byte(9), setup.chain.view(0).slot()).unwrap();
	for _ in 0..3 {
		batcher.step(&setup.chain.view(0)).await.unwrap();
		setup.chain.advance(1);
	}
	assert!(setup.chain.submitted().is_empty());
	setup.chain.record(1, 0, good.id, good.record, None);
	setup.chain.record(1, 0, forged.id, forged.record, None);
	setup.chain.execute_at_once();
	for _ in 0..8 {
		batcher.step(&setup.chain.view(0)).await.unwrap();
		setup.chain.advance(1);
	}
	let sent = setup.chain.submitted();
	let DutyCall::FinishMany { records } = &sent[0].call else { panic!("{sent:?}") };
	assert_eq!((sent.len(), records.len(), &records[0].2), (1, 1, &setup.finish()));
	assert_eq!(queues.lengths(), [0, 0, 0]);
	// An answer whose start never comes is forgotten in the end.
	queues.finish(InferenceId::repeat_byte(7), setup.finish(), Hash::zero(), setup.chain.view(0).slot()).unwrap();
	setup.chain.advance(FINISH_WAIT_SLOTS + 1);
	batcher.step(&setup.chain.view(0)).await.unwrap();
	assert_eq!(queues.lengths(), [0, 0, 0]);
}

#[tokio::test]
async fn verdict_should_be_recorded_once() {
	let setup = Setup::new();
	let (_data, queues, mut batcher) = setup.agent();
	let start = setup.start(0);
	setup.chain.record(1, 2, start.id, start.record, Some(setup.finish()));
	let batch = setup.chain.view(0).inferences.get(&start.id).unwrap().batch.clone();
	queues.verdict(start.id, VerdictRecord { batch, index: 0, verdict: Verdict::Pass }).unwrap();
	setup.chain.execute_at_once();
	for _ in 0..8 {
		batcher.step(&setup.chain.view(0)).await.unwrap();
		setup.chain.advance(1);
	}
	assert_eq!((setup.chain.submitted().len(), queues.lengths()), (1, [0, 0, 0]));
}

#[tokio::test]
async fn starts_should_name_the_same_executors_when_the_epoch_changes() {
	let setup = Setup::new();
	let (_data, queues, mut batcher) = setup.agent();
	let starts: Vec<QueuedStart> = (0..12).map(|sequence| setup.start(sequence)).collect();
	for start in &starts {
		queues.start(start.clone()).unwrap();
	}
	for _ in 0..3 {
		batcher.step(&setup.chain.view(0)).await.unwrap();
		setup.chain.advance(1);
	}
	assert_eq!(setup.chain.submitted().len(), 1);
	setup.chain.begin(6);
	for _ in 0..3 {
		batcher.step(&setup.chain.view(0)).await.unwrap();
		setup.chain.advance(1);
	}
	let sent = setup.chain.submitted();
	let DutyCall::StartMany { records } = &sent[1].call else { panic!("{sent:?}") };
	assert_eq!((sent.len(), sent[1].header.epoch, sent[1].header.nonce, records.len()), (2, 6, 0, starts.len()));
	assert!(records.iter().any(|r| r.attempt > 0), "some are drawn differently now");
	let view = setup.chain.view(0);
	for (record, start) in records.iter().zip(&starts) {
		let drawn = draw::executor(&view, &start.id, record.attempt, &setup.chain.account(0), record.model);
		assert_eq!(drawn.as_ref(), Some(&start.executor));
	}
}
