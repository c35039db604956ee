//! What an excluded Host loses, and who gets a part of it.

use frame_support::assert_ok;
use pacer_types::{
	traits::{Bounties, Ineligible, OnEpoch},
	PCR,
};

use crate::{mock::*, subsidy, Books, Event, Exposers, MAX_EXPOSERS};

/// Hosts 1 to 3 with equal weight; Host 3 earned 800 tokens by work and is excluded.
fn fraud(exposers: &[u32]) {
	(1..=3).for_each(|n| weigh(0, n, 10));
	assert_ok!(pay(0, &[3], 1_000 * PCR));
	let exposers: Vec<_> = exposers.iter().map(|n| account(*n)).collect();
	Rewards::note_exposed(0, &exposers);
	disqualify(0, 3, Ineligible::Excluded);
}

#[test]
fn forfeit_should_be_burned_when_nobody_exposed_it() {
	in_world(|| {
		fraud(&[]);
		switch(0);
		let sums = Books::<Test>::get();
		assert_eq!((sums.burned, sums.fund, sums.pending), (800 * PCR, 200 * PCR, 0));
		assert_eq!(waiting(3), 0);
		System::assert_has_event(Event::Forfeited { epoch: 0, host: account(3), amount: 800 * PCR }.into());
	});
}

#[test]
fn bounty_should_be_shared_by_those_who_exposed_a_fraud() {
	in_world(|| {
		// Host 1, a Developer, and twice the same.
		fraud(&[1, 5_000, 1]);
		switch(0);
		assert_eq!(waiting(1), subsidy(0) / 3 + 400 * PCR);
		assert_eq!(waiting(5_000), 400 * PCR);
		assert_eq!(Books::<Test>::get().burned, 0);
		assert!(!Exposers::<Test>::contains_key(0));
	});
}

#[test]
fn bounty_should_be_at_most_half_of_what_an_eligible_host_earns() {
	in_world(|| {
		(1..=3).for_each(|n| weigh(0, n, 10));
		world(|w| w.faults.extend((1..=2).map(|n| ((0, account(n)), 10))));
		assert_ok!(pay(0, &[1], 100 * PCR));
		assert_ok!(pay(0, &[3], 1_000 * PCR));
		Rewards::note_exposed(0, &[account(2)]);
		disqualify(0, 3, Ineligible::Excluded);
		switch(0);
		// Hosts 1 and 2 earned 80 and 0: 40 on average.
		assert_eq!(waiting(2), 20 * PCR);
		assert_eq!(Books::<Test>::get().burned, 780 * PCR);
	});
}

#[test]
fn bounty_should_not_go_to_an_excluded_host() {
	in_world(|| {
		fraud(&[3, 2]);
		switch(0);
		assert_eq!(waiting(3), 0);
		assert_eq!(waiting(2), subsidy(0) / 3 + 800 * PCR);
	});
}

#[test]
fn list_of_exposers_should_be_bounded() {
	in_world(|| {
		let many: Vec<_> = (1..=MAX_EXPOSERS + 5).map(account).collect();
		Rewards::note_exposed(0, &many);
		assert_eq!(Exposers::<Test>::get(0).len() as u32, MAX_EXPOSERS);
		Rewards::note_exposed(9, &many);
		assert!(!Exposers::<Test>::contains_key(9), "nothing of the future");
		switch(0);
		Rewards::note_exposed(0, &many);
		assert!(!Exposers::<Test>::contains_key(0), "nothing of a settled epoch");
	});
}

#[test]
fn unclaimed_earnings_should_be_taken_back_when_the_host_is_excluded_later() {
	in_world(|| {
		weigh(0, 1, 10);
		weigh(0, 2, 10);
		switch(0);
		assert_eq!(claim(2, &[0]), Ok(true));
		disqualify(0, 1, Ineligible::Excluded);
		disqualify(0, 2, Ineligible::Excluded);
		assert_eq!((waiting(1), Rewards::earned_total(&account(1))), (0, 0));
		assert_eq!(Books::<Test>::get().burned, subsidy(0) / 2, "what was claimed is gone");
		assert_ok!(pay(0, &[1], 100));
		assert_eq!(Books::<Test>::get().burned, subsidy(0) / 2 + 80);
	});
}

#[test]
fn exclusion_during_the_settlement_should_count_as_a_forfeit() {
	in_world(|| {
		(1..=100).for_each(|n| weigh(0, n, 10));
		assert_ok!(pay(0, &[1], 100 * PCR));
		Rewards::note_exposed(0, &[account(2)]);
		Rewards::on_switch(0, &[], &[]);
		block();
		assert!(waiting(1) > 0 && waiting(100) == 0);
		disqualify(0, 1, Ineligible::Excluded);
		settle();
		let share = subsidy(0) / 100;
		assert_eq!(waiting(1), 0);
		assert_eq!(waiting(2), share + share / 2, "half of the average, which is a share of the subsidy");
		assert_eq!(Books::<Test>::get().burned, share + 80 * PCR - share / 2);
	});
}
