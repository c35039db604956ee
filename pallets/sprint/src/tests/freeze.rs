//! From counts to weights.

use super::lists::*;
use crate::{mock::*, Event, Penalties, Recents, SkipReason, Skips, Strike};
use pacer_types::{
	traits::{EpochClock, EpochWeights, HostBonds},
	Phase, PCR,
};

const FOUR: [(&str, u32); 4] = [("Alice", 100), ("Bob", 90), ("Charlie", 80), ("Dave", 70)];

#[test]
fn weights_should_be_the_counts_when_they_stand() {
	build_and_execute(|| {
		race(0, &FOUR);
		assert_eq!(Sprint::phase(), Phase::Switch);
		// Announced in Switch, in force in the next epoch.
		assert_eq!(weight(0, "Alice"), Some((100, 100)));
		for (name, count) in FOUR {
			let work = u64::from(count);
			assert_eq!(weight(1, name), Some((work, work)));
		}
		assert_eq!((Sprint::total_work(1), Sprint::total_consensus(1)), (340, 340));
		let expected = Sprint::weights(1);
		assert!(events().iter().any(|e| matches!(e, Event::WeightsFrozen { epoch: 1, weights } if *weights == expected)));
		assert_eq!(queued().len(), 1);
	});
}

#[test]
fn consensus_weight_should_be_capped_when_one_host_is_huge() {
	build_and_execute(|| {
		race(0, &[("Alice", 1_000), ("Bob", 100), ("Charlie", 100), ("Dave", 100)]);
		// 30% of the capped total: 300 * 3 / 7.
		assert_eq!(weight(1, "Alice"), Some((1_000, 128)));
		assert_eq!(weight(1, "Bob"), Some((100, 100)));
	});
}

#[test]
fn consensus_weight_should_grow_slowly_when_the_mean_is_over_five_races() {
	build_with(5, 2, || {
		race(0, &FOUR);
		assert_eq!(weight(1, "Alice"), Some((100, 20)));
		race(1, &FOUR);
		assert_eq!(weight(2, "Alice"), Some((100, 40)));
		// Absence counts as zero; three Hosts are below the cap.
		race(2, &[("Bob", 90), ("Charlie", 80), ("Dave", 70)]);
		assert_eq!(weight(3, "Alice"), None);
		race(3, &FOUR);
		assert_eq!(weight(4, "Alice"), Some((100, 60)));
		assert_eq!(weight(4, "Bob"), Some((90, 72)));
		assert_eq!(Recents::<Test>::get(account("Alice")).unwrap().into_inner(), [100, 0, 100, 100]);
	});
}

#[test]
fn recent_counts_should_be_forgotten_when_a_host_stays_away() {
	build_with(2, 2, || {
		race(0, &FOUR);
		assert!(Recents::<Test>::contains_key(account("Alice")));
		race(1, &FOUR[1..]);
		assert!(!Recents::<Test>::contains_key(account("Alice")));
	});
}

#[test]
fn newcomer_should_get_weight_and_absentee_lose_it() {
	build_and_execute(|| {
		race(0, &[("Alice", 90), ("Bob", 90), ("Charlie", 90), ("Eve", 90)]);
		assert_eq!(weight(1, "Eve"), Some((90, 90)));
		assert_eq!(weight(1, "Dave"), None);
		let (session, hosts) = queued().pop().unwrap();
		assert_eq!((session, hosts.len()), (12, 4));
		assert!(hosts.contains(&account("Eve")) && !hosts.contains(&account("Dave")));
	});
}

#[test]
fn penalised_host_should_get_no_weight_from_the_next_race_only() {
	build_and_execute(|| {
		Sprint::penalise(&account("Alice"));
		Sprint::penalise(&account("Nobody"));
		assert_eq!(Penalties::<Test>::iter().count(), 1);
		race(0, &FOUR);
		assert_eq!(weight(1, "Alice"), None);
		assert_eq!(weight(1, "Bob"), Some((90, 90)));
		race(1, &FOUR);
		assert_eq!(weight(2, "Alice"), Some((100, 100)));
	});
}

#[test]
fn penalty_should_stay_when_the_race_is_skipped() {
	build_and_execute(|| {
		Sprint::penalise(&account("Alice"));
		race(0, &[]);
		assert_eq!(weight(1, "Alice"), Some((100, 100)));
		race(1, &FOUR);
		assert_eq!(weight(2, "Alice"), None);
	});
}

#[test]
fn host_without_session_keys_should_be_dropped() {
	build_and_execute(|| {
		purge_keys("Bob");
		race(0, &FOUR);
		assert_eq!(weight(1, "Bob"), None);
		// Also when weights are only kept.
		purge_keys("Charlie");
		race(1, &[]);
		assert_eq!(weight(2, "Charlie"), None);
		assert_eq!(weight(2, "Dave"), Some((70, 70)));
	});
}

#[test]
fn weights_should_be_kept_when_nobody_has_session_keys() {
	build_and_execute(|| {
		NAMES.into_iter().for_each(purge_keys);
		race(0, &FOUR);
		assert_eq!(Skips::<Test>::get(0), Some(SkipReason::FewHosts { hosts: 0 }));
		assert_eq!(queued().pop().unwrap().1.len(), 4);
	});
}

#[test]
fn race_should_be_skipped_when_few_hosts_stand() {
	build_and_execute(|| {
		race(0, &[("Alice", 400)]);
		assert_eq!(Skips::<Test>::get(0), Some(SkipReason::FewHosts { hosts: 1 }));
		assert_eq!(weight(1, "Alice"), Some((100, 100)));
		assert_eq!(weight(1, "Bob"), Some((100, 100)));
		assert!(Sprint::sprint_view(0).skipped);
		// Bonds come back all the same.
		assert_eq!(Hosts::free_bond(&account("Alice")), 1_000 * PCR);
	});
}

#[test]
fn race_should_be_skipped_when_counts_are_below_a_third_of_the_weight_before() {
	build_and_execute(|| {
		race(0, &[("Alice", 66), ("Bob", 67)]);
		assert_eq!(Skips::<Test>::get(0), Some(SkipReason::LittleWeight { work: 133, previous: 400 }));
		race(1, &[("Alice", 67), ("Bob", 67)]);
		assert_eq!(Skips::<Test>::get(1), None);
		assert_eq!(Sprint::total_work(2), 134);
	});
}

#[test]
fn race_should_be_skipped_when_counts_could_not_be_checked() {
	build_and_execute(|| {
		AuditValue::set(false);
		race(0, &FOUR);
		assert_eq!(Skips::<Test>::get(0), Some(SkipReason::NoAuditValue));
	});
}

#[test]
fn frozen_weights_should_not_change_when_asked_again() {
	build_and_execute(|| {
		race(0, &FOUR);
		let before = Sprint::weights(1);
		RaceValue::set(false);
		assert_eq!(Sprint::validators_for(12).map(|v| v.len()), Some(4));
		Sprint::freeze_weights(1);
		// The epoch after is not due before its own Switch.
		Sprint::freeze_weights(2);
		assert_eq!((Sprint::weights(1), Sprint::weights(2)), (before, vec![]));
		assert_eq!(heard().iter().filter(|h| matches!(h, Heard::Switch { .. })).count(), 1);
	});
}

#[test]
fn genesis_should_answer_for_the_first_session_only() {
	build_and_execute(|| {
		assert_eq!(Sprint::validators_for(0).map(|v| v.len()), Some(4));
		assert_eq!(Sprint::validators_for(1), None);
		assert_eq!(Sprint::weights_for_session(1), Sprint::weights(0));
		assert_eq!(Sprint::epoch_weights(0).len(), 4);
		assert_eq!(Sprint::clock_view().now.epoch, 0);
	});
}

/// A race that is skipped although these Hosts of four were struck in it.
fn skipped_with(fallen: &[&str], test: impl FnOnce()) {
	build_weighing(30, || {
		let lists = ["Alice", "Bob", "Charlie", "Dave"].map(|name| List::honest(name, 0, 40));
		audit(0, &lists);
		fallen.iter().for_each(|name| submit(&challenge("Alice", name, 5)).unwrap());
		run_to_slot(disputes(0)[0].deadline + 2);
		fallen.iter().for_each(|name| assert_eq!(struck(0, name), Some(Strike::Silent)));
		Skips::<Test>::insert(0, SkipReason::NoAuditValue);
		run_to(0, Phase::Switch);
		assert_eq!(weight(1, "Alice"), Some((30, 30)));
		test();
	});
}

#[test]
fn struck_host_should_lose_its_weight_when_the_race_is_skipped() {
	skipped_with(&["Dave"], || {
		assert_eq!((weight(1, "Dave"), Sprint::total_consensus(1)), (None, 90));
	});
}

#[test]
fn struck_hosts_should_keep_their_weight_when_too_little_would_be_left() {
	skipped_with(&["Charlie", "Dave"], || {
		assert_eq!((weight(1, "Dave"), Sprint::total_consensus(1)), (Some((30, 30)), 120));
	});
}
