//! Whatever members do, the invariants hold; a value exists exactly if enough of them did their duty, and only those who
//! did not have faults.

use crate::{mock::*, ValueStatus};
use pacer_types::{
	traits::{Beacon, BeaconValue, EpochClock},
	Phase,
};
use proptest::prelude::*;

/// How a member does a duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
	Good,
	Silent,
	/// Signed bytes that encode nothing.
	Garbage,
	/// Signed and well formed, but another member's.
	Stolen,
}

/// What the four members do in an epoch.
#[derive(Clone, Debug)]
struct Plan {
	keys: [bool; 4],
	deals: [Act; 4],
	/// Whether who did not deal does so when Deal is repeated.
	spare_deals: [bool; 4],
	opens: [[Act; 4]; 2],
}

fn act() -> impl Strategy<Value = Act> {
	prop_oneof![5 => Just(Act::Good), 2 => Just(Act::Silent), 1 => Just(Act::Garbage), 1 => Just(Act::Stolen)]
}

fn plan() -> impl Strategy<Value = Plan> {
	let acts = || prop::array::uniform4(act());
	let key = prop::bool::weighted(0.9);
	(prop::array::uniform4(key), acts(), prop::array::uniform4(any::<bool>()), [acts(), acts()])
		.prop_map(|(keys, deals, spare_deals, opens)| Plan { keys, deals, spare_deals, opens })
}

/// Deals as `act` says; returns whether something that holds was dealt.
fn deal_as(i: usize, act: Act) -> bool {
	let (name, other, epoch) = (MEMBERS[i], MEMBERS[(i + 1) % 4], Clock::epoch());
	let bytes = |which| match act {
		Act::Stolen if has_key(other) => dealing(other, epoch, which),
		Act::Good => dealing(name, epoch, which),
		_ => garbage(dealing(name, epoch, which).len()),
	};
	if act == Act::Silent {
		return false;
	}
	submit(&deal_with(name, header(name), bytes(BeaconValue::Race), bytes(BeaconValue::Audit))).unwrap();
	act == Act::Good
}

fn open_as(i: usize, act: Act, which: BeaconValue) -> bool {
	let (name, other, epoch) = (MEMBERS[i], MEMBERS[(i + 1) % 4], Clock::epoch());
	let own = opening(name, epoch, which);
	let bytes = match act {
		Act::Silent => return false,
		Act::Good => own,
		Act::Garbage => garbage(own.len()),
		// The other's has another length where it has other slots.
		Act::Stolen if has_key(other) => opening(other, epoch, which).into_iter().cycle().take(own.len()).collect(),
		Act::Stolen => garbage(own.len()),
	};
	submit(&open_with(name, header(name), which, bytes)).unwrap();
	act == Act::Good
}

fn has_key(name: &str) -> bool {
	Randomness::committee(Clock::epoch()).iter().any(|m| m.host == account(name) && m.key.is_some())
}

fn slots_of(name: &str) -> u32 {
	Randomness::committee(Clock::epoch()).iter().find(|m| m.host == account(name)).map_or(0, |m| m.slots)
}

/// Sum over the members for whom `holds` is true.
fn sum(holds: [bool; 4], of: impl Fn(usize) -> u32) -> u32 {
	(0..4).filter(|i| holds[*i]).map(of).sum()
}

/// Runs an epoch to Switch; checks everything on the way.
fn play(epoch: u32, plan: &Plan, weights: &[u32; 4]) {
	run_to(epoch, Phase::Inference, 1, 0);
	(0..4).filter(|i| plan.keys[*i]).for_each(|i| submit(&register(MEMBERS[i])).unwrap());
	run_to(epoch, Phase::Deal, 0, 4);
	let total: u32 = weights.iter().sum();
	let majority = |dealt: [bool; 4]| sum(dealt, |i| weights[i]) * 2 > total;
	let live = sum(plan.keys, |i| slots_of(MEMBERS[i]));
	let mut dealt = [false; 4];
	let mut tried = [false; 4];
	if live >= 65 {
		for i in (0..4).filter(|i| plan.keys[*i]) {
			(dealt[i], tried[i]) = (deal_as(i, plan.deals[i]), plan.deals[i] != Act::Silent);
		}
	}
	run_to(epoch, Phase::SpareDeal, 0, 4);
	let repeated = live >= 65 && !majority(dealt);
	assert_eq!(Randomness::beacon_view(epoch).repeated, repeated);
	for i in (0..4).filter(|i| repeated && plan.keys[*i] && plan.spare_deals[*i] && !tried[*i]) {
		dealt[i] = deal_as(i, Act::Good);
	}
	Randomness::do_try_state().unwrap();
	let mut missed = [0; 4];
	for i in 0..4 {
		missed[i] = u32::from(!plan.keys[i] || (live >= 65 && !dealt[i]));
	}
	for (which, opens) in [BeaconValue::Race, BeaconValue::Audit].into_iter().zip(&plan.opens) {
		run_to_window(epoch, which);
		let can_open = majority(dealt);
		let mut opened = [false; 4];
		if can_open {
			(0..4).filter(|i| plan.keys[*i]).for_each(|i| opened[i] = open_as(i, opens[i], which));
			(0..4).filter(|i| !opened[*i]).for_each(|i| missed[i] += 1);
		}
		let expected = sum(opened, |i| slots_of(MEMBERS[i])) >= 65;
		assert_eq!(Randomness::value(epoch, which).is_some(), expected);
		let (phase, session) = if which == BeaconValue::Race { (Phase::Race, 0) } else { (Phase::Audit, 1) };
		run_to(epoch, phase, session, 0);
		assert_ne!(crate::Rounds::<Test>::get(epoch).unwrap().progress(which).status, ValueStatus::Waiting);
		Randomness::do_try_state().unwrap();
	}
	assert_eq!(MEMBERS.map(|name| faults(epoch, name)), missed);
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

	#[test]
	fn invariants_should_hold_whatever_members_do(
		plans in prop::collection::vec(plan(), 1..3),
		weights in prop_oneof![Just([10u32; 4]), Just([13, 11, 9, 7]), Just([40, 2, 1, 1])],
	) {
		build_and_execute(|| {
			Committee::set(MEMBERS.iter().zip(weights).map(|(name, w)| (name.to_string(), u64::from(w))).collect());
			for (i, plan) in plans.iter().enumerate() {
				// The first epoch's committee is that of the mock.
				play(i as u32 + 1, plan, &weights);
			}
		});
	}
}
