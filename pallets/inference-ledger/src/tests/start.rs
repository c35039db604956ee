//! Starts: reservation, draw of the executor, rejected records.

use pacer_types::ledger::{InferenceStatus, MAX_ATTEMPT};

use super::*;
use crate::{Batches, NextBatch, Payers, Work};

#[test]
fn start_should_reserve_the_maximum_and_draw_an_executor() {
	build_and_execute(|| {
		fund();
		let (id, executor) = Ledger::draw_executor(&host(0), 0, 0, 0, 0).unwrap();
		let view = start_one(0);
		assert_eq!((view.id, &view.executor, view.status), (id, &executor, InferenceStatus::Started));
		assert_ne!(executor, host(0), "the transfer agent never executes");
		assert_eq!((free(), reserved()), (47 * PCR, 3 * PCR));
		assert_eq!(Ledger::payer(&developer(0)).unwrap().next_sequence, 1);
		assert_eq!(Work::<Test>::get(0, &executor).assigned, 1);
		assert_eq!(Ledger::totals(0).started, 1);
		assert_eq!(Ledger::inference(id), Some(view.clone()));
		assert_eq!(Ledger::open_batches(), vec![view.batch.clone()]);
		assert_eq!(Ledger::recent_batches(view.started_at), vec![view.batch]);
		assert!(Ledger::recent_batches(view.started_at + 1).is_empty());
	});
}

#[test]
fn record_should_be_rejected_with_its_reason_when_the_others_go_in() {
	build_and_execute(|| {
		fund();
		let good = start(0, 0);
		let records = vec![
			StartRecord { payer: 7, ..good.clone() },
			good.clone(),
			good.clone(),
			StartRecord { sequence: 33, ..good.clone() },
			StartRecord { sequence: 1, model: 3, ..good.clone() },
			StartRecord { sequence: 1, attempt: MAX_ATTEMPT + 1, ..good.clone() },
			StartRecord { sequence: 1, max_cost_micro: 48_000_000, ..good.clone() },
			StartRecord { sequence: 2, ..good.clone() },
		];
		send(starts(&host(0), records));
		assert_eq!(
			rejections(),
			vec![
				(0, RecordError::UnknownPayer),
				(2, RecordError::SequenceUsed),
				(3, RecordError::SequenceTooFar),
				(4, RecordError::UnknownModel),
				(5, RecordError::TooManyAttempts),
				(6, RecordError::DepositTooSmall),
			]
		);
		let views = Ledger::batch(&BatchKey { ta: host(0), number: 0 });
		assert_eq!(views.iter().map(|v| (v.index, v.start.sequence)).collect::<Vec<_>>(), vec![(1, 0), (7, 2)]);
		// The gap is filled later, by whatever comes.
		send(starts(&host(0), vec![start(0, 1)]));
		assert_eq!(Ledger::payer(&developer(0)).unwrap().next_sequence, 3);
	});
}

#[test]
fn batch_should_take_a_number_but_no_room_when_all_records_are_rejected() {
	build_and_execute(|| {
		send(starts(&host(0), vec![start(0, 0)]));
		assert_eq!(rejections(), vec![(0, RecordError::UnknownPayer)]);
		assert_eq!(NextBatch::<Test>::get(host(0)), 1);
		assert_eq!(Batches::<Test>::iter().count(), 0);
		// Made, but without salt yet.
		Ledger::fund(RuntimeOrigin::signed(developer(0)), PCR).unwrap();
		send(starts(&host(0), vec![start(0, 0)]));
		assert!(rejections().contains(&(0, RecordError::PayerNotReady)));
		assert_eq!(NextBatch::<Test>::get(host(0)), 2);
	});
}

#[test]
fn later_attempts_should_leave_out_earlier_candidates() {
	build_and_execute(|| {
		fund();
		let drawn: Vec<_> = (0..=MAX_ATTEMPT)
			.map_while(|attempt| Ledger::draw_executor(&host(0), 0, 0, 0, attempt))
			.map(|(_, who)| who)
			.collect();
		let mut sorted = drawn.clone();
		sorted.sort();
		assert_eq!(sorted, vec![host(1), host(2), host(3)]);
		send(starts(&host(0), vec![StartRecord { attempt: 2, ..start(0, 0) }, StartRecord { attempt: 3, ..start(0, 1) }]));
		assert_eq!(rejections(), vec![(1, RecordError::NoExecutor)]);
		assert_eq!(Ledger::batch(&BatchKey { ta: host(0), number: 0 })[0].executor, drawn[2]);
		assert_eq!(Payers::<Test>::get(0).unwrap().next, 1, "a rejected record uses nothing");
	});
}

#[test]
fn executor_should_serve_the_model_and_not_be_excluded() {
	build_and_execute(|| {
		fund();
		world(|w| {
			w.serving.retain(|(who, _)| *who != host(3));
			w.excluded.push((0, host(2)));
		});
		for sequence in 0..8 {
			assert_eq!(start_one(sequence).executor, host(1));
		}
		assert_eq!(Work::<Test>::get(0, host(1)).assigned, 8);
	});
}

#[test]
fn single_host_should_execute_its_own_requests_only_when_allowed() {
	build_and_execute(|| {
		fund();
		world(|w| w.serving = vec![(host(0), 0)]);
		send(starts(&host(0), vec![start(0, 0)]));
		assert_eq!(rejections(), vec![(0, RecordError::NoExecutor)]);
		world(|w| w.allow_self = true);
		assert_eq!(start_one(0).executor, host(0));
	});
}

#[test]
fn draw_should_not_change_within_an_epoch() {
	build_and_execute(|| {
		fund();
		let before = Ledger::draw_executor(&host(0), 0, 0, 0, 0);
		block_at(300);
		assert_eq!(Ledger::draw_executor(&host(0), 0, 0, 0, 0), before);
		let seed = Ledger::draw_seed();
		block_at(384);
		assert_ne!(Ledger::draw_seed(), seed);
	});
}

#[test]
fn full_batch_should_fit() {
	build_and_execute(|| {
		fund();
		let records = (0..32).map(|s| StartRecord { max_cost_micro: 1_000, ..start(0, s) }).collect::<Vec<_>>();
		let mut full = crate::Records::truncate_from(records.clone());
		for _ in 0..7 {
			full.try_extend(records.iter().cloned()).unwrap();
		}
		send(starts(&host(0), full.into_inner()));
		assert_eq!(rejections().len(), 224);
		assert_eq!(Ledger::totals(0).started, 32);
	});
}

#[test]
fn starts_should_be_rejected_when_the_ledger_is_full() {
	build_and_execute(|| {
		fund();
		crate::OpenRecords::<Test>::put(crate::MAX_OPEN_RECORDS - 1);
		send(starts(&host(0), vec![start(0, 0), start(0, 1)]));
		assert_eq!(rejections(), vec![(1, RecordError::LedgerFull)]);
		crate::OpenRecords::<Test>::put(1);
	});
}
