//! Dealings: what members may send in Deal, and what of it counts.

use core::cell::LazyCell;

use codec::{Encode, Output};
use pacer_beacon::{Dealing, Sum, THRESHOLD};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	duty::{CallKind, DutyHeader, Rejection},
	node_key,
	traits::{BeaconValue, DutyAuth, EpochClock},
	AccountId, EpochIndex, Hash, Moment, Phase,
};
use sp_runtime::transaction_validity::{InvalidTransaction, ValidTransaction};

use crate::{
	committee::{bytes, committee_hash, find, live_slots, need, Judged},
	Config, DealingBytes, Dealings, Dealt, Event, Members, Pallet, Rounds, SumBytes, Sums,
};

/// What the signature of a dealing is for: the hash of the committee that it was made for, and both values' bytes.
struct SignedDealing<'a, F> {
	members: &'a LazyCell<Members, F>,
	race: &'a DealingBytes,
	audit: &'a DealingBytes,
}

impl<F: FnOnce() -> Members> Encode for SignedDealing<'_, F> {
	fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
		(committee_hash(self.members), self.race, self.audit).encode_to(out);
	}
}

impl<T: Config> Pallet<T> {
	/// Whether members may deal now.
	pub(crate) fn may_deal(now: &Moment) -> bool {
		let open = Rounds::<T>::get(now.epoch).filter(|r| r.keys_fixed && r.dealing_closed.is_none());
		match now.phase {
			Phase::Deal => open.is_some(),
			Phase::SpareDeal => open.is_some_and(|round| round.repeated),
			_ => false,
		}
	}

	/// Whether the Host has used its turn to deal.
	pub(crate) fn has_dealt(epoch: EpochIndex, host: &AccountId) -> bool {
		Dealings::<T>::contains_key(epoch, host) || Self::was_rejected(epoch, host, BeaconDuty::Deal)
	}

	pub(crate) fn authorize_deal(
		header: &DutyHeader,
		key: &node_key::Public,
		race: &DealingBytes,
		audit: &DealingBytes,
		signature: &node_key::Signature,
	) -> Judged<ValidTransaction> {
		// Read and hashed only once the header and the key are those of a Host.
		let members = LazyCell::new(|| Self::committee(header.epoch));
		let body = SignedDealing { members: &members, race, audit };
		T::Auth::authorize_node(CallKind::Deal, header, key, &(), &body, signature, || {
			let (epoch, host) = (header.epoch, &header.host);
			if Self::has_dealt(epoch, host) {
				return Err(InvalidTransaction::Stale.into());
			}
			need(Self::may_deal(&T::Clock::now()), Rejection::WrongPhase)?;
			need(find(&members, host).is_some_and(|m| m.key.is_some()), Rejection::NotEntitled)?;
			let size = Dealing::size(live_slots(&members), THRESHOLD);
			need(race.len() == size && audit.len() == size, Rejection::Malformed)
		})
	}

	/// Adds both dealings to the sums if both hold, else notes that they do not.
	pub(crate) fn do_deal(header: DutyHeader, race: &[u8], audit: &[u8]) {
		let DutyHeader { host, epoch, .. } = header;
		match Self::verified(epoch, &host, race, audit) {
			Ok((dealt, sums)) => {
				let [race, audit] = sums;
				Sums::<T>::insert((epoch, BeaconValue::Race), race);
				Sums::<T>::insert((epoch, BeaconValue::Audit), audit);
				Dealings::<T>::insert(epoch, &host, dealt);
				Self::deposit_event(Event::Dealt { epoch, host });
			}
			Err(fault) => Self::reject(epoch, host, BeaconDuty::Deal, fault),
		}
	}

	/// What is stored of two dealings that hold: their hashes, and the sums with them.
	fn verified(epoch: EpochIndex, host: &AccountId, race: &[u8], audit: &[u8]) -> Result<(Dealt, [SumBytes; 2]), BeaconFault> {
		let members = Self::committee(epoch);
		let live = live_slots(&members);
		// Both before any proof: what does not decode costs little.
		let decode = |bytes| Dealing::decode(bytes, live, THRESHOLD).map_err(|_| BeaconFault::Malformed);
		let (race, audit) = (decode(race)?, decode(audit)?);
		// There is one: Deal began, so enough slots are live.
		let committee = Self::protocol_committee(&members).ok_or(BeaconFault::WrongProof)?;
		let add = |which, dealing: &Dealing| {
			let context = Self::context(epoch, which);
			context.verify_dealing(&committee, &bytes(host), dealing).map_err(|_| BeaconFault::WrongProof)?;
			// Both hold for what `fix_keys` and this function stored.
			let mut sum = Self::sum(epoch, which, live).ok_or(BeaconFault::WrongProof)?;
			sum.add(dealing).map_err(|_| BeaconFault::WrongProof)?;
			Ok(SumBytes::truncate_from(sum.encode()))
		};
		let sums = [add(BeaconValue::Race, &race)?, add(BeaconValue::Audit, &audit)?];
		Ok((Dealt { race: Hash::from(race.hash()), audit: Hash::from(audit.hash()) }, sums))
	}

	/// The sum of the dealings so far; `None` before Deal, and where too few keys ended it.
	pub(crate) fn sum(epoch: EpochIndex, which: BeaconValue, live: u32) -> Option<Sum> {
		Sum::decode(&Sums::<T>::get((epoch, which))?, live).ok()
	}
}
