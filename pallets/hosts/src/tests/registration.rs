//! Registering, changing and leaving.

use frame_support::{assert_noop, assert_ok};
use pacer_types::{
	traits::{HostBonds, HostRegistry},
	Phase, PCR,
};
use sp_core::Pair;

use crate::{mock::*, Error, Hosts as HostsOf, Locked};

fn signed(name: &str) -> RuntimeOrigin {
	RuntimeOrigin::signed(account(name))
}

fn url(text: &str) -> crate::Endpoint {
	text.as_bytes().to_vec().try_into().unwrap()
}

#[test]
fn register_should_hold_the_bond_and_index_the_key() {
	build_and_execute(|| {
		register("Alice");
		assert_eq!(Hosts::free_bond(&account("Alice")), 1_000 * PCR);
		assert_eq!(Hosts::duty_key(&account("Alice")), Some(duty_pair("Alice").public()));
		assert!(Hosts::serves(&account("Alice"), 0) && !Hosts::serves(&account("Alice"), 1));
		assert_eq!(Balances::free_balance(account("Alice")), 4_000 * PCR);
	});
}

#[test]
fn register_should_count_for_the_next_race_when_deal_has_begun() {
	build_and_execute(|| {
		set_now(3, Phase::Deal, 500);
		register("Alice");
		assert_eq!(HostsOf::<Test>::get(account("Alice")).unwrap().races_from, 4);
		set_now(3, Phase::Inference, 400);
		register("Bob");
		assert_eq!(HostsOf::<Test>::get(account("Bob")).unwrap().races_from, 3);
	});
}

#[test]
fn register_should_fail_when_the_key_or_the_endpoint_is_wrong() {
	build_and_execute(|| {
		register("Alice");
		let (key, good) = proof("Bob", &duty_pair("Bob"));
		let (_, for_other) = proof("Eve", &duty_pair("Bob"));
		let models = || vec![0u32].try_into().unwrap();
		assert_noop!(Hosts::register(signed("Bob"), key, url("http://b"), models(), for_other), Error::<Test>::BadProof);
		assert_noop!(Hosts::register(signed("Bob"), key, url("ftp://b"), models(), good), Error::<Test>::BadEndpoint);
		assert_noop!(Hosts::register(signed("Bob"), key, url("http://b c"), models(), good), Error::<Test>::BadEndpoint);
		assert_noop!(
			Hosts::register(signed("Bob"), key, url("http://b"), vec![1, 1].try_into().unwrap(), good),
			Error::<Test>::RepeatedModel
		);
		let (taken, proof) = proof("Bob", &duty_pair("Alice"));
		assert_noop!(Hosts::register(signed("Bob"), taken, url("http://b"), models(), proof), Error::<Test>::DutyKeyTaken);
		let (key, proof) = crate::mock::proof("Alice", &duty_pair("Bob"));
		assert_noop!(Hosts::register(signed("Alice"), key, url("http://b"), models(), proof), Error::<Test>::AlreadyRegistered);
	});
}

#[test]
fn set_duty_key_should_decide_duties_only_from_the_epoch_whose_deal_it_preceded() {
	build_and_execute(|| {
		register("Alice");
		let old = duty_pair("Alice").public();
		let second = duty_pair("Alice2");
		let (key, sig) = proof("Alice", &second);
		set_now(5, Phase::Inference, 1_000);
		assert_ok!(Hosts::set_duty_key(signed("Alice"), key, sig));
		assert_eq!(Hosts::duty_key(&account("Alice")), Some(key));
		assert_eq!(Hosts::duty_key_for_seed(&account("Alice"), 5), Some(old));
		assert_eq!(Hosts::duty_key_for_seed(&account("Alice"), 6), Some(key));
		let (third, sig) = proof("Alice", &duty_pair("Alice3"));
		assert_noop!(Hosts::set_duty_key(signed("Alice"), third, sig), Error::<Test>::DutyKeyChangePending);
		set_now(6, Phase::Race, 2_000);
		assert_ok!(Hosts::set_duty_key(signed("Alice"), third, sig));
		assert_eq!(Hosts::duty_key_for_seed(&account("Alice"), 7), Some(key));
		assert_eq!(Hosts::duty_key_for_seed(&account("Alice"), 8), Some(third));
	});
}

#[test]
fn withdraw_should_return_the_bond_only_two_epochs_after_leaving() {
	build_and_execute(|| {
		register("Alice");
		assert_noop!(Hosts::withdraw(signed("Alice")), Error::<Test>::NotYet);
		assert_ok!(Hosts::leave(signed("Alice")));
		assert_noop!(Hosts::leave(signed("Alice")), Error::<Test>::IsLeaving);
		set_now(1, Phase::Inference, 400);
		assert_noop!(Hosts::withdraw(signed("Alice")), Error::<Test>::NotYet);
		set_now(2, Phase::Inference, 800);
		assert_ok!(Hosts::lock(&account("Alice"), 1));
		assert_noop!(Hosts::withdraw(signed("Alice")), Error::<Test>::BondLocked);
		Hosts::release(&account("Alice"), 1);
		assert_ok!(Hosts::withdraw(signed("Alice")));
		assert_eq!(Balances::free_balance(account("Alice")), 5_000 * PCR);
		assert!(!Hosts::is_host(&account("Alice")));
	});
}

#[test]
fn forfeit_should_burn_no_more_than_the_bond_and_keep_locks_below_it() {
	build_and_execute(|| {
		register("Alice");
		assert_ok!(Hosts::lock(&account("Alice"), 900 * PCR));
		assert!(Hosts::lock(&account("Alice"), 101 * PCR).is_err());
		assert_eq!(Hosts::forfeit(&account("Alice"), 200 * PCR), 200 * PCR);
		assert_eq!(Locked::<Test>::get(account("Alice")), 800 * PCR);
		assert_eq!(Hosts::forfeit(&account("Alice"), 5_000 * PCR), 800 * PCR);
		assert_eq!(Hosts::free_bond(&account("Alice")), 0);
	});
}
