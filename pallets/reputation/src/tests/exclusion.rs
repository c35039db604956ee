//! Evidence, fraud and what they cost.

use pacer_types::{
	traits::{Ineligible, Standing},
	Phase,
};

use crate::{mock::*, Accuracies, Cause, Event};

#[test]
fn host_should_be_excluded_when_its_answers_keep_failing() {
	in_world(2, || {
		let host = account(1);
		switch(0, &[host.clone()], &[]);
		at(1, Phase::Inference);
		for _ in 0..4 {
			Reputation::note_check(1, &host, false);
		}
		assert!(!Reputation::is_excluded(1, &host));
		assert_eq!(Reputation::reputation(&host), 1);
		Reputation::note_check(1, &host, false);
		assert!(Reputation::is_excluded(1, &host));
		assert_eq!(Reputation::reputation(&host), 0);
		assert_eq!(Reputation::eligible(1, &host), Err(Ineligible::Excluded));
		System::assert_has_event(Event::Excluded { epoch: 1, host: host.clone(), cause: Cause::Evidence }.into());
		assert_eq!(world(|w| w.excluded.clone()), vec![(1, host.clone())], "told once");
		assert!(!Reputation::is_excluded(2, &host), "a new epoch starts with a clean slate");
		assert!(!Reputation::is_excluded(1, &account(2)));
	});
}

#[test]
fn host_should_be_kept_when_noise_fails_one_check_in_a_hundred() {
	in_world(1, || {
		for check in 0..2_000 {
			Reputation::note_check(0, &account(1), check % 100 != 50);
		}
		assert!(!Reputation::is_excluded(0, &account(1)));
		assert_eq!(Reputation::accuracy(0, &account(1)).fails, 20);
	});
}

#[test]
fn fraud_should_exclude_at_once_and_only_once() {
	in_world(1, || {
		let host = account(1);
		Reputation::note_fraud(0, &host);
		Reputation::note_fraud(0, &host);
		Reputation::note_check(0, &host, false);
		assert!(Reputation::is_excluded(0, &host));
		assert_eq!(world(|w| w.excluded.len()), 1);
		assert_eq!(Reputation::accuracy(0, &host).fails, 0, "nothing is added after the exclusion");
	});
}

#[test]
fn late_fraud_should_overturn_the_decision_when_the_epoch_is_settled() {
	in_world(1, || {
		let host = account(1);
		switch(0, &[host.clone()], &[]);
		assert_eq!((Reputation::eligible(0, &host), Reputation::reputation(&host)), (Ok(()), 1));
		at(1, Phase::Inference);
		Reputation::note_fraud(0, &host);
		assert_eq!(Reputation::eligible(0, &host), Err(Ineligible::Excluded));
		assert_eq!(Reputation::reputation(&host), 0);
		assert!(!Reputation::is_excluded(1, &host));
	});
}

#[test]
fn nothing_should_be_noted_when_the_epoch_is_long_over() {
	in_world(1, || {
		at(5, Phase::Inference);
		Reputation::note_check(2, &account(1), false);
		Reputation::note_fraud(2, &account(1));
		assert_eq!(Accuracies::<Test>::iter().count(), 0);
		Reputation::note_fraud(3, &account(1));
		assert!(Reputation::is_excluded(3, &account(1)));
		idle(6);
	});
}
