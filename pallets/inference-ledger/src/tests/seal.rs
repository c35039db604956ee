//! Sealing: who is paid, which duties were missed, what remains.

use frame_support::{assert_noop, assert_ok, traits::fungible::Inspect};
use pacer_types::{ledger::InferenceStatus, traits::WorkRecord};

use super::*;
use crate::{seal::merkle_root, Batches, Error, SealedBatches, Totals, Work};

/// All Hosts revealed seeds, of which these oblige them to verify the inference.
fn reveal(view: &InferenceView, drawn: &[AccountId]) {
	for n in 0..4 {
		let who = host(n);
		let weights = [10u64, 20, 30, 40];
		let executor = (0..4).find(|e| host(*e) == view.executor).unwrap();
		let ppb = pacer_duty::share_ppb(view.verify_ppb, weights[usize::from(n)], 100, weights[usize::from(executor)]);
		let seed = (0u8..=255)
			.map(|byte| [byte; 32])
			.find(|seed| pacer_duty::is_drawn(seed, &view.id, ppb) == drawn.contains(&who))
			.expect("one of so many seeds does it");
		world(|w| w.seeds.insert((view.epoch, who), seed));
	}
}

#[test]
fn passed_inference_should_pay_executor_and_drawn_validators() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		let [drawn, volunteer] = <[AccountId; 2]>::try_from(judges(&view)).unwrap();
		reveal(&view, &[drawn.clone()]);
		for who in [&drawn, &volunteer] {
			send(verdicts(who, vec![verdict(&view, Verdict::Pass)]));
		}
		let before = Balances::balance(&rewards_account());
		go_sealing(0);
		assert_eq!(world(|w| w.payments.clone()), vec![(0, vec![view.executor.clone(), drawn.clone()], PCR)]);
		assert_eq!(Balances::balance(&rewards_account()), before + PCR);
		assert_eq!((free(), reserved()), (49 * PCR, 0));
		assert_eq!((Ledger::counts(0, &drawn).verified, Ledger::counts(0, &volunteer).verified), (1, 0));
		assert!(Ledger::batch(&view.batch).is_empty() && Ledger::open_batches().is_empty());
		let sealed = SealedBatches::<Test>::get(0, &view.batch).unwrap();
		assert_eq!((sealed.count, sealed.paid, sealed.refunded), (1, PCR, 0));
	});
}

#[test]
fn missed_duties_should_be_counted_when_the_seed_obliged() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		let [silent, idle] = <[AccountId; 2]>::try_from(judges(&view)).unwrap();
		// Executor and transfer agent owe nothing, whatever their seeds say.
		reveal(&view, &[silent.clone(), view.executor.clone(), host(0)]);
		go_sealing(0);
		assert_eq!(Ledger::counts(0, &silent).missed_duties, 1);
		for who in [&idle, &view.executor, &host(0)] {
			assert_eq!(Ledger::counts(0, who).missed_duties, 0);
		}
	});
}

#[test]
fn batch_should_not_be_sealed_before_its_time() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		let seal = || Ledger::seal(RuntimeOrigin::signed(developer(2)), view.batch.clone());
		assert_noop!(seal(), Error::<Test>::NotReady);
		block_at(100);
		assert_noop!(seal(), Error::<Test>::NotReady);
		// The last session of Audit, and Switch.
		block_at(319);
		assert_noop!(seal(), Error::<Test>::NotReady);
		world(|w| w.slot = 352);
		assert_noop!(seal(), Error::<Test>::NotReady);
		world(|w| w.slot = 320);
		assert_ok!(seal());
		assert_noop!(seal(), Error::<Test>::UnknownBatch);
		assert_eq!(world(|w| w.payments.len()), 1);
	});
}

#[test]
fn batch_should_wait_for_results_windows_and_rechecks() {
	build_and_execute(|| {
		fund();
		block_at(319);
		let hanging = start_one(0);
		let fresh = finish_one(1);
		let contested = finish_one(2);
		let judge = judges(&contested).remove(0);
		send(verdicts(&judge, vec![verdict(&contested, Verdict::Withheld)]));
		let statuses = |views: [&InferenceView; 3]| views.map(|v| Ledger::batch(&v.batch).first().map(|v| v.status));
		use InferenceStatus::*;
		block_at(349);
		next_block(1);
		assert_eq!(statuses([&hanging, &fresh, &contested]), [Some(Started), Some(Finished), Some(Reverifying)]);
		assert!(world(|w| w.payments.is_empty()));
		// Switch settles rewards: nothing is paid then. The next epoch pays what came late.
		block_at(370);
		next_block(1);
		assert_eq!(statuses([&hanging, &fresh, &contested]), [Some(Expired), Some(Finished), Some(Finished)]);
		block_at(384);
		next_block(1);
		assert_eq!(statuses([&hanging, &fresh, &contested]), [None, None, None]);
		assert_eq!(world(|w| w.payments.iter().map(|(epoch, ..)| *epoch).collect::<Vec<_>>()), vec![1, 1]);
		assert_eq!(SealedBatches::<Test>::iter_prefix(0).count(), 3);
	});
}

#[test]
fn inference_should_be_refunded_when_its_executor_was_excluded() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		world(|w| w.excluded.push((0, view.executor.clone())));
		go_sealing(0);
		assert!(world(|w| w.payments.is_empty()));
		assert_eq!((free(), reserved()), (50 * PCR, 0));
		assert_eq!(Ledger::totals(0).refunded, 1);
		assert_eq!(SealedBatches::<Test>::get(0, &view.batch).unwrap().refunded, PCR);
	});
}

#[test]
fn inference_should_be_refunded_when_paying_fails() {
	build_and_execute(|| {
		fund();
		let view = finish_one(0);
		world(|w| w.payments_fail = true);
		go_sealing(0);
		assert_eq!((free(), reserved()), (50 * PCR, 0));
		assert!(Ledger::batch(&view.batch).is_empty());
	});
}

#[test]
fn old_records_should_be_forgotten_two_epochs_later() {
	build_and_execute(|| {
		fund();
		finish_one(0);
		go_sealing(0);
		for epoch in 1..4u64 {
			block_at(epoch * 384);
			next_block(1);
			next_block(1);
			assert_eq!(Totals::<Test>::contains_key(0), epoch < 3, "epoch {epoch}");
			assert_eq!(SealedBatches::<Test>::iter().count(), usize::from(epoch < 3));
			assert_eq!(Work::<Test>::iter_prefix(0).count() > 0, epoch < 3);
		}
		assert!(Batches::<Test>::iter().next().is_none());
	});
}

#[test]
fn state_should_stay_flat_over_many_epochs() {
	build_and_execute(|| {
		let mut keys = vec![];
		for epoch in 0..12u64 {
			block_at(epoch * 384 + 2);
			if epoch == 0 {
				fund();
			}
			for n in 0..3 {
				let sequence = epoch as u32 * 3 + n;
				if n == 0 {
					start_one(sequence)
				} else {
					finish_one(sequence)
				};
			}
			block_at(epoch * 384 + 60);
			go_sealing(epoch);
			keys.push(storage_keys());
		}
		assert!(keys[11] <= keys[5], "{keys:?}");
	});
}

/// Number of keys in the pallet's storage.
fn storage_keys() -> usize {
	let prefix = sp_io::hashing::twox_128(b"Ledger").to_vec();
	let mut last = prefix.clone();
	let mut count = 0;
	while let Some(next) = sp_io::storage::next_key(&last).filter(|key| key.starts_with(&prefix)) {
		count += 1;
		last = next;
	}
	count
}

#[test]
fn merkle_root_should_depend_on_every_leaf_and_its_place() {
	let leaves: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n]).collect();
	let root = merkle_root(&leaves);
	for n in 0..5 {
		let mut other = leaves.clone();
		other[n] = vec![9];
		assert_ne!(merkle_root(&other), root);
		other = leaves.clone();
		other.swap(n, (n + 1) % 5);
		assert_ne!(merkle_root(&other), root);
	}
	assert_ne!(merkle_root(&leaves[..4]), root);
	assert_eq!(merkle_root(&[]), Hash::zero());
}
