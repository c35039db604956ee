//! Results: an executor records what it produced; the chain prices it and fixes the probability of verification.

use alloc::collections::BTreeMap;
use frame_support::{traits::Get, BoundedVec};
use pacer_types::{
	duty::CallKind,
	ledger::{BatchKey, FinishRecord},
	traits::{EpochClock, Standing, WorkRecord},
	AccountId, Balance, EpochIndex, Moment,
};

use crate::{payers::max_cost, *};

/// What the tokens cost, rounded down.
pub(crate) fn price(model: &ModelInfo, record: &FinishRecord) -> Balance {
	let prompt = model.prompt_price.saturating_mul(record.prompt_tokens.into());
	let completion = model.completion_price.saturating_mul(record.completion_tokens.into());
	prompt.saturating_add(completion) / 1_000
}

impl<T: Config> Pallet<T> {
	/// `T` of the current epoch, on which the probability of verification depends.
	pub(crate) fn volume(epoch: EpochIndex) -> u32 {
		let previous = epoch.checked_sub(1).map_or(0, Self::paid_inferences);
		pacer_duty::volume(previous, Self::paid_inferences(epoch), VolumeLimit::<T>::get())
	}

	/// Probability in ppb with which a result that `executor` records now is verified.
	pub fn verify_ppb(executor: &AccountId) -> u32 {
		pacer_duty::verify_ppb(Self::volume(T::Clock::epoch()), T::Standing::reputation(executor))
	}

	pub(crate) fn record_results(executor: AccountId, records: Records<(BatchKey, u16, FinishRecord)>) {
		let now = T::Clock::now();
		let mut batches: BTreeMap<BatchKey, Batch> = BTreeMap::new();
		for (key, index, record) in records {
			if !batches.contains_key(&key) {
				if let Some(batch) = Batches::<T>::get(&key) {
					batches.insert(key.clone(), batch);
				}
			}
			let accepted = match batches.get_mut(&key) {
				Some(batch) => Self::accept_result(&executor, batch, index, record, &now),
				None => Err(RecordError::UnknownInference),
			};
			match accepted {
				Ok((cost, verify_ppb)) => Self::deposit_event(Event::Finished { batch: key, index, cost, verify_ppb }),
				Err(reason) => Self::reject(CallKind::FinishMany, &executor, &key, index, reason),
			}
		}
		for (key, batch) in batches {
			Batches::<T>::insert(key, batch);
		}
	}

	/// Checks a result and settles its price: what the maximum exceeds it by is free again.
	fn accept_result(
		executor: &AccountId,
		batch: &mut Batch,
		index: u16,
		record: FinishRecord,
		now: &Moment,
	) -> Result<(Balance, u32), RecordError> {
		let entry = batch.entry(index).ok_or(RecordError::UnknownInference)?;
		if batch.person(entry.executor) != Some(executor) {
			return Err(RecordError::NotExecutor);
		}
		match entry.progress {
			Progress::Started => {}
			Progress::Expired => return Err(RecordError::Expired),
			Progress::Finished(_) => return Err(RecordError::AlreadyFinished),
		}
		if now.slot >= batch.started_at.saturating_add(T::ExpirySlots::get()) {
			return Err(RecordError::Expired);
		}
		let start = entry.start.clone();
		let model = Models::<T>::get(start.model).ok_or(RecordError::UnknownModel)?;
		let most = max_cost(&start);
		let cost = price(&model, &record).min(most);
		Self::unreserve(start.payer, most.saturating_sub(cost), batch.epoch);
		let verify_ppb = Self::verify_ppb(executor);
		let finished = Finished {
			record,
			cost,
			verify_ppb,
			at: now.slot,
			verdicts: BoundedVec::new(),
			noted: false,
			recheck: RecheckState::Never,
		};
		if let Some(entry) = batch.entry_mut(index) {
			entry.progress = Progress::Finished(finished);
		}
		batch.unfinished = batch.unfinished.saturating_sub(1);
		batch.changed_at = now.slot;
		batch.closes_at = batch.closes_at.max(now.slot.saturating_add(T::VerdictWindow::get()));
		Self::note_work(batch.epoch, executor, |work| work.executed = work.executed.saturating_add(1));
		Self::note_totals(batch.epoch, |totals| totals.finished = totals.finished.saturating_add(1));
		Ok((cost, verify_ppb))
	}
}
