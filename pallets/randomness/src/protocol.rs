//! From committee to value: the phases, the calls, and the traits this pallet implements.

use alloc::vec::Vec;
use frame_support::traits::Randomness;
use frame_system::pallet_prelude::BlockNumberFor;
use pacer_beacon::{Context, Which};
use pacer_types::{
	duty::{blake2_256, CallKind, DutyHeader, Rejection},
	node_key,
	traits::{Beacon, BeaconValue, DutyAuth, EpochClock, EpochWeights},
	AccountId, BlockNumber, EpochIndex, Hash, Moment, Phase,
};
use sp_runtime::{
	traits::{SaturatedConversion, Zero},
	transaction_validity::{InvalidTransaction, TransactionValidityError, ValidTransaction},
};

use crate::{
	Committees, Config, Dealing, Dealings, Event, Latest, Member, Members, Openings, Pallet, Round, Rounds, ValueStatus, Values,
	MAX_MEMBERS,
};

type Judged<T> = Result<T, TransactionValidityError>;

/// Epochs that are kept, the current one included.
const KEPT_EPOCHS: u32 = 3;

fn need(holds: bool, otherwise: Rejection) -> Judged<()> {
	if holds {
		Ok(())
	} else {
		Err(InvalidTransaction::from(otherwise).into())
	}
}

fn bytes(host: &AccountId) -> [u8; 32] {
	host.clone().into()
}

/// Whether `part` is more than half of `total`.
fn majority(part: u64, total: u64) -> bool {
	u128::from(part).saturating_mul(2) > u128::from(total)
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

	/// The committee of an epoch; empty if it is unknown.
	pub fn committee(epoch: EpochIndex) -> Members {
		Committees::<T>::get(epoch).unwrap_or_else(|| {
			let mut members: Vec<Member> = T::Weights::weights(epoch)
				.into_iter()
				.filter(|w| w.consensus > 0)
				.map(|w| Member { host: w.host, weight: w.consensus })
				.collect();
			members.sort_unstable_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.host.cmp(&b.host)));
			members.truncate(usize::try_from(MAX_MEMBERS).unwrap_or(0));
			members.sort_unstable_by(|a, b| a.host.cmp(&b.host));
			Members::truncate_from(members)
		})
	}

	/// Weight of the members for whom `holds` is true, and of all.
	fn weigh(epoch: EpochIndex, holds: impl Fn(&AccountId) -> bool) -> (u64, u64) {
		Self::committee(epoch).iter().fold((0, 0), |(part, total): (u64, u64), m| {
			let counted = if holds(&m.host) { m.weight } else { 0 };
			(part.saturating_add(counted), total.saturating_add(m.weight))
		})
	}

	fn height() -> BlockNumber {
		frame_system::Pallet::<T>::block_number().saturated_into()
	}

	/// Brings the round of the epoch up to the current phase; idempotent. Returns whether anything changed.
	pub(crate) fn advance() -> bool {
		let now = T::Clock::now();
		if now.phase < Phase::Deal {
			return false;
		}
		let epoch = now.epoch;
		let before = Rounds::<T>::get(epoch);
		let mut round = before.unwrap_or_default();
		if before.is_none() {
			Self::open_round(epoch);
		}
		Self::close_dealing(&now, &mut round);
		if now.phase >= Phase::Race {
			Self::settle(epoch, BeaconValue::Race, &mut round);
		}
		if now.phase >= Phase::Audit && round.race_closed.is_none() {
			round.race_closed = Some(Self::height());
		}
		if now.phase > Phase::Audit || (now.phase == Phase::Audit && now.session_in_phase > 0) {
			Self::settle(epoch, BeaconValue::Audit, &mut round);
		}
		let changed = before != Some(round);
		if changed {
			Rounds::<T>::insert(epoch, round);
		}
		changed
	}

	/// Fixes the committee and forgets the oldest epoch: at most three entries per member.
	fn open_round(epoch: EpochIndex) {
		let members = Self::committee(epoch);
		let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
		Committees::<T>::insert(epoch, members);
		Self::deposit_event(Event::DealingOpened { epoch, members: count });
		let Some(old) = epoch.checked_sub(KEPT_EPOCHS) else { return };
		Committees::<T>::remove(old);
		Rounds::<T>::remove(old);
		let _ = Dealings::<T>::clear_prefix(old, MAX_MEMBERS, None);
		for which in [BeaconValue::Race, BeaconValue::Audit] {
			Values::<T>::remove((old, which));
			let _ = Openings::<T>::clear_prefix((old, which), MAX_MEMBERS, None);
		}
	}

	/// Fixes the set of dealings after Deal if enough dealt, else repeats it once.
	fn close_dealing(now: &Moment, round: &mut Round) {
		if round.dealing_closed.is_some() || now.phase <= Phase::Deal {
			return;
		}
		// Whoever is missing has all of SpareDeal.
		if now.phase == Phase::SpareDeal && round.repeated {
			return;
		}
		let epoch = now.epoch;
		let (weight, total) = Self::weigh(epoch, |host| Dealings::<T>::contains_key(epoch, host));
		round.dealt = majority(weight, total);
		if now.phase == Phase::SpareDeal && !round.dealt {
			round.repeated = true;
			Self::deposit_event(Event::DealRepeated { epoch, weight, total });
			return;
		}
		round.dealing_closed = Some(Self::height());
		if round.dealt {
			let dealers = u32::try_from(Dealings::<T>::iter_prefix_values(epoch).count()).unwrap_or(u32::MAX);
			Self::deposit_event(Event::DealingClosed { epoch, dealers });
		} else {
			Self::deposit_event(Event::DealFailed { epoch, weight, total });
		}
	}

	/// Decides a value whose opening window is over.
	fn settle(epoch: EpochIndex, which: BeaconValue, round: &mut Round) {
		if round.status(which) != ValueStatus::Waiting {
			return;
		}
		let (weight, total) = Self::weigh(epoch, |host| Openings::<T>::contains_key((epoch, which), host));
		if round.dealt && majority(weight, total) {
			Self::draw(epoch, which, round);
		} else {
			Self::fail(epoch, which, round);
		}
	}

	fn fail(epoch: EpochIndex, which: BeaconValue, round: &mut Round) {
		round.set_status(which, ValueStatus::Failed);
		Self::deposit_event(Event::ValueFailed { epoch, which });
	}

	/// Stores the value of what was opened.
	fn draw(epoch: EpochIndex, which: BeaconValue, round: &mut Round) {
		// Every opening was checked against its dealing, so there is a value.
		let Some(value) = Self::compute(epoch, which) else { return Self::fail(epoch, which, round) };
		round.set_status(which, ValueStatus::Drawn);
		Values::<T>::insert((epoch, which), value);
		Latest::<T>::put((value, Self::height()));
		Self::deposit_event(Event::ValueDrawn { epoch, which, value });
	}

	/// The value that the stored dealings and openings make.
	pub(crate) fn compute(epoch: EpochIndex, which: BeaconValue) -> Option<[u8; 32]> {
		let mut dealings: Vec<_> =
			Dealings::<T>::iter_prefix(epoch).map(|(host, dealing)| (bytes(&host), dealing.of(which).0)).collect();
		let mut openings: Vec<_> =
			Openings::<T>::iter_prefix((epoch, which)).map(|(host, secret)| (bytes(&host), secret)).collect();
		dealings.sort_unstable();
		openings.sort_unstable();
		Self::context(epoch, which).value(&dealings, &openings).ok()
	}

	/// Whether `secret` is what the Host dealt.
	pub(crate) fn opens(epoch: EpochIndex, which: BeaconValue, host: &AccountId, dealing: &Dealing, secret: &[u8; 32]) -> bool {
		Self::context(epoch, which).opens(&bytes(host), &dealing.of(which).0, secret)
	}

	/// Whether members may deal now.
	pub(crate) fn may_deal(now: &Moment) -> bool {
		match now.phase {
			Phase::Deal => true,
			Phase::SpareDeal => Rounds::<T>::get(now.epoch).is_some_and(|r| r.repeated && r.dealing_closed.is_none()),
			_ => false,
		}
	}

	/// The value whose opening window it is.
	pub(crate) fn opening_now(now: &Moment) -> Option<BeaconValue> {
		if !now.in_opening_window(&T::Clock::params()) {
			return None;
		}
		Some(if now.phase == Phase::Open { BeaconValue::Race } else { BeaconValue::Audit })
	}

	pub(crate) fn authorize_deal(
		header: &DutyHeader,
		key: &node_key::Public,
		race: &Hash,
		audit: &Hash,
		signature: &node_key::Signature,
	) -> Judged<ValidTransaction> {
		T::Auth::authorize_node(CallKind::Deal, header, key, &(), &(race, audit), signature, || {
			if Dealings::<T>::contains_key(header.epoch, &header.host) {
				return Err(InvalidTransaction::Stale.into());
			}
			need(Self::may_deal(&T::Clock::now()), Rejection::WrongPhase)?;
			let members = Self::committee(header.epoch);
			let member = members.binary_search_by(|m| m.host.cmp(&header.host)).is_ok();
			need(member, Rejection::NotEntitled)
		})
	}

	pub(crate) fn do_deal(header: DutyHeader, dealing: Dealing) {
		let DutyHeader { host, epoch, .. } = header;
		Dealings::<T>::insert(epoch, &host, dealing);
		Self::deposit_event(Event::Dealt { epoch, host });
	}

	pub(crate) fn authorize_open(
		header: &DutyHeader,
		key: &node_key::Public,
		which: BeaconValue,
		secret: &[u8; 32],
		signature: &node_key::Signature,
	) -> Judged<ValidTransaction> {
		T::Auth::authorize_node(CallKind::Open, header, key, &which, &(which, secret), signature, || {
			let (epoch, host) = (header.epoch, &header.host);
			if Openings::<T>::contains_key((epoch, which), host) {
				return Err(InvalidTransaction::Stale.into());
			}
			need(Self::opening_now(&T::Clock::now()) == Some(which), Rejection::WrongPhase)?;
			need(Rounds::<T>::get(epoch).is_some_and(|r| r.dealing_closed.is_some() && r.dealt), Rejection::UnknownSubject)?;
			let dealing = Dealings::<T>::get(epoch, host).ok_or(InvalidTransaction::from(Rejection::NotEntitled))?;
			need(Self::opens(epoch, which, host, &dealing, secret), Rejection::Malformed)
		})
	}

	/// Notes the opening; with the last one, the value is there.
	pub(crate) fn do_open(header: DutyHeader, which: BeaconValue, secret: [u8; 32]) {
		let DutyHeader { host, epoch, .. } = header;
		Openings::<T>::insert((epoch, which), &host, secret);
		Self::deposit_event(Event::Opened { epoch, which, host });
		let mut all = Dealings::<T>::iter_key_prefix(epoch);
		let Some(mut round) = Rounds::<T>::get(epoch) else { return };
		if round.status(which) == ValueStatus::Waiting && all.all(|host| Openings::<T>::contains_key((epoch, which), host)) {
			Self::draw(epoch, which, &mut round);
			Rounds::<T>::insert(epoch, round);
		}
	}
}

impl<T: Config> Beacon for Pallet<T> {
	fn value(epoch: EpochIndex, which: BeaconValue) -> Option<[u8; 32]> {
		Values::<T>::get((epoch, which))
	}

	/// The hash of the first block until there is a value.
	fn latest() -> [u8; 32] {
		Latest::<T>::get().map_or_else(|| Self::genesis_hash().0, |(value, _)| value)
	}
}

impl<T: Config> Randomness<Hash, BlockNumberFor<T>> for Pallet<T> {
	/// A value of the subject's own, and the block in which it became known.
	fn random(subject: &[u8]) -> (Hash, BlockNumberFor<T>) {
		let since = Latest::<T>::get().map_or(0, |(_, at)| at);
		let value = codec::Encode::using_encoded(&(b"pacer/beacon/v1/subject", Self::latest(), subject), blake2_256);
		(Hash::from(value), since.saturated_into())
	}
}
