//! Deadlines: silence loses, everything ends before Switch, and whoever had no block to speak in loses nothing.

use super::lists::*;
use crate::{mock::*, Disputes, Due, Event, OpenBy, SkipReason, Skips, Strike, WeightInfo, SETTLED_PER_BLOCK};
use pacer_types::{
	traits::{EpochClock, HostBonds},
	Phase, PCR,
};

fn free(name: &str) -> u128 {
	Hosts::free_bond(&account(name)) / PCR
}

fn in_audit(test: impl FnOnce(&[List])) {
	build_weighing(30, || {
		let lists = ["Alice", "Bob", "Charlie", "Dave"].map(|name| List::honest(name, 0, 40));
		audit(0, &lists);
		test(&lists);
	});
}

#[test]
fn host_should_be_struck_when_it_does_not_answer() {
	in_audit(|lists| {
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		let deadline = disputes(0)[0].deadline;
		run_to_slot(deadline);
		assert_eq!(struck(0, "Alice"), None);
		let late = lists[0].answer(0, 5);
		begin_block(deadline + 1);
		assert_eq!(struck(0, "Alice"), Some(Strike::Silent));
		assert_eq!(submit(&late), stale());
		assert_eq!((free("Alice"), free("Bob")), (960, 960));
		assert_eq!(Balances::free_balance(account("Bob")), 4_004 * PCR);
	});
}

#[test]
fn challenger_should_lose_its_deposit_when_it_does_not_refute() {
	in_audit(|lists| {
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		submit(&lists[0].answer(0, 5)).unwrap();
		let deadline = disputes(0)[0].deadline;
		run_to_slot(deadline);
		let late = refute("Bob", 0, 0, pacer_sprint::Step::Input);
		begin_block(deadline + 1);
		assert_eq!((struck(0, "Alice"), disputes(0).len(), free("Bob")), (None, 0, 950));
		assert_eq!(submit(&late), stale());
		assert!(matches!(events().last(), Some(Event::DisputeLost { .. })));
	});
}

#[test]
fn late_move_should_be_refused_when_the_sweep_is_behind() {
	in_audit(|lists| {
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		CurrentSlot::set(disputes(0)[0].deadline + 1);
		assert_eq!(submit(&lists[0].answer(0, 5)), rejected(pacer_types::Rejection::WrongPhase));
	});
}

#[test]
fn everything_should_be_decided_before_switch_when_challenged_in_the_last_block() {
	in_audit(|lists| {
		let start = Sprint::now().phase_start;
		run_to_slot(start + 47);
		// Everyone disputes everyone as often as it may; wallets too.
		let mut position = 0;
		for name in NAMES {
			for subject in ["Alice", "Bob", "Charlie", "Dave"].into_iter().filter(|subject| *subject != name) {
				submit(&challenge(name, subject, position)).unwrap();
				position += 1;
			}
		}
		for dispute in disputes(0) {
			let list = lists.iter().find(|list| account(list.name) == dispute.subject).unwrap();
			assert_eq!(dispute.deadline, start + 63);
			run_to_slot(start + 63);
			submit(&list.answer(dispute.id, dispute.position)).unwrap();
		}
		assert!(disputes(0).iter().all(|dispute| dispute.deadline == start + 79));
		run_to(0, Phase::Switch);
		assert_eq!((Disputes::<Test>::iter().count(), Due::<Test>::iter().count(), OpenBy::<Test>::iter().count()), (0, 0, 0));
		assert_eq!(weight(1, "Alice"), Some((40, 40)));
	});
}

#[test]
fn open_disputes_should_be_decided_at_the_border_before_weights_freeze() {
	in_audit(|lists| {
		// Two whose deadlines are the last slot of Audit: one that Dave leaves open, one that Bob does.
		submit(&challenge("Alice", "Dave", 1)).unwrap();
		submit(&challenge("Bob", "Charlie", 1)).unwrap();
		submit(&challenge("Bob", "Dave", 2)).unwrap();
		submit(&lists[2].answer(1, 1)).unwrap();
		submit(&lists[3].answer(2, 2)).unwrap();
		let end = Sprint::now().phase_end - 1;
		for (race, id, mut dispute) in Disputes::<Test>::iter().collect::<Vec<_>>() {
			let matter = crate::Matter::Dispute(race, id);
			Due::<Test>::remove(crate::DueKey::new(dispute.deadline, matter.clone()));
			dispute.deadline = end;
			Due::<Test>::insert(crate::DueKey::new(end, matter), ());
			Disputes::<Test>::insert(race, id, dispute);
		}
		run_to_slot(end);
		assert_eq!(disputes(0).len(), 3);
		begin_block(end + 1);
		assert_eq!(Sprint::phase(), Phase::Switch);
		assert_eq!((struck(0, "Dave"), struck(0, "Charlie")), (Some(Strike::Silent), None));
		// Bob was silent about Charlie and lost; about Dave there was nothing more to say.
		assert_eq!((free("Alice"), free("Bob"), free("Dave")), (1_000, 990, 960));
		assert_eq!((weight(1, "Dave"), weight(1, "Charlie")), (None, Some((40, 40))));
	});
}

#[test]
fn silence_should_decide_nothing_when_blocks_were_missing() {
	in_audit(|lists| {
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		submit(&challenge("Alice", "Charlie", 5)).unwrap();
		submit(&lists[2].answer(1, 5)).unwrap();
		submit(&demand("Dave", "Bob", true)).unwrap();
		begin_block(CurrentSlot::get() + 80);
		assert!(matches!(Skips::<Test>::get(0), Some(SkipReason::EpochJump { .. })));
		run_to(0, Phase::Switch);
		assert_eq!(Disputes::<Test>::iter().count() + Due::<Test>::iter().count(), 0);
		for name in ["Alice", "Bob", "Charlie", "Dave"] {
			assert_eq!((struck(0, name), free(name)), (None, 1_000), "{name}");
		}
		assert_eq!(events().iter().filter(|event| matches!(event, Event::DisputeVoid { .. })).count(), 2);
	});
}

#[test]
fn deadline_should_move_when_there_was_no_block_to_speak_in() {
	in_audit(|lists| {
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		submit(&demand("Dave", "Charlie", true)).unwrap();
		let deadline = disputes(0)[0].deadline;
		run_to_slot(deadline - 4);
		begin_block(deadline + 5);
		assert_eq!((struck(0, "Alice"), struck(0, "Charlie")), (None, None));
		assert_eq!(disputes(0)[0].deadline, deadline + 13);
		assert_eq!(demand_on("Charlie").unwrap().deadline, Some(deadline + 13));
		submit(&lists[0].answer(0, 5)).unwrap();
		// The block after the deadline begins a session, and leaves it to the next.
		run_to_slot(deadline + 14);
		assert_eq!(struck(0, "Charlie"), None);
		run_to_slot(deadline + 15);
		assert_eq!((struck(0, "Alice"), struck(0, "Charlie")), (None, Some(Strike::Withheld)));
	});
}

#[test]
fn sweep_should_take_several_blocks_when_much_is_due() {
	in_audit(|_| {
		let deadline = CurrentSlot::get() + 3;
		for id in 0..100 {
			let deposit = crate::Deposit { by: crate::Party { who: account("Bob"), wallet: false }, amount: 0 };
			let dispute = crate::Dispute { subject: account("Alice"), deposit, position: id, rank: 0, deadline, answer: None };
			Disputes::<Test>::insert(0, id, crate::Dispute { answer: Some(answered()), ..dispute });
			Due::<Test>::insert(crate::DueKey::new(deadline, crate::Matter::Dispute(0, id)), ());
		}
		begin_block(deadline + 1);
		assert_eq!(Due::<Test>::iter().count(), 100 - SETTLED_PER_BLOCK as usize);
		begin_block(deadline + 2);
		assert_eq!(Due::<Test>::iter().count(), 0);
	});
}

fn answered() -> crate::Answer {
	crate::Answer { nonce: 0, hashes: Default::default() }
}

#[test]
fn deadlines_should_be_in_the_order_of_slots() {
	build_and_execute(|| {
		for slot in [300, 2, 65_536, 255, 256] {
			Due::<Test>::insert(crate::DueKey::new(slot, crate::Matter::Dispute(0, 7)), ());
		}
		let slots: Vec<u64> = Due::<Test>::iter_keys().map(|key| key.slot()).collect();
		assert_eq!(slots, [2, 255, 256, 300, 65_536]);
		let _ = Due::<Test>::clear(10, None);
	});
}

#[test]
fn sweep_should_charge_for_the_strike_and_what_ends_with_it() {
	in_audit(|_| {
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		let deadline = disputes(0)[0].deadline;
		begin_block(CurrentSlot::get() + 1);
		for name in ["Charlie", "Dave", "Eve"] {
			submit(&challenge(name, "Alice", 5)).unwrap();
		}
		run_to_slot(deadline);
		CurrentSlot::set(deadline + 1);
		// The dispute, the strike, and three that were not due yet.
		assert_eq!(Sprint::sweep(), <() as WeightInfo>::sweep(5));
		assert_eq!((struck(0, "Alice"), disputes(0).len()), (Some(Strike::Silent), 0));
	});
}

#[test]
fn sweep_should_stop_early_when_many_are_struck() {
	in_audit(|_| {
		let deadline = CurrentSlot::get() + 3;
		for id in 0..SETTLED_PER_BLOCK {
			let deposit = crate::Deposit { by: crate::Party { who: account("Bob"), wallet: false }, amount: 0 };
			let subject = account(&format!("Host {id}"));
			Disputes::<Test>::insert(0, id, crate::Dispute { subject, deposit, position: 0, rank: 0, deadline, answer: None });
			Due::<Test>::insert(crate::DueKey::new(deadline, crate::Matter::Dispute(0, id)), ());
		}
		CurrentSlot::set(deadline + 1);
		// Each is two: the dispute and the strike.
		assert_eq!(Sprint::sweep(), <() as WeightInfo>::sweep(SETTLED_PER_BLOCK));
		assert_eq!(Due::<Test>::iter().count(), SETTLED_PER_BLOCK as usize / 2);
		Sprint::sweep();
		assert_eq!(Due::<Test>::iter().count(), 0);
	});
}

/// A dispute of the last slot for challenges, and a stall from just before its deadline; `slot` is counted from Audit's
/// first.
fn stalled_until(slot: u64, test: impl FnOnce(&[List], u64)) {
	in_audit(|lists| {
		let start = Sprint::now().phase_start;
		run_to_slot(start + 47);
		submit(&challenge("Bob", "Alice", 5)).unwrap();
		assert_eq!(disputes(0)[0].deadline, start + 63);
		run_to_slot(start + 62);
		begin_block(start + slot);
		test(lists, start);
	});
}

#[test]
fn challenger_should_keep_its_slots_when_the_hosts_deadline_moves() {
	stalled_until(77, |lists, start| {
		assert_eq!(disputes(0)[0].deadline, start + 79);
		run_to_slot(start + 79);
		submit(&lists[0].answer(0, 5)).unwrap();
		assert_eq!(disputes(0)[0].deadline, start + 95);
	});
}

#[test]
fn dispute_should_be_void_when_a_stall_leaves_no_room_for_both_moves() {
	stalled_until(81, |_, _| {
		assert_eq!((disputes(0).len(), struck(0, "Alice"), free("Alice"), free("Bob")), (0, None, 960, 960));
		assert!(matches!(events().last(), Some(Event::DisputeVoid { .. })));
	});
}
