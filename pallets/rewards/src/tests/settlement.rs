//! Work pay, subsidy, and settlement page by page.

use frame_support::{assert_noop, assert_ok};
use pacer_types::{
	traits::{Earnings, Ineligible, OnEpoch},
	PCR,
};

use crate::{
	mock::*, subsidy, AccountTotals, Books, Error, Event, Outcome, Outcomes, SettledTo, Settling, PAGE_HOSTS, SUPPLY_CAP,
};

#[test]
fn work_pay_should_be_split_among_workers_after_the_funds_share() {
	in_world(|| {
		assert_ok!(pay(0, &[1, 2, 3], 1_000_004));
		// 20% of 1,000,004 rounded down; the rest in three, the remainder to the executor.
		assert_eq!(Books::<Test>::get().fund, 200_000);
		let pending: Vec<_> = (1..=3).map(|n| Rewards::pending(0, &account(n))).collect();
		assert_eq!(pending, vec![266_668, 266_668, 266_668]);
		assert_ok!(pay(0, &[1, 2, 3], 1_000_006));
		let pending: Vec<_> = (1..=3).map(|n| Rewards::pending(0, &account(n))).collect();
		assert_eq!(pending, vec![533_337, 533_336, 533_336]);
		assert_eq!(waiting(1), 0);
		exact();
	});
}

#[test]
fn work_pay_should_be_refused_when_it_cannot_be_paid() {
	in_world(|| {
		at(5);
		assert_noop!(pay(5, &[], 10), Error::<Test>::NoWorkers);
		assert_noop!(pay(6, &[1], 10), Error::<Test>::EpochClosed);
		assert_noop!(pay(2, &[1], 10), Error::<Test>::EpochClosed);
		assert!(pay(5, &[1], 10_000_000 * PCR).is_err());
		assert_eq!(Books::<Test>::get(), Default::default(), "everything or nothing");
		assert_ok!(pay(3, &[1], 0));
		assert_ok!(pay(3, &[1], 10));
	});
}

#[test]
fn subsidy_should_be_shared_by_weight() {
	in_world(|| {
		weigh(0, 1, 500);
		weigh(0, 2, 400);
		weigh(0, 3, 100);
		assert_ok!(pay(0, &[2], 100 * PCR));
		switch(0);
		assert_eq!(waiting(1), 142_500 * PCR);
		assert_eq!(waiting(2), 114_000 * PCR + 80 * PCR);
		assert_eq!(waiting(3), 28_500 * PCR);
		assert_eq!(Books::<Test>::get().minted, subsidy(0));
		System::assert_has_event(Event::Settled { epoch: 0, host: account(2), work: 80 * PCR, subsidy: 114_000 * PCR }.into());
		System::assert_has_event(Event::EpochSettled { epoch: 0, subsidy: 285_000 * PCR, eligible: 3 }.into());
		assert_eq!(Rewards::earned_total(&account(2)), 114_080 * PCR);
	});
}

#[test]
fn subsidy_should_not_be_minted_for_a_host_that_is_not_eligible() {
	in_world(|| {
		weigh(0, 1, 1);
		weigh(0, 2, 3);
		disqualify(0, 2, Ineligible::MissedDuties);
		switch(0);
		assert_eq!((waiting(1), waiting(2)), (71_250 * PCR, 0));
		assert_eq!(Books::<Test>::get().minted, 71_250 * PCR, "nobody gains by another's failure");
		System::assert_has_event(Event::Ineligible { epoch: 0, host: account(2), reason: Ineligible::MissedDuties }.into());
	});
}

#[test]
fn subsidy_should_be_cut_by_a_tenth_for_every_fault_in_the_randomness() {
	in_world(|| {
		for n in 1..=4 {
			weigh(0, n, 10);
		}
		world(|w| w.faults.extend([((0, account(2)), 1), ((0, account(3)), 4), ((0, account(4)), 11)]));
		assert_ok!(pay(0, &[4], 10 * PCR));
		switch(0);
		let got: Vec<_> = (1..=4).map(waiting).collect();
		assert_eq!(got, vec![71_250 * PCR, 64_125 * PCR, 42_750 * PCR, 8 * PCR]);
	});
}

#[test]
fn supply_should_end_at_the_cap() {
	in_world(|| {
		weigh(0, 1, 10);
		let left = 12_345;
		// As if almost everything had been minted and claimed before.
		Books::<Test>::mutate(|sums| {
			sums.minted = SUPPLY_CAP - left;
			sums.paid_out = SUPPLY_CAP - left;
		});
		switch(0);
		assert_eq!((waiting(1), Books::<Test>::get().minted), (left, SUPPLY_CAP));
		weigh(1, 1, 10);
		switch(1);
		assert_eq!((waiting(1), Books::<Test>::get().minted), (left, SUPPLY_CAP));
		Books::<Test>::mutate(|sums| {
			sums.minted = left;
			sums.paid_out = 0;
		});
	});
}

#[test]
fn late_work_pay_should_follow_the_outcome_of_its_epoch() {
	in_world(|| {
		weigh(0, 1, 10);
		weigh(0, 2, 10);
		disqualify(0, 2, Ineligible::MissedWork);
		switch(0);
		let before = waiting(1);
		assert_ok!(pay(0, &[1, 2, 7], 300));
		assert_eq!(waiting(1), before + 80, "at once");
		assert_eq!((waiting(2), Rewards::pending(0, &account(2))), (0, 0));
		assert_eq!(waiting(7), 80, "a worker without weight is judged when its pay arrives");
		assert_eq!(Books::<Test>::get().burned, 80);
		assert_eq!(Outcomes::<Test>::get(0, account(7)), Some(Outcome::Eligible));
	});
}

#[test]
fn worker_without_weight_should_be_settled_too() {
	in_world(|| {
		weigh(0, 1, 10);
		assert_ok!(pay(0, &[1, 5], 100));
		switch(0);
		assert_eq!(waiting(5), 40);
	});
}

#[test]
fn settlement_should_take_pages_and_settle_everyone_once() {
	in_world(|| {
		for n in 1..=1_000 {
			weigh(0, n, 1);
		}
		for n in 900..1_100 {
			assert_ok!(pay(0, &[n], 100));
		}
		Rewards::on_switch(0, &[], &[]);
		let blocks = settle();
		// 16 pages of weighted Hosts; 100 others in 2; 1,100 accounts swept in 18.
		assert_eq!(blocks, 16 + 2 + 1_100u32.div_ceil(PAGE_HOSTS));
		let share = subsidy(0) / 1_000;
		assert_eq!((waiting(1), waiting(950), waiting(1_050)), (share, share + 80, 80));
		assert_eq!(Books::<Test>::get().minted, share * 1_000);
		assert_eq!(AccountTotals::<Test>::iter().count(), 1_099);
	});
}

#[test]
fn page_border_should_not_skip_or_repeat_anyone() {
	for count in [PAGE_HOSTS - 1, PAGE_HOSTS, PAGE_HOSTS + 1, 2 * PAGE_HOSTS] {
		in_world(|| {
			(1..=count).for_each(|n| weigh(0, n, 1));
			(1..=count).for_each(|n| {
				assert_ok!(pay(0, &[n + 500], 10));
			});
			switch(0);
			let share = subsidy(0) / u128::from(count);
			assert!((1..=count).all(|n| waiting(n) == share && waiting(n + 500) == 8));
		});
	}
}

#[test]
fn epoch_should_be_settled_once_when_switch_is_repeated() {
	in_world(|| {
		weigh(0, 1, 10);
		switch(0);
		let before = waiting(1);
		switch(0);
		assert_eq!((waiting(1), Books::<Test>::get().minted), (before, before));
	});
}

#[test]
fn unfinished_settlement_should_be_made_up_for_at_the_next_switch() {
	in_world(|| {
		(1..=300).for_each(|n| weigh(0, n, 1));
		Rewards::on_switch(0, &[], &[]);
		block();
		at(1);
		Rewards::on_switch(1, &[], &[]);
		assert_eq!(SettledTo::<Test>::get(), 1);
		assert!((1..=300).all(|n| waiting(n) == subsidy(0) / 300));
		assert_eq!(Settling::<Test>::get().map(|p| p.epoch), Some(1));
		settle();
	});
}

#[test]
fn outcomes_should_be_forgotten_two_epochs_later() {
	in_world(|| {
		(1..=150).for_each(|n| weigh(0, n, 1));
		switch(0);
		at(2);
		idle(10);
		assert_eq!(Outcomes::<Test>::iter().count(), 150);
		at(3);
		idle(10);
		assert_eq!(Outcomes::<Test>::iter().count(), 0);
	});
}
