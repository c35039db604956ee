//! Claims, and earnings that nobody claims.

use frame_support::{assert_noop, assert_ok};
use pacer_types::PCR;

use crate::{mock::*, subsidy, AccountTotals, Books, Claimable, Error, Event, CLAIM_WINDOW};

/// Two epochs in which Host 1 is alone.
fn earned_twice() {
	for epoch in 0..2 {
		weigh(epoch, 1, 10);
		switch(epoch);
	}
}

#[test]
fn claim_should_pay_every_named_epoch_and_no_fee() {
	in_world(|| {
		earned_twice();
		assert_eq!(Rewards::claimable(&account(1)), vec![(0, subsidy(0)), (1, subsidy(1))]);
		assert_eq!(claim(1, &[0, 1]), Ok(true));
		let sum = subsidy(0) + subsidy(1);
		assert_eq!(Balances::free_balance(account(1)), sum);
		assert_eq!(Rewards::claimed_total(&account(1)), sum);
		assert_eq!(Rewards::earned_total(&account(1)), sum);
		assert!(!Claimable::<Test>::contains_key(account(1)));
		System::assert_last_event(Event::Claimed { host: account(1), epochs: vec![0, 1], amount: sum }.into());
	});
}

#[test]
fn claim_should_fail_when_it_is_repeated() {
	in_world(|| {
		earned_twice();
		assert_eq!(claim(1, &[0]), Ok(true));
		assert_noop!(claim(1, &[0]), Error::<Test>::NothingToClaim);
		assert_noop!(claim(1, &[0, 0, 7]), Error::<Test>::NothingToClaim);
		assert_eq!(waiting(1), subsidy(1));
		assert_eq!(claim(1, &[1, 1, 0]), Ok(true));
		assert_eq!(Balances::free_balance(account(1)), subsidy(0) + subsidy(1));
	});
}

#[test]
fn claim_should_fail_when_there_is_nothing() {
	in_world(|| {
		earned_twice();
		assert_noop!(claim(2, &[0, 1]), Error::<Test>::NothingToClaim);
		assert_noop!(claim(1, &[]), Error::<Test>::NothingToClaim);
		assert_noop!(claim(1, &[2, 59]), Error::<Test>::NothingToClaim);
	});
}

#[test]
fn claim_should_fail_when_the_wallet_would_be_dust() {
	in_world(|| {
		assert_ok!(pay(0, &[1], 100));
		switch(0);
		assert!(claim(1, &[0]).is_err(), "80 units do not make an account");
		assert_eq!(waiting(1), 80, "and are not lost");
	});
}

#[test]
fn earnings_should_be_claimable_to_the_last_epoch_of_the_window() {
	in_world(|| {
		earned_twice();
		at(CLAIM_WINDOW);
		assert_eq!(waiting(1), subsidy(0) + subsidy(1));
		assert_eq!(claim(1, &[0]), Ok(true));
		at(CLAIM_WINDOW + 2);
		assert_eq!(waiting(1), 0);
		assert_noop!(claim(1, &[1]), Error::<Test>::NothingToClaim);
	});
}

#[test]
fn earnings_should_be_burned_when_they_lapse() {
	in_world(|| {
		earned_twice();
		switch(CLAIM_WINDOW);
		assert_eq!(Books::<Test>::get().burned, 0);
		switch(CLAIM_WINDOW + 1);
		assert_eq!(Books::<Test>::get().burned, subsidy(0));
		System::assert_has_event(Event::Lapsed { epoch: 0, host: account(1), amount: subsidy(0) }.into());
		switch(CLAIM_WINDOW + 2);
		assert_eq!(Books::<Test>::get().burned, subsidy(0) + subsidy(1));
		assert!(!Claimable::<Test>::contains_key(account(1)));
		assert_eq!(Rewards::earned_total(&account(1)), subsidy(0) + subsidy(1), "a Host's counters stay");
	});
}

#[test]
fn state_should_stay_flat_over_a_hundred_epochs_without_claims() {
	in_world(|| {
		for epoch in 0..100 {
			weigh(epoch, 1, 10);
			assert_ok!(pay(epoch, &[1], PCR));
			switch(epoch);
			idle(2);
			let open = Claimable::<Test>::get(account(1)).len() as u32;
			assert_eq!(open, (epoch + 1).min(CLAIM_WINDOW + 1));
		}
		assert!(crate::Outcomes::<Test>::iter().count() <= 4);
	});
}

#[test]
fn account_should_be_forgotten_when_it_is_no_host_and_has_nothing_to_claim() {
	in_world(|| {
		earned_twice();
		world(|w| w.hosts.remove(&account(1)));
		switch(2);
		assert!(AccountTotals::<Test>::contains_key(account(1)));
		assert_eq!(claim(1, &[0, 1]), Ok(true));
		switch(3);
		assert!(!AccountTotals::<Test>::contains_key(account(1)));
	});
}

#[test]
fn gift_to_the_pot_should_not_disturb_the_books() {
	in_world(|| {
		use frame_support::traits::{fungible::Mutate, tokens::Preservation};
		let give = |from: &_, to: &_| <Balances as Mutate<_>>::transfer(from, to, PCR, Preservation::Expendable);
		assert_ok!(give(&ledger(), &Rewards::pot()));
		assert!(Rewards::conservation().ok);
		earned_twice();
		assert_eq!(claim(1, &[0, 1]), Ok(true));
		assert!(Rewards::conservation().ok);
		// Back, so that the exact check at the end holds.
		assert_ok!(give(&Rewards::pot(), &ledger()));
	});
}
