//! The door for what duty keys and node keys sign, and the other traits this pallet implements.

use alloc::vec::Vec;
use codec::Encode;
use frame_support::pallet_prelude::*;
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader, Lane, Rejection, MAX_VALIDITY_SLOTS, NONCE_WINDOW},
	node_key,
	traits::{DutyAuth, EpochClock, EpochWeights, HostBonds, HostRegistry, NodeKeyOwner},
	AccountId, Balance, DutyKey, DutySignature, EpochIndex, ModelId, Moment,
};
use sp_runtime::{
	traits::Verify,
	transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction},
	DispatchResult, RuntimeAppPublic,
};

use crate::{Config, Error, Heartbeats, HostInfo, Hosts, Locked, Nonces, Pallet};

type Judged<T> = Result<T, TransactionValidityError>;

fn reject<T>(why: Rejection) -> Judged<T> {
	Err(InvalidTransaction::from(why).into())
}

impl<T: Config> Pallet<T> {
	/// The checks that every payload must pass before anything is verified.
	fn check_header(header: &DutyHeader, now: &Moment) -> Judged<HostInfo> {
		let Some(host) = Hosts::<T>::get(&header.host) else { return reject(Rejection::UnknownHost) };
		if header.epoch != now.epoch {
			return if header.epoch < now.epoch { Err(InvalidTransaction::Stale.into()) } else { reject(Rejection::WrongEpoch) };
		}
		if header.valid_until < now.slot {
			return Err(InvalidTransaction::Stale.into());
		}
		if header.valid_until > now.slot.saturating_add(MAX_VALIDITY_SLOTS) {
			return reject(Rejection::ValidTooLong);
		}
		Ok(host)
	}

	fn valid(
		kind: CallKind,
		header: &DutyHeader,
		now: &Moment,
		provides: Vec<u8>,
		requires: Option<Vec<u8>>,
	) -> ValidTransaction {
		ValidTransaction {
			priority: kind.priority(),
			requires: requires.into_iter().collect(),
			provides: alloc::vec![provides],
			// At most one block a slot, so it cannot outlive its last slot by much.
			longevity: header.valid_until.saturating_sub(now.slot).max(1),
			propagate: true,
		}
	}
}

impl<T: Config> DutyAuth for Pallet<T> {
	fn authorize_lane(
		source: TransactionSource,
		kind: CallKind,
		lane: Lane,
		header: &DutyHeader,
		body: &impl Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		let now = T::Clock::now();
		let host = Self::check_header(header, &now)?;
		let next = Nonces::<T>::get(&header.host, lane);
		if header.nonce < next {
			return Err(InvalidTransaction::Stale.into());
		}
		// A block holds nonces without gaps; the pool may keep a few that wait for the one before.
		if header.nonce >= next.saturating_add(NONCE_WINDOW) || (source == TransactionSource::InBlock && header.nonce > next) {
			return Err(InvalidTransaction::Future.into());
		}
		if lane != Lane::Consensus && T::Weights::weight(now.epoch, &header.host).is_none_or(|w| w.work == 0) {
			return reject(Rejection::NoQuota);
		}
		check()?;
		let message = signing_hash(&Self::genesis_hash(), header, kind, body);
		if !signature.verify(&message[..], &host.duty_key) {
			return Err(InvalidTransaction::BadProof.into());
		}
		let tag = |nonce: u64| (b"pacer/lane", lane, &header.host, nonce).encode();
		let requires = (header.nonce > next).then(|| tag(header.nonce.saturating_sub(1)));
		Ok(Self::valid(kind, header, &now, tag(header.nonce), requires))
	}

	fn authorize_once(
		kind: CallKind,
		header: &DutyHeader,
		subject: &impl Encode,
		body: &impl Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		let now = T::Clock::now();
		let host = Self::check_header(header, &now)?;
		if header.nonce != 0 {
			return reject(Rejection::Malformed);
		}
		check()?;
		let message = signing_hash(&Self::genesis_hash(), header, kind, body);
		if !signature.verify(&message[..], &host.duty_key) {
			return Err(InvalidTransaction::BadProof.into());
		}
		let tag = (b"pacer/once", kind, header.epoch, &header.host, subject).encode();
		Ok(Self::valid(kind, header, &now, tag, None))
	}

	fn authorize_node(
		kind: CallKind,
		header: &DutyHeader,
		key: &node_key::Public,
		subject: &impl Encode,
		body: &impl Encode,
		signature: &node_key::Signature,
		check: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		let now = T::Clock::now();
		Self::check_header(header, &now)?;
		if header.nonce != 0 {
			return reject(Rejection::Malformed);
		}
		if !Self::owns_node_key(&header.host, key) {
			return reject(Rejection::NotEntitled);
		}
		check()?;
		let message = signing_hash(&Self::genesis_hash(), header, kind, body);
		if !key.verify(&message, signature) {
			return Err(InvalidTransaction::BadProof.into());
		}
		let tag = (b"pacer/once", kind, header.epoch, &header.host, subject).encode();
		Ok(Self::valid(kind, header, &now, tag, None))
	}

	fn mark(lane: Lane, header: &DutyHeader) {
		Nonces::<T>::insert(&header.host, lane, header.nonce.saturating_add(1));
	}

	fn next_nonce(who: &AccountId, lane: Lane) -> u64 {
		Nonces::<T>::get(who, lane)
	}
}

impl<T: Config> HostRegistry for Pallet<T> {
	fn is_host(who: &AccountId) -> bool {
		Hosts::<T>::contains_key(who)
	}

	fn hosts() -> Vec<AccountId> {
		Hosts::<T>::iter_keys().collect()
	}

	fn duty_key(who: &AccountId) -> Option<DutyKey> {
		Hosts::<T>::get(who).map(|host| host.duty_key)
	}

	fn duty_key_for_seed(who: &AccountId, epoch: EpochIndex) -> Option<DutyKey> {
		let host = Hosts::<T>::get(who)?;
		if epoch >= host.seed_from {
			Some(host.duty_key)
		} else {
			host.previous_duty_key
		}
	}

	fn serves(who: &AccountId, model: ModelId) -> bool {
		Hosts::<T>::get(who).is_some_and(|host| host.models.contains(&model))
	}

	fn may_race(who: &AccountId, epoch: EpochIndex) -> bool {
		Heartbeats::<T>::contains_key(epoch, who)
			&& Hosts::<T>::get(who).is_some_and(|host| epoch >= host.races_from && host.withdraw_from.is_none())
	}

	fn owns_node_key(who: &AccountId, key: &node_key::Public) -> bool {
		T::NodeKeyOwner::owner(key).as_ref() == Some(who)
	}
}

impl<T: Config> HostBonds for Pallet<T> {
	fn free_bond(who: &AccountId) -> Balance {
		Hosts::<T>::get(who).map_or(0, |host| host.bond.saturating_sub(Locked::<T>::get(who)))
	}

	fn lock(who: &AccountId, amount: Balance) -> DispatchResult {
		ensure!(Self::free_bond(who) >= amount, Error::<T>::BondLocked);
		Locked::<T>::mutate(who, |locked| *locked = locked.saturating_add(amount));
		Ok(())
	}

	fn release(who: &AccountId, amount: Balance) {
		Locked::<T>::mutate_exists(who, |locked| {
			*locked = locked.map(|l| l.saturating_sub(amount)).filter(|l| *l > 0);
		});
	}

	fn forfeit(who: &AccountId, amount: Balance) -> Balance {
		Self::burn_bond(who, amount)
	}

	fn pay(who: &AccountId, amount: Balance, to: &AccountId) -> Balance {
		Self::pay_bond(who, amount, to)
	}
}
