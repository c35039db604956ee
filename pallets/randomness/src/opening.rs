//! Openings, and the values they make.

use alloc::vec::Vec;
use pacer_beacon::{interpolate, Opening, THRESHOLD};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	duty::{CallKind, DutyHeader, Rejection},
	node_key,
	traits::{BeaconValue, DutyAuth, EpochClock},
	AccountId, EpochIndex, Moment, Phase,
};
use sp_runtime::transaction_validity::{InvalidTransaction, ValidTransaction};

use crate::{
	committee::{bytes, find, live_slots, need, Judged},
	Config, Dealings, Event, Latest, OpeningBytes, Openings, Pallet, Rounds, Shares, ValueStatus, Values,
};

impl<T: Config> Pallet<T> {
	/// The value whose opening window it is.
	pub(crate) fn opening_now(now: &Moment) -> Option<BeaconValue> {
		if !now.in_opening_window(&T::Clock::params()) {
			return None;
		}
		Some(if now.phase == Phase::Open { BeaconValue::Race } else { BeaconValue::Audit })
	}

	/// Whether the Host has used its turn to open the value.
	pub(crate) fn has_opened(epoch: EpochIndex, which: BeaconValue, host: &AccountId) -> bool {
		Openings::<T>::contains_key((epoch, which), host) || Self::was_rejected(epoch, host, BeaconDuty::Open(which))
	}

	pub(crate) fn authorize_open(
		header: &DutyHeader,
		key: &node_key::Public,
		which: BeaconValue,
		opening: &OpeningBytes,
		signature: &node_key::Signature,
	) -> Judged<ValidTransaction> {
		T::Auth::authorize_node(CallKind::Open, header, key, &which, &(which, opening), signature, || {
			let (epoch, host) = (header.epoch, &header.host);
			if Self::has_opened(epoch, which, host) {
				return Err(InvalidTransaction::Stale.into());
			}
			need(Self::opening_now(&T::Clock::now()) == Some(which), Rejection::WrongPhase)?;
			need(Rounds::<T>::get(epoch).is_some_and(|round| round.can_open()), Rejection::UnknownSubject)?;
			let members = Self::committee(epoch);
			let member = find(&members, host).filter(|m| m.key.is_some());
			let member = member.ok_or(InvalidTransaction::from(Rejection::NotEntitled))?;
			need(opening.len() == Opening::size(member.slots), Rejection::Malformed)
		})
	}

	/// Notes the shares if their proof holds, else that it does not. With the share that reaches the threshold, the
	/// value is there. Returns whether that happened.
	pub(crate) fn do_open(header: DutyHeader, which: BeaconValue, opening: &[u8]) -> bool {
		let DutyHeader { host, epoch, .. } = header;
		let shares = match Self::opened(epoch, which, &host, opening) {
			Ok(shares) => shares,
			Err(fault) => {
				Self::reject(epoch, host, BeaconDuty::Open(which), fault);
				return false;
			}
		};
		let Some(mut round) = Rounds::<T>::get(epoch) else { return false };
		let slots = u32::try_from(shares.len()).unwrap_or(u32::MAX);
		Openings::<T>::insert((epoch, which), &host, shares);
		Self::deposit_event(Event::Opened { epoch, which, host, slots });
		let progress = round.progress_mut(which);
		progress.slots = progress.slots.saturating_add(slots);
		let enough = progress.status == ValueStatus::Waiting && progress.slots >= THRESHOLD;
		if enough {
			progress.status = Self::draw(epoch, which);
		}
		Rounds::<T>::insert(epoch, round);
		enough
	}

	/// The shares of an opening that holds.
	fn opened(epoch: EpochIndex, which: BeaconValue, host: &AccountId, opening: &[u8]) -> Result<Shares, BeaconFault> {
		let members = Self::committee(epoch);
		let slots = find(&members, host).map_or(0, |m| m.slots);
		let opening = Opening::decode(opening, slots).map_err(|_| BeaconFault::Malformed)?;
		// All of these are there: the dealing succeeded.
		let committee = Self::protocol_committee(&members).ok_or(BeaconFault::WrongProof)?;
		let sum = Self::sum(epoch, which, live_slots(&members)).ok_or(BeaconFault::WrongProof)?;
		let range = committee.slots_of(&bytes(host)).ok_or(BeaconFault::WrongProof)?;
		let context = Self::context(epoch, which);
		context.verify_opening(&committee, &sum, &bytes(host), &opening).map_err(|_| BeaconFault::WrongProof)?;
		Ok(Shares::truncate_from(range.zip(opening.shares()).collect()))
	}

	/// Stores the value that the openings make. They were checked, so there is one.
	fn draw(epoch: EpochIndex, which: BeaconValue) -> ValueStatus {
		let Some(value) = Self::compute(epoch, which, |shares| shares) else {
			log::error!(target: crate::LOG, "checked openings of epoch {epoch} make no {which:?} value");
			return ValueStatus::Waiting;
		};
		Values::<T>::insert((epoch, which), value);
		Latest::<T>::put((value, Self::height()));
		Self::deposit_event(Event::ValueDrawn { epoch, which, value });
		ValueStatus::Drawn
	}

	/// The value that the stored dealings and openings make; `choose` may leave out shares.
	pub(crate) fn compute(
		epoch: EpochIndex,
		which: BeaconValue,
		choose: impl FnOnce(Vec<(u32, [u8; 32])>) -> Vec<(u32, [u8; 32])>,
	) -> Option<[u8; 32]> {
		let mut dealings: Vec<_> =
			Dealings::<T>::iter_prefix(epoch).map(|(host, dealt)| (bytes(&host), dealt.of(which).0)).collect();
		dealings.sort_unstable();
		let mut shares: Vec<(u32, [u8; 32])> = Openings::<T>::iter_prefix_values((epoch, which)).flatten().collect();
		shares.sort_unstable();
		let secret = interpolate(&choose(shares), THRESHOLD).ok()?;
		Self::context(epoch, which).value(&dealings, &secret).ok()
	}
}
