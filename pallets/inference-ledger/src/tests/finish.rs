//! Results: price, probability of verification, expiry.

use pacer_types::{
	ledger::{EpochTotals, InferenceStatus},
	traits::{WorkCounts, WorkRecord},
};

use super::*;
use crate::Totals;

#[test]
fn result_should_be_priced_by_its_tokens_and_free_the_rest() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		// 100 tokens at 2 and 200 at 4 per thousand.
		assert_eq!((view.cost, view.status), (PCR, InferenceStatus::Finished));
		assert_eq!((free(), reserved()), (49 * PCR, PCR));
		assert_eq!(view.verify_ppb, 1_000_000_000);
		assert_eq!(Ledger::counts(0, &view.executor), WorkCounts { assigned: 1, executed: 1, ..Default::default() });
		assert_eq!(Ledger::paid_inferences(0), 1);
	});
}

#[test]
fn price_should_never_exceed_the_maximum() {
	build_and_execute(|| {
		fund();
		let view = start_one(0);
		let endless = FinishRecord { prompt_tokens: u32::MAX, completion_tokens: u32::MAX, ..finish() };
		send(results(&view.executor, vec![(view.batch.clone(), 0, endless)]));
		assert_eq!((again(&view).cost, reserved(), free()), (MAX_COST, MAX_COST, 47 * PCR));
	});
}

#[test]
fn probability_should_follow_reputation_and_a_volume_that_cannot_jump() {
	build_and_execute(|| {
		fund();
		world(|w| w.reputation = 30);
		Totals::<Test>::insert(0, EpochTotals { finished: 1_000_000, ..Default::default() });
		assert_eq!(finish_one(0).verify_ppb, 1_000_000_000, "a flood does not switch verification off");
		let mut last = 1_000_000_000;
		for epoch in 1..30u32 {
			block_at(u64::from(epoch) * 384);
			let ppb = Ledger::verify_ppb(&host(1));
			assert!(ppb <= last);
			Totals::<Test>::insert(epoch, EpochTotals { finished: 1_000_000, ..Default::default() });
			last = ppb;
		}
		assert_eq!(last, 10_000_000);
		world(|w| w.reputation = 15);
		assert_eq!(Ledger::verify_ppb(&host(1)), 505_000_000);
	});
}

#[test]
fn result_should_be_rejected_when_it_is_not_the_executors_or_comes_twice() {
	build_and_execute(|| {
		fund();
		let view = start_one(0);
		let other = judges(&view).remove(0);
		let key = view.batch.clone();
		let unknown = BatchKey { ta: host(1), number: 5 };
		send(results(&other, vec![(key.clone(), 0, finish())]));
		let twice =
			vec![(key.clone(), 0, finish()), (key.clone(), 0, finish()), (key.clone(), 1, finish()), (unknown, 0, finish())];
		send(results(&view.executor, twice));
		assert_eq!(
			rejections(),
			vec![
				(0, RecordError::NotExecutor),
				(0, RecordError::AlreadyFinished),
				(1, RecordError::UnknownInference),
				(0, RecordError::UnknownInference),
			]
		);
	});
}

#[test]
fn hanging_inference_should_be_refunded_and_count_as_missed() {
	build_and_execute(|| {
		fund();
		let view = start_one(0);
		let started = view.started_at;
		block_at(started + 39);
		assert_eq!(again(&view).status, InferenceStatus::Started);
		// The scan runs every few slots; a result is too late from the slot on.
		world(|w| w.slot += 1);
		send(results(&view.executor, vec![(view.batch.clone(), 0, finish())]));
		assert_eq!(rejections(), vec![(0, RecordError::Expired)]);
		block_at(started + 44);
		assert_eq!(again(&view).status, InferenceStatus::Expired);
		assert_eq!(events(), vec![Event::Expired { batch: view.batch.clone(), index: 0, executor: view.executor.clone() }]);
		assert_eq!((free(), reserved()), (50 * PCR, 0));
		assert_eq!(Ledger::counts(0, &view.executor).missed, 1);
		assert_eq!((Ledger::totals(0).expired, Ledger::totals(0).refunded), (1, 1));
		send(results(&view.executor, vec![(view.batch.clone(), 0, finish())]));
		assert!(rejections().contains(&(0, RecordError::Expired)));
	});
}

#[test]
fn many_hanging_batches_should_be_refunded_over_several_blocks() {
	build_and_execute(|| {
		fund();
		for sequence in 0..15 {
			start_one(sequence);
		}
		assert_eq!(reserved(), 45 * PCR);
		block_at(60);
		assert_eq!(Ledger::totals(0).expired, 8);
		next_block(1);
		assert_eq!(Ledger::totals(0).expired, 15);
		assert_eq!(reserved(), 0);
	});
}
