//! The checker notices corrupted state.

use crate::{mock::*, Committees, Dealing, Dealings, Openings, Rounds, ValueStatus, Values};
use pacer_types::{traits::BeaconValue, Hash, Phase};

#[test]
fn try_state_should_fail_when_state_is_corrupted() {
	type Corruption = fn();
	let corruptions: [(&str, Corruption); 5] = [
		("1", || Dealings::<Test>::insert(0, account("Eve"), Dealing { race: Hash::zero(), audit: Hash::zero() })),
		("1", || Openings::<Test>::insert((0, BeaconValue::Race), account("Alice"), [0; 32])),
		("2", || Values::<Test>::insert((0, BeaconValue::Audit), [1; 32])),
		("2", || Rounds::<Test>::mutate(0, |round| round.as_mut().unwrap().race = ValueStatus::Drawn)),
		("4", || Committees::<Test>::insert(9, Randomness::committee(0))),
	];
	for (number, corrupt) in corruptions {
		externalities().execute_with(|| {
			run_to(0, Phase::Deal, 0, 0);
			submit(&deal("Alice")).unwrap();
			Randomness::do_try_state().unwrap();
			corrupt();
			let error = Randomness::do_try_state().expect_err("corrupted");
			assert!(format!("{error:?}").contains(&format!("\"{number}: ")), "{number}: {error:?}");
		});
	}
}
