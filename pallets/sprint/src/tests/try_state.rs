//! The checker notices corrupted state.

use super::lists::*;
use crate::{
	mock::*, Against, Commitment, Commits, Demands, Disputes, Due, DueKey, Matter, OpenBy, OpenByWallets, Strike, Struck, Totals,
	Weights,
};
use pacer_types::{Hash, PCR};

#[test]
fn try_state_should_fail_when_state_is_corrupted() {
	type Corruption = fn();
	let corruptions: [(&str, Corruption); 16] = [
		("1", || Weights::<Test>::mutate(0, |list| list.as_mut().unwrap()[0].consensus = 0)),
		("2", || Totals::<Test>::insert(0, (1, 1))),
		("2", || Totals::<Test>::insert(9, (1, 1))),
		("4", || {
			let commitment = Commitment { count: 0, root: Hash::zero(), bond: 0 };
			Commits::<Test>::insert(0, account("Alice"), commitment);
		}),
		("4", || Commits::<Test>::mutate(0, account("Bob"), |commit| commit.as_mut().unwrap().bond += PCR)),
		("5", || Disputes::<Test>::mutate(0, 0, |dispute| dispute.as_mut().unwrap().deadline += 1)),
		("5", || Due::<Test>::insert(DueKey::new(7, Matter::Dispute(0, 9)), ())),
		("5", || Against::<Test>::insert((0, account("Bob")), 9, ())),
		("6", || OpenBy::<Test>::insert(account("Alice"), 2)),
		("6", || OpenByWallets::<Test>::put(2)),
		("6", || Disputes::<Test>::mutate(0, 1, |dispute| dispute.as_mut().unwrap().deposit.amount += 1)),
		("6", || {
			Demands::<Test>::mutate(0, account("Bob"), |demand| demand.as_mut().unwrap().closed = true);
			let deadline = Demands::<Test>::get(0, account("Bob")).unwrap().deadline.unwrap();
			Due::<Test>::remove(DueKey::new(deadline, Matter::Demand(0, account("Bob"))));
		}),
		("7", || {
			Commits::<Test>::mutate(0, account("Bob"), |commit| commit.as_mut().unwrap().bond = 0);
			Struck::<Test>::insert(0, account("Bob"), Strike::Order);
		}),
		("7", || Struck::<Test>::insert(0, account("Bob"), Strike::Order)),
		("8", || Demands::<Test>::mutate(0, account("Bob"), |demand| demand.as_mut().unwrap().weight = 1)),
		("8", || {
			let posted = vec![(3, 7), (2, 9)].try_into().unwrap();
			Demands::<Test>::mutate(0, account("Bob"), |demand| demand.as_mut().unwrap().posted = posted);
		}),
	];
	for (number, corrupt) in corruptions {
		build_and_execute(|| {
			audit(0, &[List::made_up("Bob", 0, 100)]);
			submit(&challenge("Alice", "Bob", 3)).unwrap();
			let call = crate::Call::challenge_signed { race: 0, subject: account("Bob"), position: 4 };
			wallet("Wanda", call).unwrap();
			submit(&demand("Dave", "Bob", true)).unwrap();
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
