//! Re-verification by all Hosts that serve the model.

use pacer_types::{duty::Rejection, ledger::InferenceStatus, traits::WorkRecord};
use sp_runtime::transaction_validity::InvalidTransaction;

use super::*;
use crate::{Outcome, Rechecks};

const FAIL: Verdict = Verdict::Fail { choice: 400_000, distribution: 90_000 };

/// An inference of Host 3 (weight 40), started by Host 0 (10) and failed by Host 1 (20) of 60 that may vote.
fn contested(verdict_of_1: Verdict) -> InferenceView {
	fund();
	world(|w| w.serving.retain(|(who, _)| *who == host(3)));
	let view = finish_one(0);
	world(|w| w.serving = (0..5).map(|n| (host(n), 0)).collect());
	send(verdicts(&host(1), vec![verdict(&view, verdict_of_1)]));
	assert_eq!(again(&view).status, InferenceStatus::Reverifying);
	view
}

#[test]
fn confirmed_fail_should_refund_in_full_and_be_evidence() {
	build_and_execute(|| {
		let view = contested(FAIL);
		assert_eq!(Ledger::open_rechecks().len(), 1);
		// Host 0 makes it 30 of 60, which is not more than half.
		send(vote(&host(0), &view.batch, 0, false));
		assert_eq!(again(&view).status, InferenceStatus::Reverifying);
		send(vote(&host(2), &view.batch, 0, false));
		assert_eq!(again(&view).status, InferenceStatus::Failed);
		assert_eq!((free(), reserved()), (50 * PCR, 0));
		assert_eq!(world(|w| w.checks.clone()), vec![(0, host(3), false)]);
		assert!(world(|w| w.frauds.is_empty() && w.exposers.is_empty()));
		let totals = Ledger::totals(0);
		assert_eq!((totals.failed, totals.refunded, totals.verified), (1, 1, 0));
		assert_eq!(Ledger::paid_inferences(0), 0);
		assert!(Rechecks::<Test>::iter().next().is_none() && Ledger::open_rechecks().is_empty());
		// Nobody can judge it any more.
		send(verdicts(&host(2), vec![verdict(&view, Verdict::Pass)]));
		assert_eq!(rejections(), vec![(0, RecordError::AlreadyFailed)]);
	});
}

#[test]
fn confirmed_fraud_should_exclude_at_once_and_name_those_who_exposed_it() {
	build_and_execute(|| {
		let view = contested(Verdict::Fraud);
		assert!(Ledger::open_rechecks()[0].2);
		send(vote(&host(2), &view.batch, 0, false));
		assert_eq!(again(&view).status, InferenceStatus::Failed);
		assert_eq!(world(|w| w.frauds.clone()), vec![(0, host(3))]);
		assert_eq!(world(|w| w.exposers.clone()), vec![host(1)]);
		assert!(world(|w| w.checks.is_empty()));
	});
}

#[test]
fn statistical_fail_should_not_confirm_fraud_that_another_claimed() {
	build_and_execute(|| {
		let view = contested(Verdict::Fraud);
		// With a vote for fraud this would decide, as in the test above.
		send(verdicts(&host(2), vec![verdict(&view, FAIL)]));
		assert_eq!(again(&view).status, InferenceStatus::Reverifying);
		assert!(world(|w| w.frauds.is_empty()));
		send(vote(&host(2), &view.batch, 0, false));
		assert_eq!(again(&view).status, InferenceStatus::Failed);
	});
}

#[test]
fn refuted_fail_should_pass_and_not_be_opened_again() {
	build_and_execute(|| {
		let view = contested(Verdict::Withheld);
		send(vote(&host(0), &view.batch, 0, true));
		// A verdict during the vote is a vote.
		send(verdicts(&host(2), vec![verdict(&view, Verdict::Pass)]));
		assert_eq!(again(&view).status, InferenceStatus::Finished);
		assert_eq!(world(|w| w.checks.clone()), vec![(0, host(3), true)]);
		assert!(events().contains(&Event::RecheckClosed { batch: view.batch.clone(), index: 0, outcome: Outcome::Passed }));
		world(|w| w.work.insert(host(5), 1_000));
		world(|w| w.serving.push((host(5), 0)));
		send(verdicts(&host(5), vec![verdict(&view, FAIL)]));
		assert_eq!(again(&view).status, InferenceStatus::Finished);
		assert_eq!(Ledger::counts(0, &host(5)).verified, 1);
	});
}

#[test]
fn undecided_recheck_should_pass_at_its_deadline() {
	build_and_execute(|| {
		let view = contested(FAIL);
		let deadline = Ledger::open_rechecks()[0].3;
		block_at(deadline - 1);
		assert_eq!(again(&view).status, InferenceStatus::Reverifying);
		block_at(deadline);
		assert_eq!(again(&view).status, InferenceStatus::Finished);
		assert!(events().contains(&Event::RecheckClosed { batch: view.batch.clone(), index: 0, outcome: Outcome::Undecided }));
		assert_eq!(world(|w| w.checks.clone()), vec![(0, host(3), true)]);
	});
}

#[test]
fn earlier_verdicts_should_be_votes() {
	build_and_execute(|| {
		fund();
		world(|w| w.serving.retain(|(who, _)| *who == host(3)));
		let view = finish_one(0);
		world(|w| w.serving = (0..5).map(|n| (host(n), 0)).collect());
		send(verdicts(&host(2), vec![verdict(&view, Verdict::Pass)]));
		send(verdicts(&host(1), vec![verdict(&view, FAIL)]));
		// 30 against 20 of 60: Host 0 decides nothing, but cannot be outvoted by a Host that spoke already.
		assert_eq!(judge(&vote(&host(2), &view.batch, 0, true)), Err(InvalidTransaction::Stale.into()));
		send(vote(&host(0), &view.batch, 0, true));
		assert_eq!(again(&view).status, InferenceStatus::Finished);
		assert_eq!(world(|w| w.checks.len()), 1, "one inference, one check");
	});
}

#[test]
fn vote_should_be_rejected_when_the_host_may_not_vote() {
	build_and_execute(|| {
		let view = contested(FAIL);
		let refused = |who, index| judge(&vote(&host(who), &view.batch, index, false));
		let custom = |why: Rejection| Err(InvalidTransaction::from(why).into());
		assert_eq!(refused(3, 0), custom(Rejection::NotEntitled));
		assert_eq!(refused(4, 0), custom(Rejection::NotEntitled));
		assert_eq!(refused(2, 1), custom(Rejection::UnknownSubject));
		world(|w| w.serving.retain(|(who, _)| *who != host(2)));
		assert_eq!(refused(2, 0), custom(Rejection::NotEntitled));
		let unknown = BatchKey { ta: host(0), number: 9 };
		assert_eq!(judge(&vote(&host(2), &unknown, 0, false)), custom(Rejection::UnknownSubject));
		let mut forged = vote(&host(0), &view.batch, 0, false);
		if let Call::vote_inference { pass, .. } = &mut forged {
			*pass = true;
		}
		assert_eq!(judge(&forged), Err(InvalidTransaction::BadProof.into()));
	});
}

#[test]
fn single_host_should_vote_about_itself_only_when_allowed() {
	build_and_execute(|| {
		fund();
		world(|w| {
			w.allow_self = true;
			w.work.retain(|who, _| *who == host(0));
		});
		let view = finish_one(0);
		send(verdicts(&host(0), vec![verdict(&view, FAIL)]));
		assert_eq!(again(&view).status, InferenceStatus::Failed);
	});
}

#[test]
fn open_rechecks_should_be_bounded() {
	build_and_execute(|| {
		fund();
		world(|w| w.serving.retain(|(who, _)| *who == host(3)));
		let record = |s| StartRecord { max_cost_micro: 1, ..start(0, s) };
		let mut views = vec![];
		for number in 0..=crate::MAX_RECHECKS / 32 {
			send(starts(&host(0), (0..32).map(|n| record(number * 32 + n)).collect()));
			let batch = BatchKey { ta: host(0), number: number.into() };
			send(results(&host(3), (0..32).map(|n| (batch.clone(), n, finish())).collect()));
			views.extend(Ledger::batch(&batch));
		}
		world(|w| w.serving = (0..5).map(|n| (host(n), 0)).collect());
		for chunk in views.chunks(32) {
			send(verdicts(&host(1), chunk.iter().map(|view| verdict(view, FAIL)).collect()));
		}
		assert_eq!(Ledger::open_rechecks().len(), crate::MAX_RECHECKS as usize);
		assert_eq!(rejections().len(), 32);
		assert!(rejections().iter().all(|(_, reason)| *reason == RecordError::TooManyRechecks));
		// The deadline clears them all, and there is room again.
		next_block(32);
		assert!(Ledger::open_rechecks().is_empty());
		assert_eq!(Ledger::totals(0).failed, 0);
	});
}
