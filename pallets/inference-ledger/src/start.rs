//! Starts: a transfer agent records the inferences it passed on, and the chain draws their executors.

use alloc::{collections::BTreeMap, vec::Vec};
use codec::Encode;
use frame_support::{traits::Get, weights::Weight, BoundedVec};
use pacer_types::{
	duty::{CallKind, DutyHeader, Rejection},
	ledger::{BatchKey, StartRecord, MAX_ATTEMPT},
	traits::{Beacon, DutyAuth, EpochClock, EpochWeights, HostRegistry, Standing},
	AccountId, DutySignature, EpochIndex, InferenceId, Lane, ModelId,
};
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityWithRefund};

use crate::{payers::max_cost, *};

/// Candidates per model, looked up once per batch.
type Candidates = BTreeMap<ModelId, Vec<(AccountId, u64)>>;

impl<T: Config> Pallet<T> {
	/// Judges a transaction of records of any kind.
	pub(crate) fn authorize_records<R: Encode + Clone>(
		source: TransactionSource,
		kind: CallKind,
		header: &DutyHeader,
		records: &Records<R>,
		signature: &DutySignature,
	) -> TransactionValidityWithRefund {
		T::Auth::authorize_lane(source, kind, Lane::Ledger, header, &(records,), signature, || {
			if records.is_empty() {
				return Err(InvalidTransaction::from(Rejection::Malformed).into());
			}
			Ok(())
		})
		.map(|valid| (valid, Weight::zero()))
	}

	/// On the first block of an epoch: fixes the seed of draws, and the limit of the volume from what the last epoch's
	/// volume was in the end.
	pub(crate) fn enter_epoch(epoch: EpochIndex) -> Weight {
		let db = T::DbWeight::get();
		let last = CurrentEpoch::<T>::get();
		if last == Some(epoch) {
			return db.reads(1);
		}
		if let Some(last) = last {
			VolumeLimit::<T>::put(pacer_duty::volume_limit(Self::volume(last)));
		} else {
			VolumeLimit::<T>::put(pacer_duty::volume_limit(0));
		}
		DrawSeed::<T>::put(T::Beacon::latest());
		CurrentEpoch::<T>::put(epoch);
		db.reads_writes(5, 3)
	}

	/// The inference's id, once the payer has its salt.
	pub(crate) fn id_of(payer: &Payer, sequence: u32) -> Option<InferenceId> {
		let account = pacer_duty::payer_account(&payer.developer, payer.ta.as_ref());
		Some(pacer_duty::inference_id(&Self::genesis_hash(), &account, &payer.salt?, sequence))
	}

	/// Hosts that may execute inferences of a model, sorted by account, with their work weights.
	pub fn candidates(epoch: EpochIndex, model: ModelId) -> Vec<(AccountId, u64)> {
		T::Weights::weights(epoch)
			.into_iter()
			.filter(|w| w.work > 0 && T::Hosts::serves(&w.host, model) && !T::Standing::is_excluded(epoch, &w.host))
			.map(|w| (w.host, w.work))
			.collect()
	}

	pub(crate) fn draw(id: &InferenceId, attempt: u8, ta: &AccountId, candidates: &[(AccountId, u64)]) -> Option<AccountId> {
		pacer_duty::draw_executor(id, &DrawSeed::<T>::get(), attempt, ta, candidates, T::AllowSelf::get())
	}

	pub(crate) fn record_starts(ta: AccountId, records: Records<StartRecord>) {
		let now = T::Clock::now();
		let number = NextBatch::<T>::get(&ta);
		NextBatch::<T>::insert(&ta, number.saturating_add(1));
		let key = BatchKey { ta: ta.clone(), number };
		let place = NextPlace::<T>::get();
		let mut batch = Batch {
			epoch: now.epoch,
			started_at: now.slot,
			changed_at: now.slot,
			closes_at: now.slot,
			place,
			unfinished: 0,
			rechecks: 0,
			people: BoundedVec::new(),
			entries: BoundedVec::new(),
		};
		let mut candidates = Candidates::new();
		let mut entries = Vec::new();
		for (index, start) in records.into_iter().enumerate() {
			match Self::accept_start(&ta, &mut batch, start, &mut candidates) {
				Ok(entry) => {
					batch.unfinished = batch.unfinished.saturating_add(1);
					entries.push(Some(entry));
				}
				Err(reason) => {
					Self::reject(CallKind::StartMany, &ta, &key, index as u16, reason);
					entries.push(None);
				}
			}
		}
		let accepted = batch.unfinished;
		if accepted > 0 {
			batch.entries = BoundedVec::truncate_from(entries);
			Batches::<T>::insert(&key, batch);
			Places::<T>::insert(place, &key);
			NextPlace::<T>::put(place.saturating_add(1));
			OpenRecords::<T>::mutate(|n| *n = n.saturating_add(accepted.into()));
			Self::note_totals(now.epoch, |totals| totals.started = totals.started.saturating_add(accepted.into()));
		}
		Self::deposit_event(Event::BatchStarted { batch: key, accepted });
	}

	/// Checks a start, cheapest first, and reserves its maximum cost. Changes nothing unless it is accepted.
	fn accept_start(
		ta: &AccountId,
		batch: &mut Batch,
		start: StartRecord,
		candidates: &mut Candidates,
	) -> Result<Entry, RecordError> {
		if start.attempt > MAX_ATTEMPT {
			return Err(RecordError::TooManyAttempts);
		}
		if OpenRecords::<T>::get().saturating_add(batch.unfinished.into()) >= MAX_OPEN_RECORDS {
			return Err(RecordError::LedgerFull);
		}
		let mut payer = Payers::<T>::get(start.payer).ok_or(RecordError::UnknownPayer)?;
		if payer.ta.as_ref().is_some_and(|owner| owner != ta) {
			return Err(RecordError::ForeignPayer);
		}
		if !Models::<T>::contains_key(start.model) {
			return Err(RecordError::UnknownModel);
		}
		let id = Self::id_of(&payer, start.sequence).ok_or(RecordError::PayerNotReady)?;
		payer.take(start.sequence)?;
		let epoch = batch.epoch;
		let hosts = candidates.entry(start.model).or_insert_with(|| Self::candidates(epoch, start.model));
		let executor = Self::draw(&id, start.attempt, ta, hosts).ok_or(RecordError::NoExecutor)?;
		let index = batch.index_of(&executor).ok_or(RecordError::NoExecutor)?;
		Self::reserve(&payer, max_cost(&start), epoch)?;
		Payers::<T>::insert(start.payer, payer);
		Self::note_work(epoch, &executor, |work| work.assigned = work.assigned.saturating_add(1));
		Ok(Entry { start, executor: index, progress: Progress::Started })
	}

	pub(crate) fn reject(kind: CallKind, host: &AccountId, batch: &BatchKey, index: u16, reason: RecordError) {
		Self::deposit_event(Event::RecordRejected { kind, host: host.clone(), batch: batch.clone(), index, reason });
	}
}
