//! Who is in the committee, with how many slots, and with which key.

use alloc::vec::Vec;
use codec::Encode;
use frame_system::pallet_prelude::BlockNumberFor;
use pacer_beacon::{seats, verify_key, Committee, Context, EncryptionKey, KeyProof, Seat, Which, SLOTS, THRESHOLD};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	duty::{blake2_256, CallKind, DutyHeader, Rejection},
	node_key,
	traits::{BeaconValue, DutyAuth, EpochClock, EpochWeights},
	AccountId, BlockNumber, EpochIndex, Hash, Phase,
};
use sp_runtime::{
	traits::{SaturatedConversion, Zero},
	transaction_validity::{InvalidTransaction, TransactionValidityError, ValidTransaction},
};

use crate::{Committees, Config, Event, Member, Members, Pallet, Rejections, Rounds};

pub(crate) type Judged<T> = Result<T, TransactionValidityError>;

/// Turns the transaction away unless this holds.
pub(crate) fn need(holds: bool, otherwise: Rejection) -> Judged<()> {
	if holds {
		Ok(())
	} else {
		Err(InvalidTransaction::from(otherwise).into())
	}
}

/// An account as the protocol names it.
pub(crate) fn bytes(host: &AccountId) -> [u8; 32] {
	host.clone().into()
}

/// The member with this account.
pub(crate) fn find<'a>(members: &'a Members, host: &AccountId) -> Option<&'a Member> {
	members.get(members.binary_search_by(|m| m.host.cmp(host)).ok()?)
}

/// What is signed of a committee with a dealing made for it: on a fork with another committee or other keys the signature
/// then says nothing, so what was dealt there cannot use up the member's turn here.
pub fn committee_hash(members: &Members) -> [u8; 32] {
	members.using_encoded(blake2_256)
}

/// Slots whose owner registered a key.
pub(crate) fn live_slots(members: &Members) -> u32 {
	members.iter().filter(|m| m.key.is_some()).fold(0, |sum, m| sum.saturating_add(m.slots))
}

impl<T: Config> Pallet<T> {
	/// Hash of the first block, part of everything that is signed and hashed.
	pub fn genesis_hash() -> Hash {
		frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::zero())
	}

	/// What the protocol binds a value to.
	pub fn context(epoch: EpochIndex, which: BeaconValue) -> Context {
		let which = match which {
			BeaconValue::Race => Which::Race,
			BeaconValue::Audit => Which::Audit,
		};
		Context { genesis: Self::genesis_hash().0, epoch, which }
	}

	pub(crate) fn height() -> BlockNumber {
		frame_system::Pallet::<T>::block_number().saturated_into()
	}

	/// The committee of an epoch; empty if it is unknown. Keys are final once Deal began.
	pub fn committee(epoch: EpochIndex) -> Members {
		Committees::<T>::get(epoch).unwrap_or_default()
	}

	/// The committee as the protocol takes it. `None` if fewer slots than the threshold are live.
	pub fn protocol_committee(members: &Members) -> Option<Committee> {
		let seat = |m: &Member| Seat { host: bytes(&m.host), slots: m.slots, key: m.key };
		Committee::new(members.iter().map(seat).collect(), THRESHOLD).ok()
	}

	/// The members that the weights of an epoch give, without keys.
	pub(crate) fn seated(epoch: EpochIndex) -> Members {
		let weights: Vec<([u8; 32], u64)> =
			T::Weights::weights(epoch).into_iter().filter(|w| w.consensus > 0).map(|w| (bytes(&w.host), w.consensus)).collect();
		let mut members: Vec<Member> = seats(&weights, SLOTS)
			.into_iter()
			.zip(weights)
			.filter(|(slots, _)| *slots > 0)
			.map(|(slots, (host, weight))| Member { host: host.into(), weight, slots, key: None })
			.collect();
		members.sort_unstable_by(|a, b| a.host.cmp(&b.host));
		Members::truncate_from(members)
	}

	/// Weight of the members for whom `holds` is true, and of all.
	pub(crate) fn weigh(members: &Members, holds: impl Fn(&AccountId) -> bool) -> (u64, u64) {
		members.iter().fold((0, 0), |(part, total): (u64, u64), m| {
			let counted = if holds(&m.host) { m.weight } else { 0 };
			(part.saturating_add(counted), total.saturating_add(m.weight))
		})
	}

	/// Whether something of the Host about this duty was rejected: its turn is used up.
	pub(crate) fn was_rejected(epoch: EpochIndex, host: &AccountId, duty: BeaconDuty) -> bool {
		Rejections::<T>::contains_key(epoch, (host, duty))
	}

	/// Notes that what the Host signed does not hold.
	pub(crate) fn reject(epoch: EpochIndex, host: AccountId, duty: BeaconDuty, fault: BeaconFault) {
		Rejections::<T>::insert(epoch, (&host, duty), fault);
		Self::deposit_event(match duty {
			BeaconDuty::Key => Event::KeyRejected { epoch, host, fault },
			BeaconDuty::Deal => Event::DealingRejected { epoch, host, fault },
			BeaconDuty::Open(which) => Event::OpeningRejected { epoch, which, host, fault },
		});
	}

	/// Whether keys may be registered in this phase.
	pub(crate) fn may_register(epoch: EpochIndex, phase: Phase) -> bool {
		phase < Phase::Deal && Rounds::<T>::get(epoch).is_some_and(|round| !round.keys_fixed)
	}

	pub(crate) fn authorize_register(
		header: &DutyHeader,
		key: &node_key::Public,
		encryption_key: &EncryptionKey,
		proof: &KeyProof,
		signature: &node_key::Signature,
	) -> Judged<ValidTransaction> {
		T::Auth::authorize_node(CallKind::RegisterKey, header, key, &(), &(encryption_key, proof), signature, || {
			let (epoch, host) = (header.epoch, &header.host);
			let members = Self::committee(epoch);
			let member = find(&members, host);
			if member.is_some_and(|m| m.key.is_some()) || Self::was_rejected(epoch, host, BeaconDuty::Key) {
				return Err(InvalidTransaction::Stale.into());
			}
			need(Self::may_register(epoch, T::Clock::phase()), Rejection::WrongPhase)?;
			need(member.is_some(), Rejection::NotEntitled)
		})
	}

	/// Notes the key if its proof holds, else that it does not.
	pub(crate) fn do_register(header: DutyHeader, encryption_key: EncryptionKey, proof: KeyProof) {
		let DutyHeader { host, epoch, .. } = header;
		if verify_key(&Self::genesis_hash().0, epoch, &bytes(&host), &encryption_key, &proof).is_err() {
			return Self::reject(epoch, host, BeaconDuty::Key, BeaconFault::WrongProof);
		}
		let mut members = Self::committee(epoch);
		if let Some(member) = members.iter_mut().find(|m| m.host == host) {
			member.key = Some(encryption_key);
		}
		Committees::<T>::insert(epoch, members);
		Self::deposit_event(Event::KeyRegistered { epoch, host });
	}
}
