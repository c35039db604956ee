//! Votes on counts: the provisional judge.

use crate::{mock::*, CountJudge, Event, Judge, Tallies};
use pacer_types::{duty::DutyHeader, Phase, Rejection};
use sp_runtime::transaction_validity::InvalidTransaction;

/// All Hosts race, Eve too; then Audit.
fn in_audit(test: impl FnOnce()) {
	build_and_execute(|| {
		heartbeats();
		run_to(0, Phase::Race);
		for name in NAMES {
			submit(&commit(name, 90)).unwrap();
		}
		run_to(0, Phase::Audit);
		test();
	});
}

fn struck(name: &str) -> bool {
	Judge::<Test>::verdict(0, &account(name)).struck
}

#[test]
fn count_should_be_refuted_when_more_than_half_of_the_other_weight_says_so() {
	in_audit(|| {
		submit(&vote("Alice", "Dave", false)).unwrap();
		submit(&vote("Charlie", "Dave", true)).unwrap();
		assert!(!struck("Dave"));
		submit(&vote("Bob", "Dave", false)).unwrap();
		assert!(struck("Dave"));
		assert!(matches!(events().last(), Some(Event::CountRefuted { epoch: 0, .. })));
		let view = Sprint::sprint_view(0);
		let dave = view.commits.iter().find(|c| c.host == account("Dave")).unwrap();
		assert_eq!((dave.stands, dave.refuted, dave.struck), (100, 200, true));
	});
}

#[test]
fn count_should_stand_when_exactly_half_of_the_weight_refutes_it() {
	in_audit(|| {
		// Eve has no weight of her own, so all four others count: two of four is not more than half.
		submit(&vote("Alice", "Eve", false)).unwrap();
		submit(&vote("Bob", "Eve", false)).unwrap();
		assert!(!struck("Eve"));
		submit(&vote("Charlie", "Eve", false)).unwrap();
		assert!(struck("Eve"));
	});
}

#[test]
fn vote_should_be_stale_when_replayed_or_changed() {
	in_audit(|| {
		for stands in [true, false] {
			let subject = if stands { "Bob" } else { "Charlie" };
			let call = vote("Alice", subject, stands);
			submit(&call).unwrap();
			assert_eq!(submit(&call), stale());
			assert_eq!(submit(&vote("Alice", subject, !stands)), stale());
		}
		assert_eq!(Tallies::<Test>::get(0, account("Bob")).unwrap().stands, 100);
		let late = vote("Alice", "Bob", true);
		run_to(0, Phase::Switch);
		assert_eq!(submit(&late), stale());
		run_to(1, Phase::Audit);
		assert_eq!(submit(&late), stale());
	});
}

#[test]
fn vote_should_be_refused_with_a_distinct_reason_when_a_rule_is_broken() {
	in_audit(|| {
		assert_eq!(submit(&vote("Alice", "Alice", true)), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&vote("Eve", "Alice", true)), rejected(Rejection::NotEntitled));
		assert_eq!(submit(&vote("Alice", "Ferdie", true)), rejected(Rejection::UnknownSubject));
		let foreign = vote_with("Bob", header("Alice"), "Charlie", true);
		assert_eq!(submit(&foreign), Err(InvalidTransaction::BadProof.into()));
		let early = vote_with("Alice", DutyHeader { epoch: 1, ..header("Alice") }, "Bob", true);
		assert_eq!(submit(&early), rejected(Rejection::WrongEpoch));
		AuditValue::set(false);
		assert_eq!(submit(&vote("Alice", "Bob", true)), rejected(Rejection::UnknownSubject));
	});
}

#[test]
fn vote_should_be_refused_in_every_other_phase() {
	build_and_execute(|| {
		heartbeats();
		for phase in Phase::ALL {
			run_to(0, phase);
			if phase == Phase::Race {
				submit(&commit("Bob", 90)).unwrap();
			}
			let expected = if phase == Phase::Audit { Ok(()) } else { rejected(Rejection::WrongPhase) };
			let voter = if phase == Phase::Switch { "Charlie" } else { "Alice" };
			assert_eq!(submit(&vote(voter, "Bob", true)), expected, "{phase:?}");
		}
	});
}

#[test]
fn vote_about_oneself_should_decide_when_the_chain_lets_it() {
	in_audit(|| {
		AllowSelf::set(true);
		submit(&vote("Alice", "Alice", false)).unwrap();
		submit(&vote("Bob", "Alice", false)).unwrap();
		assert!(!struck("Alice"));
		submit(&vote("Charlie", "Alice", false)).unwrap();
		assert!(struck("Alice"));
	});
}
