//! Whatever Hosts and the network do, the invariants hold and the chain has authorities.

use crate::mock::*;
use pacer_types::{
	traits::{EpochClock, EpochWeights},
	Phase,
};
use proptest::prelude::*;

/// Something that may happen.
#[derive(Clone, Debug)]
enum Op {
	/// Blocks pass, two slots apart.
	Blocks(u8),
	/// Nobody makes a block for some slots.
	Gap(u8),
	Heartbeats,
	Commit(usize, u32),
	Vote(usize, usize, bool),
	Penalise(usize),
	Beacon(bool, bool),
}

fn op() -> impl Strategy<Value = Op> {
	let host = 0..NAMES.len();
	prop_oneof![
		6 => (1u8..60).prop_map(Op::Blocks),
		1 => (2u8..90).prop_map(Op::Gap),
		2 => Just(Op::Heartbeats),
		4 => (host.clone(), 0u32..1_200).prop_map(|(h, n)| Op::Commit(h, n)),
		4 => (host.clone(), host.clone(), any::<bool>()).prop_map(|(a, b, s)| Op::Vote(a, b, s)),
		1 => host.prop_map(Op::Penalise),
		1 => (prop::bool::weighted(0.9), prop::bool::weighted(0.9)).prop_map(|(r, a)| Op::Beacon(r, a)),
	]
}

fn apply(op: Op) {
	match op {
		Op::Blocks(n) => (0..n).for_each(|_| begin_block(CurrentSlot::get() + 2)),
		Op::Gap(slots) => begin_block(CurrentSlot::get() + u64::from(slots)),
		Op::Heartbeats => heartbeats(),
		Op::Commit(host, count) => {
			let _ = submit(&commit(NAMES[host], count));
		},
		Op::Vote(voter, subject, stands) => {
			let _ = submit(&vote(NAMES[voter], NAMES[subject], stands));
		},
		Op::Penalise(host) => Sprint::penalise(&account(NAMES[host])),
		Op::Beacon(race, audit) => {
			RaceValue::set(race);
			AuditValue::set(audit);
		},
	}
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

	#[test]
	fn invariants_should_hold_when_anything_happens(ops in prop::collection::vec(op(), 1..60), mean_of in 1u32..=5) {
		build_with(mean_of, 2, || {
			for op in ops {
				apply(op);
				Sprint::do_try_state().unwrap();
				assert!(!Sprint::weights(Sprint::epoch()).is_empty(), "an epoch without authorities");
				let frozen = Sprint::weights(Sprint::epoch() + 1);
				assert_eq!(!frozen.is_empty(), Sprint::phase() == Phase::Switch);
			}
		});
	}
}
