//! Lists that are withheld: a demand, and the openings a Host posts to meet it.
//!
//! Hosts that together hold [`DEMAND_SHARE`] percent of the consensus weight, or anyone for a deposit, make a Host post
//! the openings of its sampled positions on chain, within `D`. What it posts can be challenged like any position, a
//! little longer. The deposit comes back if the Host fails, and is lost if it posts everything.

use alloc::vec::Vec;
use frame_support::{traits::Get, BoundedVec};
use pacer_sprint::Opening;
use pacer_types::{
	duty::{CallKind, DutyHeader, Rejection, DEMAND_SHARE, MAX_POSTED},
	traits::{DutyAuth, EpochWeights, SlotSource},
	AccountId, DutySignature, EpochIndex,
};
use sp_core::ConstU32;
use sp_runtime::transaction_validity::{TransactionValidityError, ValidTransaction};

use crate::{
	refusal::{need, not_done, Refusal},
	Asked, Config, Demand, Demands, Deposit, Due, DueKey, Event, Matter, Pallet, Party, Question,
};

type Judged = Result<ValidTransaction, TransactionValidityError>;

/// Openings of one call.
pub type Posted = BoundedVec<Opening, ConstU32<MAX_POSTED>>;

impl<T: Config> Pallet<T> {
	pub(crate) fn authorize_demand(
		header: &DutyHeader,
		subject: &AccountId,
		with_deposit: bool,
		signature: &DutySignature,
	) -> Judged {
		let body = (subject, with_deposit);
		T::Auth::authorize_once(CallKind::DemandList, header, &body, &body, signature, || {
			let by = Party { who: header.host.clone(), wallet: false };
			Self::check_demand(header.epoch, &by, subject, with_deposit).map_err(Into::into)
		})
	}

	pub(crate) fn check_demand(race: EpochIndex, by: &Party, subject: &AccountId, with_deposit: bool) -> Result<(), Refusal> {
		let question = if with_deposit { Question::List } else { Question::Voice };
		not_done(Asked::<T>::contains_key(race, (&by.who, subject, question)))?;
		not_done(Demands::<T>::get(race, subject).is_some_and(|demand| demand.deadline.is_some()))?;
		need(by.who != *subject, Rejection::NotEntitled)?;
		let windows = Self::windows(race).ok_or(Rejection::WrongPhase)?;
		need(T::Slots::slot() <= windows.demand, Rejection::WrongPhase)?;
		Self::commitment(race, subject)?;
		need(Self::sampled(race, subject).is_some(), Rejection::UnknownSubject)?;
		if with_deposit {
			need(Self::can_lock(by, T::ChallengeDeposit::get()), Rejection::BondTooSmall)
		} else {
			need(Self::weight(race, &by.who).is_some(), Rejection::NotEntitled)
		}
	}

	/// Raises a voice for a demand, or makes it alone. Whatever comes of it, the question is noted as asked.
	pub(crate) fn do_demand(race: EpochIndex, by: Party, subject: AccountId, with_deposit: bool) {
		let question = if with_deposit { Question::List } else { Question::Voice };
		Asked::<T>::insert(race, (&by.who, &subject, question), ());
		let mut demand = Demands::<T>::get(race, &subject).unwrap_or_default();
		let amount = T::ChallengeDeposit::get();
		let strong = if with_deposit {
			if Self::lock_deposit(&by, amount).is_err() {
				return;
			}
			demand.deposit = Some(Deposit { by: by.clone(), amount });
			true
		} else {
			let weight = Self::weight(race, &by.who).map_or(0, |w| w.consensus);
			demand.weight = demand.weight.saturating_add(weight);
			let all = Self::total_consensus(race).saturating_mul(DEMAND_SHARE);
			demand.weight.saturating_mul(100) >= all
		};
		if let (true, Some(windows)) = (strong, Self::windows(race)) {
			let deadline = windows.deadline(T::Slots::slot());
			demand.deadline = Some(deadline);
			Due::<T>::insert(DueKey::new(deadline, Matter::Demand(race, subject.clone())), ());
			Self::deposit_event(Event::ListDemanded { race, subject: subject.clone(), by: by.who, deadline });
		}
		Demands::<T>::insert(race, &subject, demand);
	}

	pub(crate) fn authorize_post(header: &DutyHeader, openings: &Posted, signature: &DutySignature) -> Judged {
		let first = openings.first().map(|opening| opening.position);
		T::Auth::authorize_once(CallKind::PostOpenings, header, &first, &(openings,), signature, || {
			Self::check_post(header.epoch, &header.host, openings).map_err(Into::into)
		})
	}

	fn check_post(race: EpochIndex, host: &AccountId, openings: &Posted) -> Result<(), Refusal> {
		// What costs nothing comes first: without an open demand nobody makes the chain hash.
		let demand = Demands::<T>::get(race, host).ok_or(Rejection::UnknownSubject)?;
		not_done(openings.iter().any(|opening| demand.has(opening.position)))?;
		let deadline = demand.deadline.ok_or(Rejection::UnknownSubject)?;
		need(!demand.closed, Rejection::UnknownSubject)?;
		need(T::Slots::slot() <= deadline, Rejection::WrongPhase)?;
		let ascending = openings.windows(2).all(|pair| matches!(pair, [a, b] if a.position < b.position));
		need(!openings.is_empty() && ascending, Rejection::Malformed)?;
		let commit = Self::commitment(race, host)?;
		let sampled: Vec<u32> = Self::sampled(race, host).ok_or(Rejection::UnknownSubject)?;
		let fits = |opening: &Opening| {
			sampled.binary_search(&opening.position).is_ok() && opening.verify(&commit.root.0, commit.count).is_ok()
		};
		need(openings.iter().all(fits), Rejection::Malformed)
	}

	/// Keeps what was posted; with the last sampled position the demand is met.
	pub(crate) fn do_post(race: EpochIndex, subject: AccountId, openings: &Posted) {
		let Some(mut demand) = Demands::<T>::get(race, &subject).filter(Demand::is_open) else { return };
		for opening in openings {
			if let Err(at) = demand.posted.binary_search_by_key(&opening.position, |(position, _)| *position) {
				// Only sampled positions came here, and there is room for all of them.
				let _ = demand.posted.try_insert(at, (opening.position, opening.nonce));
			}
		}
		let missing =
			Self::sampled(race, &subject).map_or(0, |sampled| sampled.iter().filter(|position| !demand.has(**position)).count());
		let deposit = if missing == 0 { Self::close_demand(race, &subject, &mut demand) } else { None };
		if let Some(deposit) = deposit {
			Self::burn_deposit(&deposit);
		}
		Demands::<T>::insert(race, &subject, demand);
		let missing = u32::try_from(missing).unwrap_or(u32::MAX);
		Self::deposit_event(Event::ListPosted { race, subject, missing });
	}

	/// The demand needs no deadline any more; returns the deposit that is to be settled.
	pub(crate) fn close_demand(race: EpochIndex, subject: &AccountId, demand: &mut Demand) -> Option<Deposit> {
		if let Some(deadline) = demand.deadline {
			Due::<T>::remove(DueKey::new(deadline, Matter::Demand(race, subject.clone())));
		}
		demand.closed = true;
		demand.deposit.take()
	}
}
