//! Whoever deals and opens what and when, the invariants hold, and a majority is enough for a value.

use crate::{mock::*, ValueStatus};
use pacer_types::{
	traits::{Beacon, BeaconValue, EpochClock},
	Phase,
};
use proptest::prelude::*;

/// Who does what in an epoch: bit i for member i.
#[derive(Clone, Debug)]
struct Plan {
	deals: u8,
	spare_deals: u8,
	opens_race: u8,
	opens_audit: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
	(0u8..16, 0u8..16, 0u8..16, 0u8..16).prop_map(|(deals, spare_deals, opens_race, opens_audit)| Plan {
		deals,
		spare_deals,
		opens_race,
		opens_audit,
	})
}

fn each(bits: u8, act: impl Fn(&str)) {
	MEMBERS.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).for_each(|(_, name)| act(name));
}

fn is_majority(bits: u8) -> bool {
	bits.count_ones() > 2
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

	#[test]
	fn invariants_should_hold_when_any_members_are_silent(plans in prop::collection::vec(plan(), 1..4)) {
		build_and_execute(|| {
			for (epoch, plan) in plans.into_iter().enumerate() {
				let epoch = epoch as u32;
				run_to(epoch, Phase::Deal, 0, 4);
				each(plan.deals, |name| submit(&deal(name)).unwrap());
				run_to(epoch, Phase::SpareDeal, 0, 4);
				each(plan.spare_deals, |name| { let _ = submit(&deal(name)); });
				Randomness::do_try_state().unwrap();
				let dealers = if is_majority(plan.deals) { plan.deals } else { plan.deals | plan.spare_deals };
				for (which, opens) in [(BeaconValue::Race, plan.opens_race), (BeaconValue::Audit, plan.opens_audit)] {
					run_to_window(epoch, which);
					each(opens, |name| { let _ = submit(&open(name, which)); });
					let expected = is_majority(dealers) && is_majority(dealers & opens);
					let (phase, session) = if which == BeaconValue::Race { (Phase::Race, 0) } else { (Phase::Audit, 1) };
					run_to(epoch, phase, session, 0);
					assert_eq!(Randomness::value(epoch, which).is_some(), expected);
					assert_ne!(crate::Rounds::<Test>::get(epoch).unwrap().status(which), ValueStatus::Waiting);
					Randomness::do_try_state().unwrap();
				}
				assert_eq!(Clock::epoch(), epoch);
			}
		});
	}
}
