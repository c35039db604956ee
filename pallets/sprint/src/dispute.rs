//! Disputes about one position: challenge, answer, refute.
//!
//! Anyone may doubt a position of a list for a deposit. The Host opens it and says what every state of the nonce
//! hashes to; the challenger names the first step it disagrees with, and the runtime recomputes that step and decides
//! at once. Each move has `D` slots, and silence loses ([`crate::settle`]).
//!
//! Caps are per challenger. A Host's own disputes against itself take no room from anyone else's, and whatever comes of
//! one leaves the position open to others.

use alloc::vec::Vec;
use frame_support::traits::Get;
use pacer_sprint::{
	dispute::{check_step, judge, judge_order},
	Claim, Opening, Step,
};
use pacer_types::{
	duty::{CallKind, DutyHeader, Rejection, MAX_URGENCY},
	traits::{Beacon, BeaconValue, DutyAuth, SlotSource},
	AccountId, DisputeId, DutySignature, EpochIndex,
};
use sp_runtime::transaction_validity::{TransactionPriority, TransactionValidityError, ValidTransaction};

use crate::{
	refusal::{need, not_done, Refusal},
	Against, Answer, Asked, Challenges, Commitment, Commits, Config, Demands, Deposit, Dispute, Disputes, Due, DueKey, Event,
	Matter, NextDispute, OpenBy, OpenByWallets, Pallet, Party, Question, StateHashes, Strike, Struck,
};

/// Disputes of one challenger in a race whose refutations have places of their own; later ones share the last.
const RANKS: TransactionPriority = 9;
/// Places of one rank, in slots of a deadline.
const PER_RANK: TransactionPriority = 1_000;

type Judged = Result<ValidTransaction, TransactionValidityError>;

impl<T: Config> Pallet<T> {
	/// What everyone who asks something of a Host in a race must pass: the claim is there and not struck yet.
	pub(crate) fn commitment(race: EpochIndex, subject: &AccountId) -> Result<Commitment, Refusal> {
		need(!Struck::<T>::contains_key(race, subject), Rejection::UnknownSubject)?;
		Commits::<T>::get(race, subject).ok_or(Rejection::UnknownSubject.into())
	}

	pub(crate) fn check_challenge(race: EpochIndex, by: &Party, subject: &AccountId, position: u32) -> Result<(), Refusal> {
		not_done(Asked::<T>::contains_key(race, (&by.who, subject, Question::Position(position))))?;
		need(by.who != *subject, Rejection::NotEntitled)?;
		let windows = Self::windows(race).ok_or(Rejection::WrongPhase)?;
		let slot = T::Slots::slot();
		need(slot <= windows.challenge_posted, Rejection::WrongPhase)?;
		need(T::Beacon::value(race, BeaconValue::Audit).is_some(), Rejection::UnknownSubject)?;
		let commit = Self::commitment(race, subject)?;
		need(position < commit.count, Rejection::UnknownSubject)?;
		let posted = || Demands::<T>::get(race, subject).is_some_and(|demand| demand.has(position));
		need(slot <= windows.challenge || posted(), Rejection::WrongPhase)?;
		need(OpenBy::<T>::get(&by.who) < T::MaxOpenPerChallenger::get(), Rejection::NoQuota)?;
		need(!by.wallet || OpenByWallets::<T>::get() < T::MaxWalletDisputes::get(), Rejection::NoQuota)?;
		need(Self::can_lock(by, T::ChallengeDeposit::get()), Rejection::BondTooSmall)
	}

	pub(crate) fn authorize_challenge(
		header: &DutyHeader,
		race: EpochIndex,
		subject: &AccountId,
		position: u32,
		signature: &DutySignature,
	) -> Judged {
		let body = (race, subject, position);
		T::Auth::authorize_once(CallKind::Challenge, header, &body, &body, signature, || {
			let by = Party { who: header.host.clone(), wallet: false };
			Self::check_challenge(race, &by, subject, position).map_err(Into::into)
		})
	}

	/// Opens a dispute. Whatever comes of it, the question is noted as asked.
	pub(crate) fn do_challenge(race: EpochIndex, by: Party, subject: AccountId, position: u32) {
		Asked::<T>::insert(race, (&by.who, &subject, Question::Position(position)), ());
		let amount = T::ChallengeDeposit::get();
		let windows = Self::windows(race).filter(|_| Self::lock_deposit(&by, amount).is_ok());
		let Some(windows) = windows else {
			Self::deposit_event(Event::ChallengeDropped { race, subject, challenger: by.who, position });
			return;
		};
		let id = NextDispute::<T>::mutate(race, |next| {
			let id = *next;
			*next = next.saturating_add(1);
			id
		});
		let rank = Challenges::<T>::mutate(race, &by.who, |made| {
			let rank = *made;
			*made = made.saturating_add(1);
			rank
		});
		let deadline = windows.deadline(T::Slots::slot());
		OpenBy::<T>::mutate(&by.who, |open| *open = open.saturating_add(1));
		if by.wallet {
			OpenByWallets::<T>::mutate(|open| *open = open.saturating_add(1));
		}
		Due::<T>::insert(DueKey::new(deadline, Matter::Dispute(race, id)), ());
		Against::<T>::insert((race, &subject), id, ());
		let challenger = by.who.clone();
		let deposit = Deposit { by, amount };
		let dispute = Dispute { subject: subject.clone(), deposit, position, rank, deadline, answer: None };
		Disputes::<T>::insert(race, id, dispute);
		Self::deposit_event(Event::Challenged { race, dispute: id, subject, challenger, position, deadline });
	}

	/// A dispute in which a move may be made: open, in time, and not decided by another.
	fn dispute_in_play(race: EpochIndex, id: DisputeId) -> Result<Dispute, Refusal> {
		let Some(dispute) = Disputes::<T>::get(race, id) else {
			not_done(id < NextDispute::<T>::get(race))?;
			return Err(Rejection::UnknownSubject.into());
		};
		not_done(Struck::<T>::contains_key(race, &dispute.subject))?;
		Ok(dispute)
	}

	pub(crate) fn authorize_answer(
		header: &DutyHeader,
		race: EpochIndex,
		id: DisputeId,
		opening: &Opening,
		hashes: &StateHashes,
		signature: &DutySignature,
	) -> Judged {
		let body = (race, id, opening, hashes);
		T::Auth::authorize_once(CallKind::Answer, header, &(race, id), &body, signature, || {
			Self::check_answer(&header.host, race, id, opening, hashes).map_err(Into::into)
		})
	}

	fn check_answer(
		host: &AccountId,
		race: EpochIndex,
		id: DisputeId,
		opening: &Opening,
		hashes: &StateHashes,
	) -> Result<(), Refusal> {
		let dispute = Self::dispute_in_play(race, id)?;
		need(dispute.subject == *host, Rejection::NotEntitled)?;
		not_done(dispute.answer.is_some())?;
		need(T::Slots::slot() <= dispute.deadline && Self::windows(race).is_some(), Rejection::WrongPhase)?;
		let layers = Self::network().0.layers as usize;
		need(hashes.len() == layers.saturating_add(2) && opening.position == dispute.position, Rejection::Malformed)?;
		let commit = Self::commitment(race, host)?;
		need(opening.verify(&commit.root.0, commit.count).is_ok(), Rejection::Malformed)
	}

	/// Stores the Host's claim; the challenger's turn begins.
	pub(crate) fn do_answer(race: EpochIndex, id: DisputeId, nonce: u64, hashes: StateHashes) {
		let Some(windows) = Self::windows(race) else { return };
		let Some(mut dispute) = Disputes::<T>::get(race, id) else { return };
		Due::<T>::remove(DueKey::new(dispute.deadline, Matter::Dispute(race, id)));
		let deadline = windows.deadline(T::Slots::slot());
		dispute.deadline = deadline;
		dispute.answer = Some(Answer { nonce, hashes });
		Due::<T>::insert(DueKey::new(deadline, Matter::Dispute(race, id)), ());
		Disputes::<T>::insert(race, id, dispute);
		Self::deposit_event(Event::Answered { race, dispute: id, nonce, deadline });
	}

	pub(crate) fn authorize_refute(
		header: &DutyHeader,
		race: EpochIndex,
		id: DisputeId,
		step: &Step,
		signature: &DutySignature,
	) -> Judged {
		let body = (race, id, step);
		T::Auth::authorize_once(CallKind::Refute, header, &(race, id), &body, signature, || {
			let by = Party { who: header.host.clone(), wallet: false };
			Self::check_refute(&by, race, id, step).map_err(Into::into)
		})
		.map(|valid| ValidTransaction { priority: valid.priority.saturating_add(Self::urgency(race, id)), ..valid })
	}

	/// How much a refutation goes before others. First come those of each challenger's first dispute of the race, then
	/// those of its second, and so on: who fills blocks with many false refutations cannot keep out another's first
	/// true one. Among equals the one with the nearer deadline comes first, counted from the end of the windows, so it
	/// stays right while the transaction waits in the pool.
	fn urgency(race: EpochIndex, id: DisputeId) -> TransactionPriority {
		let Some((windows, dispute)) = Self::windows(race).zip(Disputes::<T>::get(race, id)) else { return 0 };
		let turn = RANKS.saturating_sub(u64::from(dispute.rank));
		let nearness = windows.end.saturating_sub(dispute.deadline).min(PER_RANK.saturating_sub(1));
		turn.saturating_mul(PER_RANK).saturating_add(nearness).min(MAX_URGENCY)
	}

	/// Refuses everything about which [`Self::step_is_false`] could not decide, at the cost of a few hashes.
	pub(crate) fn check_refute(by: &Party, race: EpochIndex, id: DisputeId, step: &Step) -> Result<(), Refusal> {
		let dispute = Self::dispute_in_play(race, id)?;
		need(dispute.deposit.by == *by, Rejection::NotEntitled)?;
		let answer = dispute.answer.as_ref().ok_or(Rejection::WrongPhase)?;
		need(T::Slots::slot() <= dispute.deadline, Rejection::WrongPhase)?;
		let sound = match step {
			Step::Order { other } => {
				let commit = Self::commitment(race, &dispute.subject)?;
				judge_order(&commit.root.0, commit.count, dispute.position, answer.nonce, other).is_ok()
			}
			step => {
				let hashes = plain(&answer.hashes);
				let claim = Claim { host: dispute.subject.as_ref(), nonce: answer.nonce, hashes: &hashes };
				check_step(&Self::network().0, &claim, step).is_ok()
			}
		};
		need(sound && T::Beacon::value(race, BeaconValue::Race).is_some(), Rejection::Malformed)
	}

	/// Recomputes the step; `None` if it does not speak of the claim.
	fn step_is_false(race: EpochIndex, dispute: &Dispute, answer: &Answer, step: &Step) -> Option<bool> {
		if let Step::Order { other } = step {
			let commit = Commits::<T>::get(race, &dispute.subject)?;
			return judge_order(&commit.root.0, commit.count, dispute.position, answer.nonce, other).ok();
		}
		let seed = T::Beacon::value(race, BeaconValue::Race)?;
		let (config, threshold) = Self::network();
		let hashes = plain(&answer.hashes);
		let claim = Claim { host: dispute.subject.as_ref(), nonce: answer.nonce, hashes: &hashes };
		judge(&config, &seed, threshold, &claim, step).ok()
	}

	/// Decides a dispute: the Host's count falls, or the challenger's deposit does. True if the count fell.
	pub(crate) fn do_refute(race: EpochIndex, id: DisputeId, step: &Step) -> bool {
		let Some(dispute) = Disputes::<T>::get(race, id) else { return false };
		let Some(answer) = dispute.answer.as_ref() else { return false };
		let falls = Self::step_is_false(race, &dispute, answer, step).unwrap_or(false);
		if falls {
			Self::win_dispute(race, id, Strike::from(step));
		} else {
			Self::lose_dispute(race, id);
		}
		falls
	}

	/// Takes a dispute out of every index.
	pub(crate) fn take_dispute(race: EpochIndex, id: DisputeId) -> Option<Dispute> {
		let dispute = Disputes::<T>::take(race, id)?;
		Due::<T>::remove(DueKey::new(dispute.deadline, Matter::Dispute(race, id)));
		Against::<T>::remove((race, &dispute.subject), id);
		OpenBy::<T>::mutate_exists(&dispute.deposit.by.who, |open| {
			*open = open.map(|n| n.saturating_sub(1)).filter(|n| *n > 0);
		});
		if dispute.deposit.by.wallet {
			OpenByWallets::<T>::mutate(|open| *open = open.saturating_sub(1));
		}
		Some(dispute)
	}
}

/// Hashes as the reference has them.
fn plain(hashes: &StateHashes) -> Vec<[u8; 32]> {
	hashes.iter().map(|hash| hash.0).collect()
}
