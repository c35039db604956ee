//! Verdicts: who may judge, when, and what a pass does.

use pacer_types::traits::WorkRecord;

use super::*;

#[test]
fn pass_should_count_once_as_evidence_and_for_each_validator_as_work() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		let [a, b] = <[AccountId; 2]>::try_from(judges(&view)).unwrap();
		send(verdicts(&a, vec![verdict(&view, Verdict::Pass)]));
		send(verdicts(&b, vec![verdict(&view, Verdict::Pass)]));
		assert_eq!(again(&view).verdicts, vec![(a.clone(), true), (b.clone(), true)]);
		assert_eq!(world(|w| w.checks.clone()), vec![(0, view.executor, true)]);
		assert_eq!((Ledger::counts(0, &a).verified, Ledger::counts(0, &b).verified), (1, 1));
		assert_eq!(Ledger::totals(0).verified, 2);
	});
}

#[test]
fn verdict_should_be_rejected_when_the_host_may_not_judge() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		let judge = judges(&view).remove(0);
		let other = judges(&view).remove(1);
		let pass = verdict(&view, Verdict::Pass);
		world(|w| w.excluded.push((0, other.clone())));
		for (who, reason) in [
			(&view.executor, RecordError::NotEntitled),
			(&host(0), RecordError::NotEntitled),
			(&host(4), RecordError::NotEntitled),
			(&other, RecordError::NotEntitled),
		] {
			send(verdicts(who, vec![pass.clone()]));
			assert_eq!(rejections().pop(), Some((0, reason)));
		}
		send(verdicts(&judge, vec![pass.clone(), pass.clone(), VerdictRecord { index: 9, ..pass.clone() }]));
		assert_eq!(rejections()[4..], [(0, RecordError::AlreadyJudged), (9, RecordError::UnknownInference)]);
		world(|w| w.serving.retain(|(who, _)| *who != judge));
		send(verdicts(&judge, vec![pass]));
		assert_eq!(rejections().pop(), Some((0, RecordError::NotEntitled)));
	});
}

#[test]
fn verdict_should_be_rejected_when_it_is_early_or_late() {
	build_and_execute(|| {
		fund();
		let view = start_one(0);
		let judge = judges(&view).remove(0);
		send(verdicts(&judge, vec![verdict(&view, Verdict::Pass)]));
		assert_eq!(rejections(), vec![(0, RecordError::NotFinished)]);
		send(results(&view.executor, vec![(view.batch.clone(), 0, finish())]));
		next_block(32);
		send(verdicts(&judge, vec![verdict(&view, Verdict::Pass)]));
		assert_eq!(rejections(), vec![(0, RecordError::WindowClosed)]);
	});
}

#[test]
fn single_host_should_judge_itself_only_when_allowed() {
	build_and_execute(|| {
		fund();
		world(|w| {
			w.allow_self = true;
			w.work.retain(|who, _| *who == host(0));
		});
		let view = finish_one(0);
		assert_eq!(view.executor, host(0));
		send(verdicts(&host(0), vec![verdict(&view, Verdict::Pass)]));
		assert_eq!(again(&view).verdicts, vec![(host(0), true)]);
	});
}
