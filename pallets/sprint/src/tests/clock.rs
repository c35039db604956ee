//! Phases, session tracking and the rules by which a race is skipped.

use crate::{mock::*, Event, NextPruned, SkipReason, Skips, Tracked, Weights};
use frame_support::{traits::Hooks, weights::Weight};
use pacer_types::{
	traits::{EpochClock, EpochWeights},
	Phase,
};

fn skip_of(epoch: u32) -> Option<SkipReason> {
	Skips::<Test>::get(epoch)
}

#[test]
fn phases_should_be_announced_once_and_in_order_when_epochs_pass() {
	build_and_execute(|| {
		run_to(2, Phase::Inference);
		let changes: Vec<(u32, Phase)> = events()
			.into_iter()
			.filter_map(|event| match event {
				Event::PhaseChanged { epoch, phase } => Some((epoch, phase)),
				_ => None,
			})
			.collect();
		let expected: Vec<(u32, Phase)> =
			(0..2).flat_map(|e| Phase::ALL.map(|p| (e, p))).chain([(2, Phase::Inference)]).collect();
		assert_eq!(changes, expected);
	});
}

#[test]
fn epoch_hooks_should_run_once_per_epoch_in_order() {
	build_and_execute(|| {
		run_to(2, Phase::Deal);
		let none = |epoch| Heard::Switch { epoch, raced: vec![], caught: vec![] };
		assert_eq!(heard(), [Heard::Start(0), none(0), Heard::Start(1), none(1), Heard::Start(2)]);
	});
}

#[test]
fn moment_should_count_slots_of_the_phase() {
	build_and_execute(|| {
		run_to(0, Phase::Audit);
		begin_block(CurrentSlot::get() + 32);
		let now = Sprint::now();
		assert_eq!((now.session, now.session_in_phase), (9, 1));
		assert_eq!(now.phase_start, GENESIS_SLOT + 8 * 32);
		assert_eq!(now.phase_end, GENESIS_SLOT + 11 * 32);
	});
}

#[test]
fn session_manager_should_answer_only_at_the_border_of_epochs() {
	build_and_execute(|| {
		assert!(Sprint::validators_for(0).is_some());
		assert!((1..12).all(|session| Sprint::validators_for(session).is_none()));
		run_to(2, Phase::Inference);
		let sessions: Vec<u32> = queued().into_iter().map(|(session, _)| session).collect();
		assert_eq!(sessions, [12, 24]);
		// Handlers find the weight of every authority under the same place.
		for (session, hosts) in queued() {
			let listed: Vec<_> = Sprint::weights_for_session(session).into_iter().map(|w| w.host).collect();
			assert_eq!(hosts, listed);
		}
	});
}

#[test]
fn race_should_be_skipped_when_a_babe_epoch_is_left_out() {
	for phase in [Phase::Deal, Phase::Open, Phase::Race, Phase::Audit] {
		build_and_execute(|| {
			run_to(0, phase);
			let session = Session::get();
			begin_block(CurrentSlot::get() + 80);
			assert_eq!(Session::get(), session + 1);
			assert_eq!(skip_of(0), Some(SkipReason::EpochJump { session }), "{phase:?}");
		});
	}
}

#[test]
fn race_should_be_skipped_when_the_gap_ends_in_switch() {
	build_and_execute(|| {
		race_until_audit_end();
		let session = Session::get();
		begin_block(CurrentSlot::get() + 80);
		assert_eq!((Sprint::phase(), skip_of(0)), (Phase::Switch, Some(SkipReason::EpochJump { session })));
		assert_eq!(weight(1, "Alice"), Some((100, 100)));
	});
}

fn race_until_audit_end() {
	run_to(0, Phase::Inference);
	heartbeats();
	run_to(0, Phase::Race);
	for name in NAMES {
		submit(&commit(name, 50)).unwrap();
	}
	run_to_session(10);
}

#[test]
fn race_should_count_when_a_gap_lies_in_inference() {
	build_and_execute(|| {
		begin_block(CurrentSlot::get() + 200);
		race(0, &[("Alice", 90), ("Bob", 80), ("Charlie", 70)]);
		assert_eq!(skip_of(0), None);
		assert_eq!(weight(1, "Alice"), Some((90, 90)));
	});
}

#[test]
fn race_should_be_skipped_when_a_session_has_few_blocks() {
	build_and_execute(|| {
		run_to(0, Phase::Open);
		// Three blocks in 32 slots; four are enough.
		begin_block(CurrentSlot::get() + 10);
		begin_block(CurrentSlot::get() + 10);
		begin_block(CurrentSlot::get() + 12);
		assert_eq!(Sprint::phase(), Phase::Race);
		assert_eq!(skip_of(0), Some(SkipReason::FewBlocks { session: 6, blocks: 3 }));
	});
}

#[test]
fn race_should_count_when_a_session_has_just_enough_blocks() {
	build_and_execute(|| {
		run_to(0, Phase::Open);
		for _ in 0..4 {
			begin_block(CurrentSlot::get() + 8);
		}
		assert_eq!((Sprint::phase(), skip_of(0)), (Phase::Race, None));
	});
}

#[test]
fn race_should_be_skipped_when_there_is_no_race_value() {
	build_and_execute(|| {
		RaceValue::set(false);
		run_to(0, Phase::Race);
		assert_eq!(skip_of(0), None);
		run_to(0, Phase::Audit);
		assert_eq!(skip_of(0), Some(SkipReason::NoRaceValue));
		RaceValue::set(true);
		run_to(1, Phase::Inference);
		let skips = events().into_iter().filter(|event| matches!(event, Event::SprintSkipped { epoch: 0, .. })).count();
		assert_eq!((skips, weight(1, "Alice")), (1, Some((100, 100))));
	});
}

#[test]
fn session_record_should_be_right_when_the_pallet_initialises_after_the_rotation() {
	build_and_execute(|| {
		run_to(0, Phase::Race);
		// A session manager that answers by itself: the hook notices the session in the same block.
		Sprint::on_finalize(System::block_number());
		System::set_block_number(System::block_number() + 1);
		CurrentSlot::set(CurrentSlot::get() + 32);
		Session::set(8);
		BabeEpoch::set(8);
		Sprint::on_initialize(System::block_number());
		assert_eq!(Tracked::<Test>::get().unwrap().session, 8);
		// One block in Race is too few.
		assert_eq!(skip_of(0), Some(SkipReason::FewBlocks { session: 7, blocks: 1 }));
	});
}

#[test]
fn old_epochs_should_be_forgotten_after_two_more() {
	build_and_execute(|| {
		for epoch in 0..3 {
			race(epoch, &[("Alice", 90), ("Bob", 80), ("Charlie", 70)]);
		}
		run_to(3, Phase::Deal);
		assert!(Sprint::total_work(0) > 0);
		Sprint::on_idle(System::block_number(), Weight::from_parts(u64::MAX, u64::MAX));
		assert_eq!(NextPruned::<Test>::get(), 1);
		assert!(Sprint::weights(0).is_empty() && Sprint::sprint_view(0).commits.is_empty());
		assert_eq!((Sprint::total_work(0), Weights::<Test>::iter_keys().count()), (0, 3));
		Sprint::on_idle(System::block_number(), Weight::from_parts(u64::MAX, u64::MAX));
		assert_eq!(NextPruned::<Test>::get(), 1);
		assert_eq!(Sprint::sprint_view(1).commits.len(), 3);
	});
}
