//! The numbered invariants of the crate, checked by `try_state` and by tests.
#![cfg(any(test, feature = "try-runtime"))]

use alloc::collections::BTreeMap;
use frame_support::ensure;
use pacer_types::{traits::EpochClock, AccountId, Balance};
use sp_runtime::TryRuntimeError;

use crate::*;

impl<T: Config> Pallet<T> {
	/// Checks the numbered invariants of the crate.
	pub fn do_try_state() -> Result<(), TryRuntimeError> {
		ensure!(Self::conservation().ok, "1: the pot holds less than the deposits");
		Self::check_batches()?;
		Self::check_payers()?;
		let (epoch, pruned) = (T::Clock::epoch(), PrunedTo::<T>::get());
		ensure!(Work::<T>::iter_keys().all(|(e, _)| e >= pruned && e <= epoch), "6: old work counts");
		ensure!(Totals::<T>::iter_keys().all(|e| e >= pruned && e <= epoch), "6: old totals");
		ensure!(SealedBatches::<T>::iter_keys().all(|(e, _)| e >= pruned && e <= epoch), "6: old sealed batches");
		Ok(())
	}

	fn check_batches() -> Result<(), TryRuntimeError> {
		let mut reserved: BTreeMap<AccountId, (Balance, u32)> = BTreeMap::new();
		let (mut records, mut batches, mut rechecks) = (0u32, 0usize, 0usize);
		for (key, batch) in Batches::<T>::iter() {
			batches += 1;
			ensure!(Places::<T>::get(batch.place).as_ref() == Some(&key), "4: a batch is not at its place");
			ensure!((FirstPlace::<T>::get()..NextPlace::<T>::get()).contains(&batch.place), "4: a place is out of range");
			let (mut unfinished, mut open) = (0u16, 0u16);
			for (index, entry) in batch.entries.iter().enumerate() {
				let Some(entry) = entry else { continue };
				records += 1;
				let payer = Payers::<T>::get(entry.start.payer).ok_or("2: an inference without payer")?;
				let (own, open_of_account) = reserved.entry(payer.developer).or_default();
				*open_of_account += 1;
				match &entry.progress {
					Progress::Started => {
						unfinished += 1;
						*own += payers::max_cost(&entry.start);
					}
					Progress::Expired => {}
					Progress::Finished(f) => {
						if f.recheck != RecheckState::Failed {
							*own += f.cost;
						}
						if f.recheck == RecheckState::Open {
							open += 1;
							let key = InferenceKey { batch: key.clone(), index: index as u16 };
							ensure!(Rechecks::<T>::contains_key(key), "3: a recheck is missing");
						}
					}
				}
			}
			rechecks += usize::from(open);
			ensure!(unfinished == batch.unfinished && open == batch.rechecks, "3: a batch counts wrong");
		}
		ensure!(rechecks == Rechecks::<T>::iter().count(), "3: a recheck too many");
		ensure!(rechecks == RecheckQueue::<T>::get().len(), "3: the queue of rechecks is wrong");
		ensure!(records == OpenRecords::<T>::get(), "4: open records are counted wrong");
		ensure!(batches == Places::<T>::iter().count(), "4: a place without a batch");
		for (who, account) in Accounts::<T>::iter() {
			let (amount, open) = reserved.remove(&who).unwrap_or_default();
			ensure!(account.reserved == amount, "2: a reservation is wrong");
			ensure!(account.open == open, "2: an account counts its inferences wrong");
		}
		ensure!(reserved.is_empty(), "2: a reservation without account");
		Ok(())
	}

	fn check_payers() -> Result<(), TryRuntimeError> {
		let mut listed = 0usize;
		for (who, account) in Accounts::<T>::iter() {
			for index in account.payers {
				listed += 1;
				let payer = Payers::<T>::get(index).ok_or("5: a payer is missing")?;
				ensure!(payer.developer == who, "5: a payer of another account");
				ensure!(PayerIndex::<T>::get((&payer.developer, &payer.ta)) == Some(index), "5: the index is wrong");
			}
		}
		ensure!(listed == Payers::<T>::iter().count() && listed == PayerIndex::<T>::iter().count(), "5: a payer too many");
		Ok(())
	}
}
