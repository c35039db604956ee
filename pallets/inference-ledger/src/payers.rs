//! Models, deposits and payers: who pays, and from what.

use codec::Encode;
use frame_support::{
	ensure,
	traits::{fungible::Mutate, tokens::Preservation, Get},
	weights::Weight,
	BoundedVec,
};
use frame_system::pallet_prelude::BlockNumberFor;
use pacer_types::{
	duty::blake2_256,
	ids::MICRO_PCR,
	ledger::{StartRecord, MAX_MODELS},
	traits::{Beacon, HostRegistry},
	AccountId, Balance, EpochIndex, Hash, ModelId,
};
use sp_core::sr25519;
use sp_runtime::{
	traits::{AccountIdConversion, SaturatedConversion},
	DispatchError, DispatchResult,
};

use crate::*;

/// Domain of payers' salts.
const SALT_DOMAIN: &[u8; 19] = b"pacer/payer-salt/v1";

/// The most a record lets its inference cost.
pub(crate) fn max_cost(start: &StartRecord) -> Balance {
	Balance::from(start.max_cost_micro).saturating_mul(MICRO_PCR)
}

impl<T: Config> Pallet<T> {
	/// The account that holds all deposits.
	pub fn pot() -> AccountId {
		T::PalletId::get().into_account_truncating()
	}

	/// Hash of the first block, part of every inference id.
	pub(crate) fn genesis_hash() -> Hash {
		frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default())
	}

	pub(crate) fn insert_model(info: ModelInfo) -> Result<ModelId, DispatchError> {
		let id = ModelCount::<T>::get();
		ensure!(id < MAX_MODELS, Error::<T>::TooManyModels);
		let taken = Models::<T>::iter_values().any(|model| model.name == info.name);
		ensure!(!taken && !info.name.is_empty(), Error::<T>::BadModelName);
		Models::<T>::insert(id, info);
		ModelCount::<T>::put(id.saturating_add(1));
		Ok(id)
	}

	pub(crate) fn do_fund(developer: AccountId, amount: Balance) -> DispatchResult {
		ensure!(amount >= T::MinDeposit::get(), Error::<T>::DepositTooSmall);
		T::Currency::transfer(&developer, &Self::pot(), amount, Preservation::Preserve)?;
		let mut account = Accounts::<T>::get(&developer).unwrap_or_default();
		account.free = account.free.saturating_add(amount);
		Self::ensure_payer(&mut account, &developer, None)?;
		Accounts::<T>::insert(&developer, account);
		Self::deposit_event(Event::Funded { developer, amount });
		Ok(())
	}

	pub(crate) fn do_withdraw(developer: AccountId, amount: Balance) -> DispatchResult {
		let mut account = Accounts::<T>::get(&developer).ok_or(Error::<T>::NoAccount)?;
		account.free = account.free.checked_sub(amount).ok_or(Error::<T>::NotFree)?;
		// The pot keeps its minimum balance, so the transfer never takes more than deposits.
		T::Currency::transfer(&Self::pot(), &developer, amount, Preservation::Preserve)?;
		// Open batches refer to payers, also where nothing is reserved any more.
		if account.free == 0 && account.reserved == 0 && account.open == 0 {
			for index in account.payers {
				let Some(payer) = Payers::<T>::take(index) else { continue };
				if let Some(ta) = &payer.ta {
					Allowances::<T>::remove(&developer, ta);
				}
				PayerIndex::<T>::remove((payer.developer, payer.ta));
			}
			Accounts::<T>::remove(&developer);
		} else {
			Accounts::<T>::insert(&developer, account);
		}
		Self::deposit_event(Event::Withdrawn { developer, amount });
		Ok(())
	}

	pub(crate) fn do_allow(developer: AccountId, ta: AccountId, cap: Balance) -> DispatchResult {
		ensure!(T::Hosts::is_host(&ta), Error::<T>::NotHost);
		let mut account = Accounts::<T>::get(&developer).ok_or(Error::<T>::NoAccount)?;
		Self::ensure_payer(&mut account, &developer, Some(&ta))?;
		Accounts::<T>::insert(&developer, account);
		Allowances::<T>::mutate(&developer, &ta, |allowance| match allowance {
			Some(allowance) => allowance.cap = cap,
			None => *allowance = Some(Allowance { cap, epoch: 0, spent: 0 }),
		});
		Self::deposit_event(Event::Allowed { developer, ta, cap_per_epoch: cap });
		Ok(())
	}

	pub(crate) fn set_request_key(developer: AccountId, key: sr25519::Public, active: bool) -> DispatchResult {
		Accounts::<T>::try_mutate(&developer, |account| -> DispatchResult {
			let account = account.as_mut().ok_or(Error::<T>::NoAccount)?;
			let at = account.request_keys.iter().position(|k| *k == key);
			match (active, at) {
				(true, Some(_)) => return Err(Error::<T>::KeyTwice.into()),
				(true, None) => account.request_keys.try_push(key).map_err(|_| Error::<T>::TooMany)?,
				(false, None) => return Err(Error::<T>::UnknownKey.into()),
				(false, Some(at)) => {
					account.request_keys.remove(at);
				}
			}
			Ok(())
		})?;
		Self::deposit_event(Event::RequestKeySet { developer, key, active });
		Ok(())
	}

	/// Makes the payer if there is none yet; it waits for its salt.
	fn ensure_payer(account: &mut Account, developer: &AccountId, ta: Option<&AccountId>) -> DispatchResult {
		let key = (developer.clone(), ta.cloned());
		if PayerIndex::<T>::contains_key(&key) {
			return Ok(());
		}
		let index = NextPayer::<T>::get();
		account.payers.try_push(index).map_err(|_| Error::<T>::TooMany)?;
		let made_at = frame_system::Pallet::<T>::block_number().saturated_into();
		UnsaltedPayers::<T>::try_append(Unsalted { payer: index, made_at }).map_err(|()| Error::<T>::TooManyNewPayers)?;
		NextPayer::<T>::put(index.checked_add(1).ok_or(Error::<T>::TooMany)?);
		PayerIndex::<T>::insert(&key, index);
		Payers::<T>::insert(index, Payer { developer: key.0, ta: key.1, salt: None, next: 0, used: 0 });
		Ok(())
	}

	/// Gives payers their salt: from the hash of a block after the one that made them, and the newest beacon value.
	pub(crate) fn salt_payers(now: BlockNumberFor<T>) -> Weight {
		let db = T::DbWeight::get();
		let waiting = UnsaltedPayers::<T>::get();
		if waiting.is_empty() {
			return db.reads(1);
		}
		let now: u32 = now.saturated_into();
		let parent = frame_system::Pallet::<T>::parent_hash();
		let beacon = T::Beacon::latest();
		let (ready, later): (alloc::vec::Vec<_>, alloc::vec::Vec<_>) =
			waiting.into_iter().partition(|w| now >= w.made_at.saturating_add(2));
		for Unsalted { payer, .. } in &ready {
			let salt = Hash::from((SALT_DOMAIN, parent, beacon, payer).using_encoded(blake2_256));
			Payers::<T>::mutate(payer, |entry| {
				// It may have been withdrawn meanwhile.
				if let Some(entry) = entry {
					entry.salt = Some(salt);
					Self::deposit_event(Event::PayerReady { payer: *payer, salt });
				}
			});
		}
		UnsaltedPayers::<T>::put(BoundedVec::truncate_from(later));
		let n = ready.len() as u64;
		db.reads_writes(n.saturating_add(3), n.saturating_add(1))
	}

	/// Reserves the maximum cost of an inference that is recorded, within the allowance if there is one.
	pub(crate) fn reserve(payer: &Payer, amount: Balance, epoch: EpochIndex) -> Result<(), RecordError> {
		let mut account = Accounts::<T>::get(&payer.developer).ok_or(RecordError::DepositTooSmall)?;
		account.free = account.free.checked_sub(amount).ok_or(RecordError::DepositTooSmall)?;
		account.reserved = account.reserved.saturating_add(amount);
		account.open = account.open.saturating_add(1);
		if let Some(ta) = &payer.ta {
			let mut allowance = Allowances::<T>::get(&payer.developer, ta).ok_or(RecordError::NoAllowance)?;
			if allowance.epoch != epoch {
				(allowance.epoch, allowance.spent) = (epoch, 0);
			}
			allowance.spent = allowance.spent.saturating_add(amount);
			if allowance.spent > allowance.cap {
				return Err(RecordError::OverAllowance);
			}
			Allowances::<T>::insert(&payer.developer, ta, allowance);
		}
		Accounts::<T>::insert(&payer.developer, account);
		Ok(())
	}

	/// Returns a reservation, of an inference of `epoch`, to the free deposit and to the allowance of that epoch.
	pub(crate) fn unreserve(payer: u32, amount: Balance, epoch: EpochIndex) {
		let Some(payer) = Payers::<T>::get(payer) else { return };
		Accounts::<T>::mutate(&payer.developer, |account| {
			if let Some(account) = account {
				let amount = amount.min(account.reserved);
				account.reserved = account.reserved.saturating_sub(amount);
				account.free = account.free.saturating_add(amount);
			}
		});
		if let Some(ta) = &payer.ta {
			Allowances::<T>::mutate(&payer.developer, ta, |allowance| {
				if let Some(allowance) = allowance.as_mut().filter(|a| a.epoch == epoch) {
					allowance.spent = allowance.spent.saturating_sub(amount);
				}
			});
		}
	}

	/// An inference of the payer is no longer in an open batch.
	pub(crate) fn release(payer: &Payer) {
		Accounts::<T>::mutate(&payer.developer, |account| {
			if let Some(account) = account {
				account.open = account.open.saturating_sub(1);
			}
		});
	}

	/// Forgets a reservation whose money left the pot.
	pub(crate) fn spend(payer: u32, amount: Balance) {
		let Some(payer) = Payers::<T>::get(payer) else { return };
		Accounts::<T>::mutate(&payer.developer, |account| {
			if let Some(account) = account {
				account.reserved = account.reserved.saturating_sub(amount);
			}
		});
	}
}
