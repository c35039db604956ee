//! Deposits, payers, allowances, request keys.

use frame_support::{assert_noop, assert_ok, traits::fungible::Inspect};
use pacer_types::{ledger::SEQUENCE_WINDOW, Hash, PCR};
use proptest::prelude::*;
use sp_core::sr25519;

use super::*;
use crate::{Accounts, Error, Payer, Payers, MAX_PAYERS_PER_ACCOUNT, MAX_REQUEST_KEYS};

fn signed(n: u8) -> RuntimeOrigin {
	RuntimeOrigin::signed(developer(n))
}

#[test]
fn deposit_should_return_in_full_when_nothing_was_spent() {
	build_and_execute(|| {
		assert_noop!(Ledger::fund(signed(0), PCR - 1), Error::<Test>::DepositTooSmall);
		fund();
		assert_eq!((free(), reserved()), (50 * PCR, 0));
		assert_noop!(Ledger::withdraw(signed(0), 50 * PCR + 1), Error::<Test>::NotFree);
		assert_noop!(Ledger::withdraw(signed(1), 0), Error::<Test>::NoAccount);
		assert_ok!(Ledger::withdraw(signed(0), 20 * PCR));
		assert_eq!(free(), 30 * PCR);
		assert_ok!(Ledger::withdraw(signed(0), 30 * PCR));
		assert_eq!(Balances::balance(&developer(0)), 100 * PCR);
		assert_eq!(Ledger::payer(&developer(0)), None);
		assert_eq!(Payers::<Test>::iter().count(), 0);
	});
}

#[test]
fn payer_should_get_its_salt_from_a_later_block() {
	build_and_execute(|| {
		assert_ok!(Ledger::fund(signed(0), PCR));
		assert_eq!(Ledger::payer(&developer(0)).unwrap().salt, Hash::zero());
		next_block(1);
		// The parent of this block is the one in which the payer was made: its author could have chosen the hash.
		assert_eq!(Ledger::payer(&developer(0)).unwrap().salt, Hash::zero());
		next_block(1);
		let first = Ledger::payer(&developer(0)).unwrap();
		assert_ne!(first.salt, Hash::zero());
		assert_eq!(events(), vec![Event::PayerReady { payer: 0, salt: first.salt }]);
		// Whoever comes back is another payer.
		assert_ok!(Ledger::withdraw(signed(0), PCR));
		assert_ok!(Ledger::fund(signed(0), PCR));
		next_block(1);
		next_block(1);
		let second = Ledger::payer(&developer(0)).unwrap();
		assert!(second.index == 1 && second.salt != first.salt);
	});
}

#[test]
fn allowance_should_cap_what_a_transfer_agent_spends_in_an_epoch() {
	build_and_execute(|| {
		fund();
		assert_noop!(Ledger::allow(signed(0), developer(1), PCR), Error::<Test>::NotHost);
		assert_noop!(Ledger::allow(signed(1), host(0), PCR), Error::<Test>::NoAccount);
		assert_ok!(Ledger::allow(signed(0), host(0), 5 * PCR));
		next_block(1);
		next_block(1);
		let payer = Ledger::payer_of(&developer(0), Some(&host(0))).unwrap();
		assert_eq!((payer.index, payer.next_sequence), (1, 0));
		send(starts(&host(0), vec![start(1, 0), start(1, 1)]));
		assert_eq!(rejections(), vec![(1, RecordError::OverAllowance)]);
		assert_eq!(Ledger::allowance(&developer(0), &host(0)), 2 * PCR);
		// Another transfer agent may not use the payer.
		send(starts(&host(1), vec![start(1, 1)]));
		assert!(rejections().contains(&(0, RecordError::ForeignPayer)));
		// The result frees what was not needed.
		let key = BatchKey { ta: host(0), number: 0 };
		let executor = Ledger::batch(&key)[0].executor.clone();
		send(results(&executor, vec![(key, 0, finish())]));
		assert_eq!(Ledger::allowance(&developer(0), &host(0)), 4 * PCR);
		send(starts(&host(0), vec![start(1, 1)]));
		assert_eq!(Ledger::allowance(&developer(0), &host(0)), PCR);
		block_at(400);
		assert_eq!(Ledger::allowance(&developer(0), &host(0)), 5 * PCR);
		assert_ok!(Ledger::revoke(signed(0), host(0)));
		assert_noop!(Ledger::revoke(signed(0), host(0)), Error::<Test>::NoAllowance);
		send(starts(&host(0), vec![start(1, 2)]));
		assert_eq!(rejections(), vec![(0, RecordError::NoAllowance)]);
	});
}

#[test]
fn account_should_be_bounded() {
	build_and_execute(|| {
		fund();
		for n in 1..MAX_PAYERS_PER_ACCOUNT as u8 {
			world(|w| w.work.insert(host(n + 10), 0));
			assert_ok!(Ledger::allow(signed(0), host(n + 10), PCR));
		}
		assert_noop!(Ledger::allow(signed(0), host(0), PCR), Error::<Test>::TooMany);
		for n in 0..MAX_REQUEST_KEYS as u8 {
			assert_ok!(Ledger::register_request_key(signed(0), sr25519::Public::from_raw([n; 32])));
		}
		let more = sr25519::Public::from_raw([99; 32]);
		assert_noop!(Ledger::register_request_key(signed(0), more), Error::<Test>::TooMany);
		assert_ok!(Ledger::withdraw(signed(0), 50 * PCR));
		assert!(Accounts::<Test>::iter().next().is_none() && Payers::<Test>::iter().next().is_none());
		assert!(crate::Allowances::<Test>::iter().next().is_none());
	});
}

#[test]
fn request_keys_should_come_and_go() {
	build_and_execute(|| {
		let key = sr25519::Public::from_raw([5; 32]);
		assert_noop!(Ledger::register_request_key(signed(0), key), Error::<Test>::NoAccount);
		fund();
		assert_ok!(Ledger::register_request_key(signed(0), key));
		assert_noop!(Ledger::register_request_key(signed(0), key), Error::<Test>::KeyTwice);
		assert_eq!(Ledger::request_keys(&developer(0)), vec![key]);
		assert_ok!(Ledger::remove_request_key(signed(0), key));
		assert_noop!(Ledger::remove_request_key(signed(0), key), Error::<Test>::UnknownKey);
		assert!(Ledger::request_keys(&developer(0)).is_empty());
	});
}

proptest! {
	#[test]
	fn sequence_numbers_should_be_used_once_and_none_left_behind(wanted in proptest::collection::vec(0u32..80, 0..200)) {
		let mut payer = Payer { developer: developer(0), ta: None, salt: None, next: 0, used: 0 };
		let mut taken = std::collections::BTreeSet::new();
		for sequence in wanted {
			let lowest = (0..).find(|n| !taken.contains(n)).unwrap();
			let expected = if taken.contains(&sequence) {
				Err(RecordError::SequenceUsed)
			} else if sequence >= lowest + SEQUENCE_WINDOW {
				Err(RecordError::SequenceTooFar)
			} else {
				Ok(())
			};
			prop_assert_eq!(payer.next, lowest);
			prop_assert_eq!(payer.take(sequence), expected);
			if expected.is_ok() {
				taken.insert(sequence);
			}
		}
	}
}

#[test]
fn payer_should_stay_while_open_batches_refer_to_it() {
	build_and_execute(|| {
		fund();
		let view = start_one(0);
		block_at(60);
		// Refunded, but not sealed.
		assert_ok!(Ledger::withdraw(signed(0), 50 * PCR));
		assert_eq!(again(&view).id, view.id);
		go_sealing(0);
		assert!(Ledger::payer(&developer(0)).is_some());
		assert_ok!(Ledger::withdraw(signed(0), 0));
		assert!(Ledger::payer(&developer(0)).is_none());
	});
}
