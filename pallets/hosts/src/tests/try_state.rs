//! The checker notices corrupted state.

use pacer_types::{AccountId, PCR};

use crate::{mock::*, DutyKeys, HostCount, Hosts as HostsOf, Locked};

#[test]
fn try_state_should_fail_when_state_is_corrupted() {
	let corruptions: [(&str, fn(&AccountId)); 4] = [
		("1:", |alice| DutyKeys::<Test>::remove(HostsOf::<Test>::get(alice).unwrap().duty_key)),
		("2:", |alice| HostsOf::<Test>::mutate(alice, |host| host.as_mut().unwrap().bond += 1)),
		("2:", |alice| Locked::<Test>::insert(alice, 2_000 * PCR)),
		("3:", |_| HostCount::<Test>::put(7)),
	];
	for (expected, corrupt) in corruptions {
		build_and_execute(|| {
			register("Alice");
			Hosts::do_try_state().unwrap();
			let before = sp_io::storage::root(Default::default());
			corrupt(&account("Alice"));
			let error = format!("{:?}", Hosts::do_try_state().unwrap_err());
			assert!(error.contains(expected), "{error} after {expected}");
			// Put things right again for the check at the end.
			assert_ne!(before, sp_io::storage::root(Default::default()));
			let info = HostsOf::<Test>::get(account("Alice")).unwrap();
			DutyKeys::<Test>::insert(info.duty_key, account("Alice"));
			HostsOf::<Test>::mutate(account("Alice"), |host| host.as_mut().unwrap().bond = 1_000 * PCR);
			Locked::<Test>::remove(account("Alice"));
			HostCount::<Test>::put(1);
		});
	}
}
