//! What duty keys may say in a race: commits, and votes on counts.

use frame_support::traits::Get;
use pacer_types::{
	duty::{CallKind, DutyHeader, Lane, Rejection},
	traits::{Beacon, BeaconValue, DutyAuth, EpochClock, HostBonds, HostRegistry},
	AccountId, Balance, DutySignature, EpochIndex, Hash, Phase,
};
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction};

use crate::{Commitment, Commits, Config, CountJudge, Event, Judge, Pallet, Skips, Tallies, Weights};

type Judged<T> = Result<T, TransactionValidityError>;

fn need(holds: bool, otherwise: Rejection) -> Judged<()> {
	if holds {
		Ok(())
	} else {
		Err(InvalidTransaction::from(otherwise).into())
	}
}

impl<T: Config> Pallet<T> {
	/// What a claim of `count` nonces locks.
	pub fn bond_for(count: u32) -> Balance {
		T::BondPerCount::get().saturating_mul(Balance::from(count))
	}

	pub(crate) fn authorize_commit(
		source: TransactionSource,
		header: &DutyHeader,
		count: u32,
		root: &Hash,
		signature: &DutySignature,
	) -> Judged<ValidTransaction> {
		T::Auth::authorize_lane(source, CallKind::Commit, Lane::Consensus, header, &(count, *root), signature, || {
			let (host, epoch) = (&header.host, header.epoch);
			need(count > 0 && count <= T::MaxCount::get(), Rejection::Malformed)?;
			need(Self::phase() == Phase::Race && !Skips::<T>::contains_key(epoch), Rejection::WrongPhase)?;
			need(T::Beacon::value(epoch, BeaconValue::Race).is_some(), Rejection::UnknownSubject)?;
			// Registered before Deal and not leaving are part of the same question.
			need(T::Hosts::may_race(host, epoch), Rejection::NoHeartbeat)?;
			let locked = Commits::<T>::get(epoch, host).map_or(0, |commit| commit.bond);
			need(Self::bond_for(count) <= T::Bonds::free_bond(host).saturating_add(locked), Rejection::BondTooSmall)
		})
	}

	/// Replaces the Host's commitment and the bond locked for it.
	pub(crate) fn do_commit(header: DutyHeader, count: u32, root: Hash) {
		let DutyHeader { host, epoch, .. } = header;
		let (bond, locked) = (Self::bond_for(count), Commits::<T>::get(epoch, &host).map_or(0, |commit| commit.bond));
		if bond > locked {
			if T::Bonds::lock(&host, bond.saturating_sub(locked)).is_err() {
				Self::deposit_event(Event::CommitDropped { epoch, host, count });
				return;
			}
		} else {
			T::Bonds::release(&host, locked.saturating_sub(bond));
		}
		Commits::<T>::insert(epoch, &host, Commitment { count, root, bond });
		Self::deposit_event(Event::Committed { epoch, host, count, root });
	}

	/// Place of the Host in the epoch's list of weights, and its consensus weight.
	fn place_of(epoch: EpochIndex, who: &AccountId) -> Option<(u32, u64)> {
		let list = Weights::<T>::get(epoch)?;
		let at = list.binary_search_by(|w| w.host.cmp(who)).ok()?;
		Some((u32::try_from(at).ok()?, list.get(at)?.consensus))
	}

	pub(crate) fn authorize_vote(
		header: &DutyHeader,
		subject: &AccountId,
		stands: bool,
		signature: &DutySignature,
	) -> Judged<ValidTransaction> {
		T::Auth::authorize_once(CallKind::VoteCount, header, subject, &(subject, stands), signature, || {
			let epoch = header.epoch;
			let place = Self::place_of(epoch, &header.host);
			if let (Some((place, _)), Some(tally)) = (place, Tallies::<T>::get(epoch, subject)) {
				if tally.has_voted(place) {
					return Err(InvalidTransaction::Stale.into());
				}
			}
			need(Self::phase() == Phase::Audit, Rejection::WrongPhase)?;
			need(T::Beacon::value(epoch, BeaconValue::Audit).is_some(), Rejection::UnknownSubject)?;
			need(Commits::<T>::contains_key(epoch, subject), Rejection::UnknownSubject)?;
			need(place.is_some(), Rejection::NotEntitled)?;
			need(&header.host != subject || T::AllowSelf::get(), Rejection::NotEntitled)
		})
	}

	/// Counts the vote. Whoever was authorized has a place; without one nothing happens.
	pub(crate) fn do_vote(header: DutyHeader, subject: AccountId, stands: bool) {
		let DutyHeader { host: voter, epoch, .. } = header;
		let Some((place, weight)) = Self::place_of(epoch, &voter) else { return };
		let before = Judge::<T>::verdict(epoch, &subject).struck;
		let counted = Tallies::<T>::mutate(epoch, &subject, |slot| {
			let tally = slot.get_or_insert_with(Default::default);
			if !tally.note(place) {
				return false;
			}
			let side = if stands { &mut tally.stands } else { &mut tally.refuted };
			*side = side.saturating_add(weight);
			true
		});
		if !counted {
			return;
		}
		Self::deposit_event(Event::CountJudged { epoch, voter, subject: subject.clone(), stands, weight });
		if !before && Judge::<T>::verdict(epoch, &subject).struck {
			Self::deposit_event(Event::CountRefuted { epoch, subject });
		}
	}
}
