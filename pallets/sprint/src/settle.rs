//! What disputes end with: silence, strikes, and where the money goes.
//!
//! Who wins, wins at once. A struck Host has count zero from then on; its other disputes end with every deposit
//! returned, the first few in the same block and the rest in the next ones, so no block does more than a bounded
//! number. Whoever was silent may have had no block to speak in: after a stall deadlines are moved, and a race whose
//! sessions had too few blocks decides nothing by silence.

use alloc::vec::Vec;
use frame_support::{
	traits::{
		fungible::{InspectHold, MutateHold},
		tokens::{Fortitude, Precision},
	},
	weights::Weight,
};
use pacer_types::{
	traits::{Bounties, EpochClock, HostBonds, Standing},
	AccountId, Balance, DisputeId, EpochIndex, Slot,
};
use sp_runtime::DispatchResult;

use crate::{
	Against, Commits, Config, Demands, Deposit, Disputes, Due, DueKey, Ending, Event, HoldReason, Matter, Pallet, Party, Skips,
	Strike, Struck, Tracked, WeightInfo,
};

/// Share of a struck Host's bond that goes to whoever exposed it.
pub const EXPOSER_PERCENT: Balance = 10;
/// Most matters that one block decides by silence or ends for another reason. The first block of Switch decides all
/// that are left of its race: those whose last slots were the last of Audit.
pub const SETTLED_PER_BLOCK: u32 = 64;
/// Most other disputes of a struck Host that end with the strike itself.
const ENDED_AT_ONCE: u32 = 8;

impl<T: Config> Pallet<T> {
	pub(crate) fn can_lock(by: &Party, amount: Balance) -> bool {
		if by.wallet {
			T::Currency::can_hold(&HoldReason::Deposit.into(), &by.who, amount)
		} else {
			T::Bonds::free_bond(&by.who) >= amount
		}
	}

	pub(crate) fn lock_deposit(by: &Party, amount: Balance) -> DispatchResult {
		if by.wallet {
			T::Currency::hold(&HoldReason::Deposit.into(), &by.who, amount)
		} else {
			T::Bonds::lock(&by.who, amount)
		}
	}

	pub(crate) fn return_deposit(deposit: &Deposit) {
		let Deposit { by, amount } = deposit;
		if by.wallet {
			// What is on hold can be released; were less there, that much comes back.
			let _ = T::Currency::release(&HoldReason::Deposit.into(), &by.who, *amount, Precision::BestEffort);
		} else {
			T::Bonds::release(&by.who, *amount);
		}
	}

	pub(crate) fn burn_deposit(deposit: &Deposit) {
		let Deposit { by, amount } = deposit;
		if by.wallet {
			let reason = HoldReason::Deposit.into();
			let _ = T::Currency::burn_held(&reason, &by.who, *amount, Precision::BestEffort, Fortitude::Force);
		} else {
			T::Bonds::release(&by.who, *amount);
			T::Bonds::forfeit(&by.who, *amount);
		}
	}

	/// The challenger was right, or the Host silent. Returns what the strike amounts to.
	pub(crate) fn win_dispute(race: EpochIndex, id: DisputeId, reason: Strike) -> u32 {
		let Some(dispute) = Self::take_dispute(race, id) else { return 0 };
		Self::return_deposit(&dispute.deposit);
		Self::deposit_event(Event::DisputeWon { race, dispute: id, subject: dispute.subject.clone(), reason });
		Self::strike(race, &dispute.subject, reason, Some(&dispute.deposit.by.who))
	}

	/// The challenger was wrong, or silent.
	pub(crate) fn lose_dispute(race: EpochIndex, id: DisputeId) {
		let Some(dispute) = Self::take_dispute(race, id) else { return };
		Self::burn_deposit(&dispute.deposit);
		let (challenger, deposit) = (dispute.deposit.by.who, dispute.deposit.amount);
		Self::deposit_event(Event::DisputeLost { race, dispute: id, subject: dispute.subject, challenger, deposit });
	}

	/// Nobody was right: the Host is struck for something else, or there were no blocks to speak in.
	fn void_dispute(race: EpochIndex, id: DisputeId) {
		let Some(dispute) = Self::take_dispute(race, id) else { return };
		Self::return_deposit(&dispute.deposit);
		Self::deposit_event(Event::DisputeVoid { race, dispute: id, subject: dispute.subject });
	}

	/// A count falls. In its own epoch that costs the bond at once and, at Switch, the epoch's earnings and reputation;
	/// later it costs the earnings of the epoch for which the count had won weight.
	///
	/// Returns to how many settled matters it amounts: itself, and the disputes that ended with it.
	fn strike(race: EpochIndex, subject: &AccountId, reason: Strike, exposer: Option<&AccountId>) -> u32 {
		if Struck::<T>::contains_key(race, subject) {
			return 0;
		}
		Struck::<T>::insert(race, subject, reason);
		Self::deposit_event(Event::CountRefuted { epoch: race, subject: subject.clone(), reason });
		let now = Self::epoch();
		// The fraud's epoch is the one whose earnings it costs.
		if let Some(exposer) = exposer {
			T::Bounties::note_exposed(now, core::slice::from_ref(exposer));
		}
		if now == race {
			Self::forfeit_bond(race, subject, exposer);
		} else {
			T::Standing::note_fraud(now, subject);
		}
		Self::end_demand(race, subject);
		let ended = Self::end_disputes(race, subject, ENDED_AT_ONCE);
		if ended >= ENDED_AT_ONCE {
			Ending::<T>::insert((race, subject), ());
		}
		ended.saturating_add(1)
	}

	/// A part of the bond is paid to whoever exposed the Host, the rest is burned.
	fn forfeit_bond(race: EpochIndex, subject: &AccountId, exposer: Option<&AccountId>) {
		let bond =
			Commits::<T>::mutate(race, subject, |commit| commit.as_mut().map_or(0, |commit| core::mem::take(&mut commit.bond)));
		T::Bonds::release(subject, bond);
		let share = bond.saturating_mul(EXPOSER_PERCENT) / 100;
		let paid = exposer.filter(|_| share > 0).map_or(0, |who| T::Bonds::pay(subject, share, who));
		T::Bonds::forfeit(subject, bond.saturating_sub(paid));
	}

	/// Ends up to `most` disputes of a struck Host; returns how many there were to end.
	fn end_disputes(race: EpochIndex, subject: &AccountId, most: u32) -> u32 {
		let ids: Vec<DisputeId> = Against::<T>::iter_key_prefix((race, subject)).take(most as usize).collect();
		ids.iter().for_each(|id| Self::void_dispute(race, *id));
		u32::try_from(ids.len()).unwrap_or(u32::MAX)
	}

	/// Closes the demand on a struck Host and returns the deposit.
	fn end_demand(race: EpochIndex, subject: &AccountId) {
		let Some(mut demand) = Demands::<T>::get(race, subject).filter(|demand| !demand.closed) else { return };
		if let Some(deposit) = Self::close_demand(race, subject, &mut demand) {
			Self::return_deposit(&deposit);
		}
		Demands::<T>::insert(race, subject, demand);
	}

	/// Nobody moved in time. Returns how many matters were settled: this one, a strike, and what ended with it.
	fn decide_by_silence(matter: Matter) -> u32 {
		let more = match matter {
			Matter::Dispute(race, id) => {
				let Some(dispute) = Disputes::<T>::get(race, id) else { return 1 };
				let excused = Self::silence_is_excused(race) || Self::is_too_late(race);
				if excused || Struck::<T>::contains_key(race, &dispute.subject) {
					Self::void_dispute(race, id);
					0
				} else if dispute.answer.is_some() {
					Self::lose_dispute(race, id);
					0
				} else {
					Self::win_dispute(race, id, Strike::Silent)
				}
			}
			Matter::Demand(race, subject) if Self::silence_is_excused(race) => {
				Self::end_demand(race, &subject);
				0
			}
			Matter::Demand(race, subject) => {
				let by = Demands::<T>::get(race, &subject).and_then(|demand| demand.deposit).map(|deposit| deposit.by.who);
				Self::strike(race, &subject, Strike::Withheld, by.as_ref())
			}
		};
		more.saturating_add(1)
	}

	/// Whether a late dispute outlived the Inference in which both sides could speak: blocks were missing at its end.
	fn is_too_late(race: EpochIndex) -> bool {
		race != Self::epoch() && Self::windows(race).is_none()
	}

	/// Whether blocks were missing in the race's epoch.
	fn silence_is_excused(race: EpochIndex) -> bool {
		Skips::<T>::contains_key(race)
	}

	/// Start of a block: decides what is overdue, and goes on ending the disputes of struck Hosts.
	///
	/// A block that begins a session decides nothing yet: it has still to be seen whether the session before had enough
	/// blocks. The next one does, or the border.
	pub(crate) fn sweep() -> Weight {
		let (now, slots) = (Self::now(), u64::from(Self::params().session_slots));
		let extended = Self::extend_after_stall(now.slot);
		let settles = now.slot < now.session_start.saturating_add(slots);
		let overdue = if settles { Self::due_before(now.slot, SETTLED_PER_BLOCK as usize) } else { Vec::new() };
		let mut settled = 0u32;
		for key in overdue {
			// A strike counts for more than one, so this may be a few beyond; what is left is due in the next block.
			if settled >= SETTLED_PER_BLOCK {
				break;
			}
			settled = settled.saturating_add(Self::decide_by_silence(key.matter));
		}
		while let Some((race, subject)) = Ending::<T>::iter_keys().next() {
			let room = SETTLED_PER_BLOCK.saturating_sub(settled);
			let ended = Self::end_disputes(race, &subject, room);
			settled = settled.saturating_add(ended);
			if ended >= room {
				break;
			}
			Ending::<T>::remove((race, subject));
		}
		T::WeightInfo::sweep(settled.saturating_add(extended))
	}

	/// The first deadlines before a slot.
	fn due_before(slot: Slot, most: usize) -> Vec<DueKey> {
		Due::<T>::iter_keys().take_while(|key| key.slot() < slot).take(most).collect()
	}

	/// Where nobody made a block for half of `D`, whatever is due then or soon gets another half of `D`, as far as the
	/// windows of its race go. An answer must leave the challenger its `D` slots: where there is no room for both, the
	/// dispute is void. Stalls are rare, so this may treat all that is open at once; returns how many.
	fn extend_after_stall(slot: Slot) -> u32 {
		let half = Self::params().dispute_windows(0).step / 2;
		let last = Tracked::<T>::get().map_or(slot, |track| track.slot);
		if slot <= last.saturating_add(half.max(1)) {
			return 0;
		}
		let until = slot.saturating_add(half);
		let mut extended = 0u32;
		for key in Self::due_before(until, usize::MAX) {
			let Some((latest, unanswered)) = Self::latest_deadline(&key.matter) else { continue };
			let deadline = until.min(latest);
			if deadline <= key.slot() || deadline < slot {
				// Whose turn ended in the stall had no block for its last slots, and cannot be given another.
				if let Matter::Dispute(race, id) = key.matter {
					if unanswered && (last..slot).contains(&key.slot()) {
						Self::void_dispute(race, id);
						extended = extended.saturating_add(1);
					}
				}
				continue;
			}
			match &key.matter {
				Matter::Dispute(race, id) => Disputes::<T>::mutate(race, id, |dispute| {
					if let Some(dispute) = dispute {
						dispute.deadline = deadline;
					}
				}),
				Matter::Demand(race, subject) => Demands::<T>::mutate(race, subject, |demand| {
					if let Some(demand) = demand {
						demand.deadline = Some(deadline);
					}
				}),
			}
			Due::<T>::remove(&key);
			Due::<T>::insert(DueKey::new(deadline, key.matter), ());
			extended = extended.saturating_add(1);
		}
		extended
	}

	/// The last slot to which a deadline may be moved, and whether it is that of a challenged Host's answer.
	fn latest_deadline(matter: &Matter) -> Option<(Slot, bool)> {
		let (race, unanswered) = match matter {
			Matter::Dispute(race, id) => (*race, Disputes::<T>::get(race, id)?.answer.is_none()),
			Matter::Demand(race, _) => (*race, false),
		};
		let windows = Self::windows(race)?;
		let for_the_challenger = if unanswered { windows.step } else { 0 };
		Some((windows.end.saturating_sub(for_the_challenger), unanswered))
	}

	/// First block of Switch: whatever of the race is still open is decided now. Hosts that are silent come first, so
	/// that nobody loses a deposit against a Host that falls in the same block.
	pub(crate) fn settle_race(race: EpochIndex) {
		let demands: Vec<AccountId> =
			Demands::<T>::iter_prefix(race).filter(|(_, demand)| demand.is_open()).map(|(subject, _)| subject).collect();
		demands.into_iter().for_each(|subject| {
			Self::decide_by_silence(Matter::Demand(race, subject));
		});
		let mut open: Vec<(bool, DisputeId)> =
			Disputes::<T>::iter_prefix(race).map(|(id, dispute)| (dispute.answer.is_some(), id)).collect();
		open.sort_unstable();
		open.into_iter().for_each(|(_, id)| {
			Self::decide_by_silence(Matter::Dispute(race, id));
		});
		let ended: Vec<(EpochIndex, AccountId)> = Ending::<T>::iter_keys().filter(|(of, _)| *of == race).collect();
		ended.into_iter().for_each(Ending::<T>::remove);
	}
}
