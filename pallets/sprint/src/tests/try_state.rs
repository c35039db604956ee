//! The checker notices corrupted state.

use crate::{mock::*, Commitment, Commits, Tallies, Tally, Totals, Weights};
use pacer_types::Hash;

#[test]
fn try_state_should_fail_when_state_is_corrupted() {
	type Corruption = fn();
	let corruptions: [(&str, Corruption); 5] = [
		("1", || Weights::<Test>::mutate(0, |list| list.as_mut().unwrap()[0].consensus = 0)),
		("2", || Totals::<Test>::insert(0, (1, 1))),
		("2", || Totals::<Test>::insert(9, (1, 1))),
		("4", || {
			let commitment = Commitment { count: 0, root: Hash::zero(), bond: 0 };
			Commits::<Test>::insert(0, account("Alice"), commitment);
		}),
		("5", || Tallies::<Test>::insert(0, account("Alice"), Tally { stands: 1, ..Default::default() })),
	];
	for (number, corrupt) in corruptions {
		build_and_execute(|| {
			let caught = frame_support::storage::with_storage_layer::<(), sp_runtime::DispatchError, _>(|| {
				corrupt();
				let error = Sprint::do_try_state().expect_err("corrupted");
				assert!(format!("{error:?}").contains(&format!("\"{number}: ")), "{number}: {error:?}");
				Err(sp_runtime::DispatchError::Other("undo"))
			});
			assert!(caught.is_err());
		});
	}
}
