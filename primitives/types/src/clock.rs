//! The epoch's clock (`design/architecture.md`, "The epoch").
//!
//! An epoch is `K` consecutive sessions of `E` slots. Phases are whole sessions, deadlines are slots, nothing counts
//! blocks. [`ClockParams`] is set at genesis and never changes: another epoch duration would brick a BABE chain.
//!
//! Invariants
//! 1. Every session belongs to exactly one phase of one epoch, and phases follow in the order of [`Phase`].
//! 2. Switch is the last session of an epoch and one session long.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::ids::{EpochIndex, SessionIndex, Slot};

/// A part of the epoch, in order.
#[derive(
	Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
	Serialize, Deserialize,
)]
pub enum Phase {
	/// Nothing but serving, which goes on in every other phase too.
	Inference,
	/// The randomness is dealt.
	Deal,
	/// A failed dealing is repeated.
	SpareDeal,
	/// The race value is opened.
	Open,
	/// Hosts race and commit.
	Race,
	/// The audit value is opened in the first session; counts are checked and disputed.
	Audit,
	/// The new weights are announced; rewards are settled.
	Switch,
}

impl Phase {
	/// All phases in order.
	pub const ALL: [Phase; 7] =
		[Phase::Inference, Phase::Deal, Phase::SpareDeal, Phase::Open, Phase::Race, Phase::Audit, Phase::Switch];

	/// The phase's name as people see it.
	pub fn name(self) -> &'static str {
		match self {
			Phase::Inference => "Inference",
			Phase::Deal => "Deal",
			Phase::SpareDeal => "SpareDeal",
			Phase::Open => "Open",
			Phase::Race => "Race",
			Phase::Audit => "Audit",
			Phase::Switch => "Switch",
		}
	}
}

/// Lengths of everything the clock measures.
#[derive(
	Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClockParams {
	/// Length of a slot in milliseconds.
	pub slot_ms: u64,
	/// `E`: slots of a session.
	pub session_slots: u32,
	/// Sessions of Inference.
	pub inference_sessions: u32,
	/// Sessions of each of Deal, SpareDeal, Open and Race, which are equally long.
	pub step_sessions: u32,
	/// Sessions of Audit.
	pub audit_sessions: u32,
}

impl ClockParams {
	/// The production clock: an epoch of a day, a race of 600 s.
	pub const PRODUCTION: Self =
		Self { slot_ms: 3_000, session_slots: 200, inference_sessions: 136, step_sessions: 1, audit_sessions: 3 };
	/// The clock of local networks: an epoch of 192 s, a race of 16 s.
	pub const LOCAL: Self =
		Self { slot_ms: 500, session_slots: 32, inference_sessions: 4, step_sessions: 1, audit_sessions: 3 };

	/// Whether every length is positive and no sum overflows.
	pub fn is_valid(&self) -> bool {
		self.slot_ms > 0
			&& self.session_slots >= 8
			&& self.inference_sessions > 0
			&& self.step_sessions > 0
			&& self.audit_sessions > 0
			&& self.inference_sessions < 1 << 20
			&& self.step_sessions < 1 << 20
			&& self.audit_sessions < 1 << 20
	}

	/// Sessions of one phase.
	pub fn sessions_of(&self, phase: Phase) -> u32 {
		match phase {
			Phase::Inference => self.inference_sessions,
			Phase::Deal | Phase::SpareDeal | Phase::Open | Phase::Race => self.step_sessions,
			Phase::Audit => self.audit_sessions,
			Phase::Switch => 1,
		}
	}

	/// `K`: sessions of an epoch. At least one even if the parameters are not valid, so that it can divide.
	pub fn epoch_sessions(&self) -> u32 {
		Phase::ALL.iter().fold(0u32, |sum, p| sum.saturating_add(self.sessions_of(*p))).max(1)
	}

	/// Slots of an epoch.
	pub fn epoch_slots(&self) -> u64 {
		u64::from(self.epoch_sessions()).saturating_mul(u64::from(self.session_slots))
	}

	/// The epoch a session belongs to.
	pub fn epoch_of(&self, session: SessionIndex) -> EpochIndex {
		session / self.epoch_sessions()
	}

	/// The session that begins with a phase, counted from the start of the epoch.
	pub fn first_session_of(&self, phase: Phase) -> u32 {
		Phase::ALL.iter().take_while(|p| **p != phase).fold(0u32, |sum, p| sum.saturating_add(self.sessions_of(*p)))
	}

	/// Where a session stands: its phase, and its index in that phase.
	pub fn phase_of(&self, session: SessionIndex) -> (Phase, u32) {
		let mut left = session % self.epoch_sessions();
		for phase in Phase::ALL {
			let length = self.sessions_of(phase);
			if left < length {
				return (phase, left);
			}
			left = left.saturating_sub(length);
		}
		(Phase::Switch, 0)
	}

	/// Describes a slot of a session that began at `session_start`.
	pub fn moment(&self, session: SessionIndex, session_start: Slot, slot: Slot) -> Moment {
		let (phase, session_in_phase) = self.phase_of(session);
		let e = u64::from(self.session_slots);
		let before = u64::from(session_in_phase).saturating_mul(e);
		let phase_start = session_start.saturating_sub(before);
		let phase_end = phase_start.saturating_add(u64::from(self.sessions_of(phase)).saturating_mul(e));
		Moment { epoch: self.epoch_of(session), phase, session, session_in_phase, session_start, phase_start, phase_end, slot }
	}
}

/// Until when the audit of a race allows what; the last slot in which a block may include it.
///
/// `D` is a sixth of Audit, at least one slot. Each move of a dispute has `D`, silence loses. A demanded list must be
/// out early enough that what it shows can still be disputed: demand by 2.5 D, posted within D, challenged by 4 D,
/// answered by 5 D, refuted before Switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisputeWindows {
	/// `D`.
	pub step: u64,
	/// Last slot to demand a list in.
	pub demand: Slot,
	/// Last slot to challenge a position in.
	pub challenge: Slot,
	/// Last slot to challenge a position in that was posted after a demand.
	pub challenge_posted: Slot,
	/// Last slot of Audit: no move is later.
	pub end: Slot,
}

impl DisputeWindows {
	/// Last slot of a move that begins now.
	pub fn deadline(&self, now: Slot) -> Slot {
		now.saturating_add(self.step).min(self.end)
	}
}

impl ClockParams {
	/// The windows of the Audit that begins at `audit_start`.
	pub fn dispute_windows(&self, audit_start: Slot) -> DisputeWindows {
		let slots = u64::from(self.audit_sessions).saturating_mul(u64::from(self.session_slots));
		let step = (slots / 6).max(1);
		let last = |sixths_twice: u64| {
			audit_start.saturating_add((slots.saturating_mul(sixths_twice) / 12).max(1)).saturating_sub(1)
		};
		DisputeWindows { step, demand: last(5), challenge: last(6), challenge_posted: last(8), end: last(12) }
	}
}

/// A point on the clock. Slots of a phase assume that no session was longer than `E` slots; where one was (nobody
/// made a block for a while), the start of the phase is an estimate and the end is still right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Moment {
	/// The epoch.
	pub epoch: EpochIndex,
	/// The phase.
	pub phase: Phase,
	/// The session, counted from genesis.
	pub session: SessionIndex,
	/// The session, counted from the start of the phase.
	pub session_in_phase: u32,
	/// First slot of the session.
	pub session_start: Slot,
	/// First slot of the phase.
	pub phase_start: Slot,
	/// First slot after the phase.
	pub phase_end: Slot,
	/// The slot of the current block.
	pub slot: Slot,
}

impl Moment {
	/// Whether this slot is among the last `slots` of the current session.
	pub fn in_last_slots(&self, session_slots: u32, slots: u32) -> bool {
		let end = self.session_start.saturating_add(u64::from(session_slots));
		self.slot.saturating_add(u64::from(slots)) >= end
	}

	/// Whether the randomness may be opened: the last min(40, E/2) slots of Open and of Audit's first session.
	pub fn in_opening_window(&self, params: &ClockParams) -> bool {
		let slots = (params.session_slots / 2).min(40);
		match self.phase {
			Phase::Open => self.session_in_phase.saturating_add(1) == params.step_sessions && self.in_last_slots(params.session_slots, slots),
			Phase::Audit => self.session_in_phase == 0 && self.in_last_slots(params.session_slots, slots),
			_ => false,
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn presets_should_match_the_design() {
		assert_eq!(ClockParams::PRODUCTION.epoch_sessions(), 144);
		assert_eq!(ClockParams::PRODUCTION.epoch_slots() * ClockParams::PRODUCTION.slot_ms, 86_400_000);
		assert_eq!(ClockParams::LOCAL.epoch_sessions(), 12);
		assert_eq!(ClockParams::LOCAL.epoch_slots() * ClockParams::LOCAL.slot_ms, 192_000);
		assert!(ClockParams::PRODUCTION.is_valid() && ClockParams::LOCAL.is_valid());
	}

	#[test]
	fn phases_should_follow_in_order_and_fill_the_epoch() {
		for params in [ClockParams::PRODUCTION, ClockParams::LOCAL] {
			let k = params.epoch_sessions();
			let mut last = Phase::Inference;
			for session in 0..k {
				let (phase, index) = params.phase_of(session);
				assert!(phase >= last && index < params.sessions_of(phase));
				assert_eq!(params.first_session_of(phase) + index, session);
				assert_eq!(params.phase_of(session + 7 * k), (phase, index));
				last = phase;
			}
			assert_eq!(params.phase_of(k - 1), (Phase::Switch, 0));
		}
	}

	#[test]
	fn opening_window_should_be_the_end_of_open_and_of_the_first_audit_session() {
		let p = ClockParams::LOCAL;
		let start = |phase| u64::from(p.first_session_of(phase) * p.session_slots);
		let at = |phase, offset: u64| p.moment(p.first_session_of(phase), start(phase), start(phase) + offset).in_opening_window(&p);
		assert!(!at(Phase::Open, 15) && at(Phase::Open, 16) && at(Phase::Open, 31));
		assert!(!at(Phase::Audit, 15) && at(Phase::Audit, 16));
		assert!(!at(Phase::Race, 31));
		let second = p.moment(p.first_session_of(Phase::Audit) + 1, start(Phase::Audit) + 32, start(Phase::Audit) + 63);
		assert!(!second.in_opening_window(&p));
		assert_eq!(second.phase_start, start(Phase::Audit));
	}

	#[test]
	fn dispute_windows_should_leave_every_move_its_slots_before_switch() {
		let windows = ClockParams::PRODUCTION.dispute_windows(1_000);
		let expected = DisputeWindows { step: 100, demand: 1_249, challenge: 1_299, challenge_posted: 1_399, end: 1_599 };
		assert_eq!(windows, expected);
		let expected = DisputeWindows { step: 16, demand: 39, challenge: 47, challenge_posted: 63, end: 95 };
		assert_eq!(ClockParams::LOCAL.dispute_windows(0), expected);
		for w in [windows, expected] {
			// Answer and refutation of the last challenge; posting, challenge, answer and refutation after the last demand.
			assert_eq!(w.deadline(w.deadline(w.challenge_posted)), w.end);
			assert!(w.deadline(w.deadline(w.challenge)) < w.end);
			assert!(w.deadline(w.demand) < w.challenge_posted);
			assert_eq!(w.deadline(w.end - 1), w.end);
		}
	}
}
