//! What others may know: views for the runtime API, and the trait [`WorkRecord`].

use alloc::vec::Vec;
use frame_support::traits::{fungible::Inspect, Get};
use pacer_types::{
	ledger::{BatchKey, EpochTotals, InferenceStatus, InferenceView, ModelView},
	traits::{EpochClock, WorkCounts, WorkRecord},
	views::PayerView,
	AccountId, Balance, EpochIndex, InferenceId, ModelId, Slot,
};
use sp_core::sr25519;

use crate::*;

/// Where the ledger's money is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerBalance {
	/// What Developers have, free and reserved.
	pub escrow: Balance,
	/// What the pot holds beyond its minimum balance.
	pub held: Balance,
	/// Whether the pot holds all of it. More than that is a gift.
	pub ok: bool,
}

impl<T: Config> WorkRecord for Pallet<T> {
	fn counts(epoch: EpochIndex, who: &AccountId) -> WorkCounts {
		Work::<T>::get(epoch, who)
	}

	fn paid_inferences(epoch: EpochIndex) -> u32 {
		let totals = Totals::<T>::get(epoch);
		totals.finished.saturating_sub(totals.failed)
	}
}

impl<T: Config> Pallet<T> {
	/// Registered models and their prices.
	pub fn models() -> Vec<ModelView> {
		(0..ModelCount::<T>::get())
			.filter_map(|id| {
				let model = Models::<T>::get(id)?;
				Some(ModelView {
					id,
					name: model.name.into_inner(),
					weights_hash: model.weights_hash,
					prompt_price: model.prompt_price,
					completion_price: model.completion_price,
				})
			})
			.collect()
	}

	/// Thresholds of a model, as the engine encoded them.
	pub fn thresholds(model: ModelId) -> Option<Vec<u8>> {
		Models::<T>::get(model).map(|model| model.thresholds.into_inner())
	}

	/// A Developer as the payer of requests it signs.
	pub fn payer(developer: &AccountId) -> Option<PayerView> {
		Self::payer_of(developer, None)
	}

	/// The payer of a Developer's signed requests, or of its API keys at a transfer agent.
	pub fn payer_of(developer: &AccountId, ta: Option<&AccountId>) -> Option<PayerView> {
		let index = PayerIndex::<T>::get((developer, ta))?;
		let payer = Payers::<T>::get(index)?;
		let account = Accounts::<T>::get(developer)?;
		Some(PayerView {
			index,
			account: payer.developer,
			salt: payer.salt.unwrap_or_default(),
			free: account.free,
			reserved: account.reserved,
			next_sequence: payer.next,
		})
	}

	/// The keys that may sign requests for a Developer, beside its own.
	pub fn request_keys(developer: &AccountId) -> Vec<sr25519::Public> {
		Accounts::<T>::get(developer).map(|account| account.request_keys.into_inner()).unwrap_or_default()
	}

	/// What is left of an allowance in this epoch.
	pub fn allowance(developer: &AccountId, ta: &AccountId) -> Balance {
		let Some(allowance) = Allowances::<T>::get(developer, ta) else { return 0 };
		let spent = if allowance.epoch == T::Clock::epoch() { allowance.spent } else { 0 };
		allowance.cap.saturating_sub(spent)
	}

	/// The value with which executors are drawn in this epoch.
	pub fn draw_seed() -> [u8; 32] {
		DrawSeed::<T>::get()
	}

	/// The executor that the chain would draw now, and the inference's id.
	pub fn draw_executor(
		ta: &AccountId,
		payer: u32,
		sequence: u32,
		model: ModelId,
		attempt: u8,
	) -> Option<(InferenceId, AccountId)> {
		let id = Self::id_of(&Payers::<T>::get(payer)?, sequence)?;
		let executor = Self::draw(&id, attempt, ta, &Self::candidates(T::Clock::epoch(), model))?;
		Some((id, executor))
	}

	/// The inferences of an open batch.
	pub fn batch(key: &BatchKey) -> Vec<InferenceView> {
		let Some(batch) = Batches::<T>::get(key) else { return Vec::new() };
		(0..batch.entries.len() as u16).filter_map(|index| Self::view(key, &batch, index)).collect()
	}

	/// An inference by its id, while its batch is open. Looks through all batches, newest first.
	pub fn inference(id: InferenceId) -> Option<InferenceView> {
		let places = FirstPlace::<T>::get()..NextPlace::<T>::get();
		places.rev().filter_map(Self::batch_at).find_map(|(key, batch)| {
			(0..batch.entries.len() as u16).filter_map(|index| Self::view(&key, &batch, index)).find(|view| view.id == id)
		})
	}

	/// Batches that are not sealed, oldest first.
	pub fn open_batches() -> Vec<BatchKey> {
		(FirstPlace::<T>::get()..NextPlace::<T>::get()).filter_map(Places::<T>::get).collect()
	}

	/// Open batches that changed in or after a slot, oldest first: for agents that follow the chain.
	pub fn recent_batches(since: Slot) -> Vec<BatchKey> {
		(FirstPlace::<T>::get()..NextPlace::<T>::get())
			.filter_map(Self::batch_at)
			.filter(|(_, batch)| batch.changed_at >= since)
			.map(|(key, _)| key)
			.collect()
	}

	/// Running re-verifications: batch, position, whether fraud is claimed, and the deadline.
	pub fn open_rechecks() -> Vec<(BatchKey, u16, bool, Slot)> {
		RecheckQueue::<T>::get()
			.into_iter()
			.filter_map(|(deadline, key)| {
				let fraud = Rechecks::<T>::get(&key)?.fraud;
				Some((key.batch, key.index, fraud, deadline))
			})
			.collect()
	}

	/// Sums over the inferences of an epoch.
	pub fn totals(epoch: EpochIndex) -> EpochTotals {
		Totals::<T>::get(epoch)
	}

	/// Where the ledger's money is.
	pub fn conservation() -> LedgerBalance {
		let escrow = Accounts::<T>::iter_values()
			.fold(0u128, |sum, account| sum.saturating_add(account.free).saturating_add(account.reserved));
		let balance = T::Currency::total_balance(&Self::pot());
		let held = balance.saturating_sub(T::Currency::minimum_balance());
		LedgerBalance { escrow, held, ok: held >= escrow && balance >= T::Currency::minimum_balance() }
	}

	fn view(key: &BatchKey, batch: &Batch, index: u16) -> Option<InferenceView> {
		let entry = batch.entry(index)?;
		let payer = Payers::<T>::get(entry.start.payer)?;
		let finished = batch.finished(index);
		let status = match &entry.progress {
			Progress::Started => InferenceStatus::Started,
			Progress::Expired => InferenceStatus::Expired,
			Progress::Finished(f) => match f.recheck {
				RecheckState::Open => InferenceStatus::Reverifying,
				RecheckState::Failed => InferenceStatus::Failed,
				RecheckState::Never | RecheckState::Passed => InferenceStatus::Finished,
			},
		};
		let verdicts = finished
			.map(|f| f.verdicts.iter().filter_map(|(who, passed)| Some((batch.person(*who)?.clone(), *passed))).collect());
		Some(InferenceView {
			id: Self::id_of(&payer, entry.start.sequence)?,
			batch: key.clone(),
			index,
			epoch: batch.epoch,
			started_at: batch.started_at,
			payer: payer.developer,
			executor: batch.person(entry.executor)?.clone(),
			start: entry.start.clone(),
			finish: finished.map(|f| f.record.clone()),
			cost: finished.map_or(0, |f| f.cost),
			verify_ppb: finished.map_or(0, |f| f.verify_ppb),
			verdicts: verdicts.unwrap_or_default(),
			status,
		})
	}

	/// Whether a Host may be transfer agent, executor and validator at once here.
	pub fn allows_self() -> bool {
		T::AllowSelf::get()
	}
}
