//! Re-verification: all Hosts that serve the model vote by work weight, without the executor's.
//!
//! Verdicts that were recorded before or come during the vote count as votes. More than half of the weight decides; an
//! undecided recheck passes. A confirmed fail refunds the Developer and is evidence against the executor; a confirmed
//! claim of fraud excludes it.

use alloc::vec::Vec;
use frame_support::{traits::Get, weights::Weight, BoundedVec};
use pacer_types::{
	duty::{CallKind, DutyHeader, Rejection},
	ledger::BatchKey,
	traits::{Bounties, DutyAuth, EpochWeights, Standing},
	AccountId, DutySignature, ModelId, Moment, Slot,
};
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError, TransactionValidityWithRefund};

use crate::*;

impl<T: Config> Pallet<T> {
	/// Opens a recheck; the caller made sure that there is room, and recorded the failing verdict.
	pub(crate) fn open_recheck(
		key: InferenceKey,
		batch: &mut Batch,
		model: ModelId,
		subject: AccountId,
		fraud: bool,
		now: &Moment,
	) {
		let others: u128 = T::Weights::weights(batch.epoch)
			.iter()
			.filter(|w| w.host != subject)
			.filter_map(|w| Self::judging_weight(batch.epoch, model, &w.host))
			.fold(0, |sum, w| sum.saturating_add(w.into()));
		// A network of one Host votes about itself.
		let own = || Self::judging_weight(batch.epoch, model, &subject).unwrap_or(0).into();
		let electorate = if others == 0 && T::AllowSelf::get() { own() } else { others };
		let deadline = now.slot.saturating_add(T::VoteWindow::get());
		let recheck = Recheck {
			epoch: batch.epoch,
			model,
			subject,
			fraud,
			deadline,
			electorate,
			pass: 0,
			fail: 0,
			votes: BoundedVec::new(),
		};
		if RecheckQueue::<T>::try_append((deadline, key.clone())).is_err() {
			return;
		}
		Rechecks::<T>::insert(&key, recheck);
		batch.rechecks = batch.rechecks.saturating_add(1);
		let Some(finished) = batch.finished_mut(key.index) else { return };
		finished.recheck = RecheckState::Open;
		let verdicts = finished.verdicts.clone();
		Self::deposit_event(Event::RecheckOpened { batch: key.batch.clone(), index: key.index, fraud, deadline });
		for (person, passed) in verdicts {
			if let Some(who) = batch.person(person).cloned() {
				Self::cast_vote(&key, batch, &who, passed);
			}
		}
	}

	/// The weight with which a Host may vote.
	fn ballot(recheck: &Recheck, who: &AccountId) -> Option<u64> {
		let weight = Self::judging_weight(recheck.epoch, recheck.model, who)?;
		let alone = T::AllowSelf::get() && recheck.electorate == u128::from(weight);
		(recheck.subject != *who || alone).then_some(weight)
	}

	/// Counts a vote, if the Host has one and did not use it, and closes the recheck if that decides it.
	pub(crate) fn cast_vote(key: &InferenceKey, batch: &mut Batch, who: &AccountId, pass: bool) {
		let Some(mut recheck) = Rechecks::<T>::get(key) else { return };
		let Some(weight) = Self::ballot(&recheck, who) else { return };
		if recheck.votes.iter().any(|(voter, _)| voter == who) || recheck.votes.try_push((who.clone(), pass)).is_err() {
			return;
		}
		let side = if pass { &mut recheck.pass } else { &mut recheck.fail };
		*side = side.saturating_add(weight.into());
		Self::deposit_event(Event::Voted { batch: key.batch.clone(), index: key.index, host: who.clone(), pass });
		let decides = |side: u128| side.saturating_mul(2) > recheck.electorate;
		if decides(recheck.fail) {
			Self::close_recheck(key, batch, &recheck, Outcome::Failed);
		} else if decides(recheck.pass) {
			Self::close_recheck(key, batch, &recheck, Outcome::Passed);
		} else {
			Rechecks::<T>::insert(key, recheck);
		}
	}

	fn close_recheck(key: &InferenceKey, batch: &mut Batch, recheck: &Recheck, outcome: Outcome) {
		Rechecks::<T>::remove(key);
		RecheckQueue::<T>::mutate(|queue| queue.retain(|(_, open)| open != key));
		batch.rechecks = batch.rechecks.saturating_sub(1);
		let epoch = batch.epoch;
		let payer = batch.entry(key.index).map(|entry| entry.start.payer);
		let Some(finished) = batch.finished_mut(key.index) else { return };
		if outcome == Outcome::Failed {
			finished.recheck = RecheckState::Failed;
			let cost = finished.cost;
			let exposers = finished.verdicts.clone();
			let exposers: Vec<AccountId> =
				exposers.iter().filter(|(_, passed)| !passed).filter_map(|(who, _)| batch.person(*who).cloned()).collect();
			if let Some(payer) = payer {
				Self::unreserve(payer, cost, epoch);
			}
			Self::note_totals(epoch, |totals| {
				totals.failed = totals.failed.saturating_add(1);
				totals.refunded = totals.refunded.saturating_add(1);
			});
			if recheck.fraud {
				T::Standing::note_fraud(epoch, &recheck.subject);
				T::Bounties::note_exposed(epoch, &exposers);
			} else {
				T::Standing::note_check(epoch, &recheck.subject, false);
			}
		} else {
			finished.recheck = RecheckState::Passed;
			if !finished.noted {
				finished.noted = true;
				T::Standing::note_check(epoch, &recheck.subject, true);
			}
		}
		Self::deposit_event(Event::RecheckClosed { batch: key.batch.clone(), index: key.index, outcome });
	}

	/// Lets rechecks pass that nobody decided in time.
	pub(crate) fn close_overdue_rechecks(slot: Slot) -> Weight {
		let db = T::DbWeight::get();
		let overdue: Vec<InferenceKey> =
			RecheckQueue::<T>::get().into_iter().take_while(|(deadline, _)| slot >= *deadline).map(|(_, key)| key).collect();
		for key in &overdue {
			let (Some(mut batch), Some(recheck)) = (Batches::<T>::get(&key.batch), Rechecks::<T>::get(key)) else { continue };
			batch.changed_at = slot;
			Self::close_recheck(key, &mut batch, &recheck, Outcome::Undecided);
			Batches::<T>::insert(&key.batch, batch);
		}
		db.reads(1).saturating_add(T::WeightInfo::vote_inference().saturating_mul(overdue.len() as u64))
	}

	/// Judges a vote: the recheck runs, the Host may vote, and did not yet.
	pub(crate) fn authorize_vote(
		header: &DutyHeader,
		batch: &BatchKey,
		index: u16,
		pass: bool,
		signature: &DutySignature,
	) -> TransactionValidityWithRefund {
		let subject = (batch, index);
		let body = (batch, index, pass);
		T::Auth::authorize_once(CallKind::VoteInference, header, &subject, &body, signature, || {
			Self::check_vote(&header.host, &InferenceKey { batch: batch.clone(), index })
		})
		.map(|valid| (valid, Weight::zero()))
	}

	fn check_vote(host: &AccountId, key: &InferenceKey) -> Result<(), TransactionValidityError> {
		let stale = Err(InvalidTransaction::Stale.into());
		let refuse = |why: Rejection| Err(InvalidTransaction::from(why).into());
		let Some(recheck) = Rechecks::<T>::get(key) else {
			// Decided and perhaps sealed, or never opened.
			let decided = match Batches::<T>::get(&key.batch) {
				Some(batch) => batch.finished(key.index).is_some_and(|f| f.recheck != RecheckState::Never),
				None => key.batch.number < NextBatch::<T>::get(&key.batch.ta),
			};
			return if decided { stale } else { refuse(Rejection::UnknownSubject) };
		};
		if recheck.votes.iter().any(|(voter, _)| voter == host) {
			return stale;
		}
		if Self::ballot(&recheck, host).is_none() {
			return refuse(Rejection::NotEntitled);
		}
		Ok(())
	}

	pub(crate) fn record_vote(host: AccountId, key: InferenceKey, pass: bool) {
		if let Some(mut batch) = Batches::<T>::get(&key.batch) {
			Self::cast_vote(&key, &mut batch, &host, pass);
			Batches::<T>::insert(&key.batch, batch);
		}
	}
}
