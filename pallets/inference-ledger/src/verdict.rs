//! Verdicts: validators record what they found about results.

use alloc::collections::BTreeMap;
use frame_support::traits::Get;
use pacer_types::{
	duty::CallKind,
	ledger::{BatchKey, Verdict, VerdictRecord},
	traits::{EpochClock, EpochWeights, HostRegistry, Standing},
	AccountId, EpochIndex, ModelId, Moment,
};

use crate::*;

impl<T: Config> Pallet<T> {
	/// The work weight with which a Host may judge answers of a model in an epoch: it has weight, serves the model, and
	/// is not excluded.
	pub(crate) fn judging_weight(epoch: EpochIndex, model: ModelId, who: &AccountId) -> Option<u64> {
		let work = T::Weights::weight(epoch, who)?.work;
		(work > 0 && T::Hosts::serves(who, model) && !T::Standing::is_excluded(epoch, who)).then_some(work)
	}

	pub(crate) fn record_verdicts(validator: AccountId, records: Records<VerdictRecord>) {
		let now = T::Clock::now();
		let mut batches: BTreeMap<BatchKey, Batch> = BTreeMap::new();
		for VerdictRecord { batch: key, index, verdict } in records {
			if !batches.contains_key(&key) {
				if let Some(batch) = Batches::<T>::get(&key) {
					batches.insert(key.clone(), batch);
				}
			}
			let accepted = match batches.get_mut(&key) {
				Some(batch) => Self::accept_verdict(&validator, &key, batch, index, &verdict, &now),
				None => Err(RecordError::UnknownInference),
			};
			if let Err(reason) = accepted {
				Self::reject(CallKind::VerdictMany, &validator, &key, index, reason);
			}
		}
		for (key, batch) in batches {
			Batches::<T>::insert(key, batch);
		}
	}

	fn accept_verdict(
		validator: &AccountId,
		key: &BatchKey,
		batch: &mut Batch,
		index: u16,
		verdict: &Verdict,
		now: &Moment,
	) -> Result<(), RecordError> {
		let entry = batch.entry(index).ok_or(RecordError::UnknownInference)?;
		let (model, executor) = (entry.start.model, entry.executor);
		let executor = batch.person(executor).ok_or(RecordError::UnknownInference)?.clone();
		let finished = batch.finished(index).ok_or(RecordError::NotFinished)?;
		if finished.recheck == RecheckState::Failed {
			return Err(RecordError::AlreadyFailed);
		}
		if now.slot >= finished.at.saturating_add(T::VerdictWindow::get()) {
			return Err(RecordError::WindowClosed);
		}
		let opens = finished.recheck == RecheckState::Never && !verdict.is_pass();
		if !T::AllowSelf::get() && (*validator == executor || *validator == key.ta) {
			return Err(RecordError::NotEntitled);
		}
		Self::judging_weight(batch.epoch, model, validator).ok_or(RecordError::NotEntitled)?;
		if opens && RecheckQueue::<T>::decode_len().unwrap_or(0) >= MAX_RECHECKS as usize {
			return Err(RecordError::TooManyRechecks);
		}
		let person = batch.index_of(validator).ok_or(RecordError::TooManyVerdicts)?;
		let epoch = batch.epoch;
		let passed = verdict.is_pass();
		let Some(finished) = batch.finished_mut(index) else { return Err(RecordError::NotFinished) };
		if finished.verdicts.iter().any(|(who, _)| *who == person) {
			return Err(RecordError::AlreadyJudged);
		}
		finished.verdicts.try_push((person, passed)).map_err(|_| RecordError::TooManyVerdicts)?;
		let recheck = finished.recheck;
		let note = passed && !finished.noted && recheck != RecheckState::Open;
		finished.noted |= note;
		batch.changed_at = now.slot;

		Self::note_work(epoch, validator, |work| work.verified = work.verified.saturating_add(1));
		if passed {
			Self::note_totals(epoch, |totals| totals.verified = totals.verified.saturating_add(1));
		}
		if note {
			T::Standing::note_check(epoch, &executor, true);
		}
		Self::deposit_event(Event::Judged { batch: key.clone(), index, validator: validator.clone(), passed });
		let inference = InferenceKey { batch: key.clone(), index };
		// A statistic or a silent executor is no evidence of fraud: where that is claimed, such a verdict does not vote.
		if opens {
			Self::open_recheck(inference, batch, model, executor, *verdict == Verdict::Fraud, now);
		} else if recheck == RecheckState::Open && Self::decides(&inference, verdict) {
			Self::cast_vote(&inference, batch, validator, passed);
		}
		Ok(())
	}

	/// Whether a verdict speaks to what is claimed in a running re-verification.
	fn decides(inference: &InferenceKey, verdict: &Verdict) -> bool {
		matches!(verdict, Verdict::Pass | Verdict::Fraud) || !Rechecks::<T>::get(inference).is_some_and(|recheck| recheck.fraud)
	}
}
