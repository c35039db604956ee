//! The checker notices corrupted state.

use crate::{mock::*, Committees, Dealings, Dealt, Openings, Rejections, Rounds, Shares, SumBytes, Sums, ValueStatus, Values};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	traits::BeaconValue::{Audit, Race},
	Hash,
};

fn nothing() -> Dealt {
	Dealt { race: Hash::zero(), audit: Hash::zero() }
}

fn forget_key_of_alice() {
	Committees::<Test>::mutate(0, |members| {
		let members = members.as_mut().unwrap();
		members.iter_mut().find(|m| m.host == account("Alice")).unwrap().key = None;
	});
}

#[test]
fn try_state_should_fail_when_state_is_corrupted() {
	type Corruption = fn();
	let corruptions: [(&str, Corruption); 18] = [
		("1", || Dealings::<Test>::insert(0, account("Eve"), nothing())),
		("1", || Rejections::<Test>::insert(0, (account("Eve"), BeaconDuty::Deal), BeaconFault::Malformed)),
		("1", || Rejections::<Test>::insert(0, (account("Alice"), BeaconDuty::Key), BeaconFault::Malformed)),
		("1", || Rejections::<Test>::insert(0, (account("Alice"), BeaconDuty::Deal), BeaconFault::Malformed)),
		("1", || Rejections::<Test>::insert(0, (account("Alice"), BeaconDuty::Open(Race)), BeaconFault::Malformed)),
		("1", || Openings::<Test>::insert((0, Race), account("Eve"), Shares::default())),
		("1", || Openings::<Test>::insert((0, Race), account("Dave"), Shares::truncate_from(vec![(1, [0; 32])]))),
		("1", forget_key_of_alice),
		("2", || Values::<Test>::insert((0, Audit), [1; 32])),
		("2", || Values::<Test>::insert((0, Race), [1; 32])),
		("2", || Rounds::<Test>::mutate(0, |round| round.as_mut().unwrap().audit.status = ValueStatus::Drawn)),
		("2", || Rounds::<Test>::mutate(0, |round| round.as_mut().unwrap().audit.status = ValueStatus::Failed)),
		("2", || Dealings::<Test>::insert(0, account("Alice"), nothing())),
		("3", || Rounds::<Test>::mutate(0, |round| round.as_mut().unwrap().keys_fixed = false)),
		("3", || Rounds::<Test>::mutate(0, |round| round.as_mut().unwrap().dealing_closed = None)),
		("4", || Committees::<Test>::insert(9, Randomness::committee(0))),
		("5", || Sums::<Test>::insert((0, Race), SumBytes::truncate_from(vec![0; 32]))),
		("5", || Rounds::<Test>::mutate(0, |round| round.as_mut().unwrap().race.slots += 1)),
	];
	// The same state for all: three dealings and the race value.
	let mut ext = externalities();
	ext.execute_with(|| {
		dealt(0, &MEMBERS[..3]);
		run_to_window(0, Race);
		opened(&MEMBERS[..3], Race);
		Randomness::do_try_state().unwrap();
	});
	for (i, (number, corrupt)) in corruptions.into_iter().enumerate() {
		ext.execute_with(|| {
			let unchanged = frame_support::storage::with_transaction(|| {
				corrupt();
				let error = Randomness::do_try_state().expect_err("corrupted");
				assert!(format!("{error:?}").contains(&format!("\"{number}: ")), "corruption {i}: {number}: {error:?}");
				sp_runtime::TransactionOutcome::Rollback(Ok::<(), sp_runtime::DispatchError>(()))
			});
			unchanged.unwrap();
			Randomness::do_try_state().unwrap();
		});
	}
}
