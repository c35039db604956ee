//! Commits: what duty keys may say in a race.

use frame_support::traits::Get;
use pacer_types::{
	duty::{CallKind, DutyHeader, Lane, Rejection},
	traits::{Beacon, BeaconValue, DutyAuth, Earnings, EpochClock, HostBonds, HostRegistry, Standing},
	AccountId, Balance, DutySignature, EpochIndex, Hash, Phase,
};
use sp_runtime::transaction_validity::{TransactionSource, TransactionValidityError, ValidTransaction};

use crate::{refusal::need, Commitment, Commits, Config, Event, Pallet, Skips};

impl<T: Config> Pallet<T> {
	/// What a claim of `count` nonces must put at stake.
	pub fn stake_for(count: u32) -> Balance {
		T::BondPerCount::get().saturating_mul(Balance::from(count))
	}

	/// What a claim of `count` nonces locks of the Host's bond: its stake, less what the Host earned in the epoch so
	/// far, which a refuted count costs it as well and which nobody can claim before Switch.
	pub fn bond_for(epoch: EpochIndex, host: &AccountId, count: u32) -> Balance {
		let lost = T::Standing::is_excluded(epoch, host);
		let earned = if lost { 0 } else { T::Earnings::pending(epoch, host) };
		Self::stake_for(count).saturating_sub(earned)
	}

	pub(crate) fn authorize_commit(
		source: TransactionSource,
		header: &DutyHeader,
		count: u32,
		root: &Hash,
		signature: &DutySignature,
	) -> Result<ValidTransaction, TransactionValidityError> {
		T::Auth::authorize_lane(source, CallKind::Commit, Lane::Consensus, header, &(count, *root), signature, || {
			let (host, epoch) = (&header.host, header.epoch);
			need(count > 0 && count <= T::MaxCount::get(), Rejection::Malformed)?;
			need(Self::phase() == Phase::Race && !Skips::<T>::contains_key(epoch), Rejection::WrongPhase)?;
			need(T::Beacon::value(epoch, BeaconValue::Race).is_some(), Rejection::UnknownSubject)?;
			// Registered before Deal and not leaving are part of the same question.
			need(T::Hosts::may_race(host, epoch), Rejection::NoHeartbeat)?;
			let locked = Commits::<T>::get(epoch, host).map_or(0, |commit| commit.bond);
			let free = T::Bonds::free_bond(host).saturating_add(locked);
			need(Self::bond_for(epoch, host, count) <= free, Rejection::BondTooSmall)?;
			Ok(())
		})
	}

	/// Replaces the Host's commitment and the bond locked for it.
	pub(crate) fn do_commit(header: DutyHeader, count: u32, root: Hash) {
		let DutyHeader { host, epoch, .. } = header;
		let bond = Self::bond_for(epoch, &host, count);
		let locked = Commits::<T>::get(epoch, &host).map_or(0, |commit| commit.bond);
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
}
