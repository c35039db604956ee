//! Disputes of people without a Host.

use super::lists::*;
use crate::{mock::*, Call, Error, Strike, WeightInfo};
use frame_support::traits::fungible::Inspect;
use pacer_sprint::Step;
use pacer_types::PCR;
use sp_runtime::traits::Dispatchable;

fn in_audit(test: impl FnOnce(&[List], u32)) {
	build_and_execute(|| {
		let (lists, fake) = with_a_fake(0);
		audit(0, &lists);
		test(&lists, fake);
	});
}

fn challenge_of(subject: &str, position: u32) -> Call<Test> {
	Call::challenge_signed { race: 0, subject: account(subject), position }
}

#[test]
fn wallet_should_win_its_deposit_and_a_part_of_the_bond() {
	in_audit(|lists, fake| {
		wallet("Wanda", challenge_of("Dave", fake)).unwrap();
		assert_eq!(Balances::free_balance(account("Wanda")), 4_990 * PCR);
		submit(&lists[3].answer(0, fake)).unwrap();
		let step = steps(&lists[3].trace_at(fake)).pop().unwrap();
		let refute_it = || Call::refute_signed { race: 0, dispute: 0, step: step.clone() };
		assert_eq!(wallet("Walt", refute_it()), Err(Error::<Test>::NotEntitled.into()));
		wallet("Wanda", refute_it()).unwrap();
		assert_eq!((struck(0, "Dave"), Balances::free_balance(account("Wanda"))), (Some(Strike::Output), 50_041 * PCR / 10));
		assert_eq!(wallet("Wanda", refute_it()), Err(Error::<Test>::AlreadyDone.into()));
	});
}

#[test]
fn wallet_should_lose_its_deposit_when_it_is_wrong() {
	in_audit(|lists, _| {
		wallet("Wanda", challenge_of("Alice", 2)).unwrap();
		submit(&lists[0].answer(0, 2)).unwrap();
		wallet("Wanda", Call::refute_signed { race: 0, dispute: 0, step: Step::Input }).unwrap();
		assert_eq!((struck(0, "Alice"), <Balances as Inspect<_>>::total_balance(&account("Wanda"))), (None, 4_990 * PCR));
	});
}

#[test]
fn wallets_should_have_bounded_room_and_leave_that_of_hosts_alone() {
	in_audit(|_, _| {
		for position in 0..4 {
			wallet("Wanda", challenge_of("Alice", position)).unwrap();
		}
		assert_eq!(wallet("Wanda", challenge_of("Alice", 4)), Err(Error::<Test>::NoRoom.into()));
		for position in 0..2 {
			wallet("Walt", challenge_of("Alice", position)).unwrap();
		}
		assert_eq!(wallet("Walt", challenge_of("Alice", 2)), Err(Error::<Test>::NoRoom.into()));
		submit(&challenge("Bob", "Alice", 0)).unwrap();
	});
}

#[test]
fn call_of_a_wallet_should_fail_without_effect_when_a_rule_is_broken() {
	in_audit(|_, _| {
		assert_eq!(wallet("Dave", challenge_of("Dave", 0)), Err(Error::<Test>::NotEntitled.into()));
		assert_eq!(wallet("Wanda", challenge_of("Eve", 0)), Err(Error::<Test>::NoSuchThing.into()));
		assert_eq!(wallet("Nobody", challenge_of("Dave", 0)), Err(Error::<Test>::DepositTooSmall.into()));
		wallet("Wanda", challenge_of("Dave", 0)).unwrap();
		assert_eq!(wallet("Wanda", challenge_of("Dave", 0)), Err(Error::<Test>::AlreadyDone.into()));
		let early = Call::refute_signed { race: 0, dispute: 0, step: Step::Input };
		assert_eq!(wallet("Wanda", early), Err(Error::<Test>::NotNow.into()));
		assert_eq!(disputes(0).len(), 1);
	});
}

#[test]
fn refutation_by_a_stranger_should_give_back_the_room_of_the_block() {
	in_audit(|lists, fake| {
		wallet("Wanda", challenge_of("Dave", fake)).unwrap();
		submit(&lists[3].answer(0, fake)).unwrap();
		let step = steps(&lists[3].trace_at(fake)).pop().unwrap();
		let call = RuntimeCall::from(Call::refute_signed { race: 0, dispute: 0, step });
		let failed = call.dispatch(RuntimeOrigin::signed(account("Walt"))).unwrap_err();
		assert_eq!(failed.error, Error::<Test>::NotEntitled.into());
		assert_eq!(failed.post_info.actual_weight, Some(<() as WeightInfo>::authorize_proof()));
		assert!(failed.post_info.actual_weight.unwrap().ref_time() * 50 < <() as WeightInfo>::refute_whitepaper().ref_time());
		assert_eq!((struck(0, "Dave"), disputes(0).len()), (None, 1));
	});
}
