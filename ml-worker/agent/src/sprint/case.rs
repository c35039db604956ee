//! What an agent knows of one Host's list, and what follows from it. No I/O: [`super::audit`] does what is said here.
//!
//! Life cycle: asked for until it is proven (then its sample is checked) or patience ends (then its openings are
//! demanded, and what is posted is checked). Doubts are challenged, few at a time.
//!
//! Invariants
//! 1. A demand is made after several attempts, so that a list that is late by a restart costs nobody anything.
//! 2. At most [`MAX_OPEN`] challenges of this agent against one Host are open, and no position is challenged twice.

use std::collections::{BTreeMap, BTreeSet};

use pacer_types::{
	duty::DEMAND_SHARE,
	views::{CommitView, DemandView, DisputeView},
	AccountId, Slot,
};

use crate::sprint::check::Place;

/// Attempts to get a list before it is demanded.
const ATTEMPTS: u32 = 3;
/// Slots between two attempts.
const RETRY_SLOTS: u64 = 2;
/// Slots before the last one for demands at which patience ends in any case.
const LAST_SLOTS: u64 = 8;
/// Slots before the last one for demands at which a deposit is put down if others do not join.
const DEPOSIT_SLOTS: u64 = 4;
/// Open challenges of this agent against one Host.
const MAX_OPEN: usize = 2;

/// How this agent can make a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
	/// Own consensus weight.
	pub weight: u64,
	/// That of all Hosts.
	pub total: u64,
	/// Whether there is a bond to lock a deposit of.
	pub has_bond: bool,
}

impl Voice {
	/// Whether the own weight alone makes a demand strong enough.
	fn is_enough(&self) -> bool {
		self.weight > 0 && u128::from(self.weight) * 100 >= u128::from(self.total) * u128::from(DEMAND_SHARE)
	}
}

/// What is to be done about a list that is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
	/// Say that it should be posted.
	Join,
	/// The same, with a deposit.
	WithDeposit,
}

/// One Host's list in one race.
#[derive(Clone, Debug)]
pub struct Case {
	/// What it committed to.
	pub commit: CommitView,
	/// Whether a check is under way.
	pub is_busy: bool,
	/// Whether the list is proven and its sample was judged.
	pub is_checked: bool,
	/// Failed attempts to get the list.
	pub attempts: u32,
	/// When the first of them was made, and the last.
	asked: Option<(Slot, Slot)>,
	/// Why the last one failed.
	pub why: String,
	/// Posted positions that were judged.
	pub judged: BTreeSet<u32>,
	/// Places to look at when there is time.
	pub spare: Vec<Place>,
	/// Places whose nonce is not appropriate.
	doubts: BTreeMap<u32, u64>,
	/// Positions this agent has challenged, though the chain may not show it yet.
	sent: BTreeSet<u32>,
	/// Positions whose challenge is over.
	over: BTreeSet<u32>,
}

impl Case {
	/// Nothing is known yet.
	pub fn new(commit: CommitView) -> Self {
		Self {
			commit,
			is_busy: false,
			is_checked: false,
			attempts: 0,
			asked: None,
			why: String::new(),
			judged: BTreeSet::new(),
			spare: Vec::new(),
			doubts: BTreeMap::new(),
			sent: BTreeSet::new(),
			over: BTreeSet::new(),
		}
	}

	/// Whether the list should be asked for now. Notes the attempt.
	pub fn ask(&mut self, now: Slot) -> bool {
		let due = self.asked.is_none_or(|(_, last)| now >= last.saturating_add(RETRY_SLOTS));
		if self.is_busy || self.is_checked || !due {
			return false;
		}
		let first = self.asked.map_or(now, |(first, _)| first);
		self.asked = Some((first, now));
		true
	}

	/// Whether the agent's attempts failed so often that only a later race shows more.
	pub fn is_hopeless(&self) -> bool {
		self.attempts >= ATTEMPTS
	}

	/// Notes doubts.
	pub fn doubt(&mut self, places: impl IntoIterator<Item = Place>) {
		self.doubts.extend(places);
	}

	/// Notes that a challenge of this agent ended.
	pub fn end(&mut self, position: u32) {
		self.over.insert(position);
	}

	/// Whether something is wrong with the list.
	pub fn is_doubted(&self) -> bool {
		!self.doubts.is_empty()
	}

	/// What to demand now, after the list was asked for in vain. `demand` is what the chain knows of it.
	pub fn demand(&self, now: Slot, last: Slot, voice: Voice, demand: Option<&DemandView>) -> Option<Demand> {
		let (first, _) = self.asked?;
		let is_strong = demand.is_some_and(|d| d.deadline.is_some());
		if self.is_checked || self.attempts == 0 || now > last || is_strong {
			return None;
		}
		let halfway = first.saturating_add(last.saturating_sub(first) / 2);
		let is_late = now.saturating_add(LAST_SLOTS) >= last;
		if !is_late && (self.attempts < ATTEMPTS || now < halfway) {
			return None;
		}
		let is_last = now.saturating_add(DEPOSIT_SLOTS) >= last;
		if is_last && !voice.is_enough() && voice.has_bond {
			return Some(Demand::WithDeposit);
		}
		(voice.weight > 0).then_some(Demand::Join)
	}

	/// The doubts to challenge now, the lowest positions first; notes that they are. `open` are the disputes about this
	/// race, `may` says whether there is time for a position that was posted, or was not.
	pub fn challenges(
		&mut self,
		me: &AccountId,
		open: &[DisputeView],
		demand: Option<&DemandView>,
		may: impl Fn(bool) -> bool,
	) -> Vec<Place> {
		let mine = |d: &&DisputeView| d.challenger == *me && d.subject == self.commit.host;
		let under_way: BTreeSet<u32> = open.iter().filter(mine).map(|d| d.position).collect();
		let is_posted = |position: u32| demand.is_some_and(|d| d.posted.iter().any(|(p, _)| *p == position));
		let doubts = self.doubts.iter().map(|(p, n)| (*p, *n));
		let due = doubts.filter(|(p, _)| !under_way.contains(p) && !self.over.contains(p) && may(is_posted(*p)));
		// What was sent and does not show yet comes before anything new, so that there are never more than a few.
		let mut due: Vec<Place> = due.collect();
		due.sort_by_key(|(p, _)| (!self.sent.contains(p), *p));
		due.truncate(MAX_OPEN.saturating_sub(under_way.len()));
		self.sent.extend(due.iter().map(|(p, _)| *p));
		due
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use pacer_types::Hash;

	const VOICE: Voice = Voice { weight: 10, total: 40, has_bond: true };

	fn case() -> Case {
		Case::new(CommitView { host: [2; 32].into(), count: 100, root: Hash::zero(), struck: false })
	}

	fn failed(attempts: u32, first: Slot) -> Case {
		let mut case = case();
		assert!(case.ask(first));
		case.attempts = attempts;
		case
	}

	fn weak(weight: u64) -> DemandView {
		DemandView { subject: [2; 32].into(), weight, deadline: None, posted: vec![] }
	}

	#[test]
	fn list_should_be_asked_for_again_only_after_some_slots() {
		let mut case = case();
		assert!(case.ask(100) && !case.ask(101) && case.ask(102));
		case.is_busy = true;
		assert!(!case.ask(200));
		case.is_busy = false;
		case.is_checked = true;
		assert!(!case.ask(200));
	}

	#[test]
	fn list_should_be_demanded_when_patience_ends_and_not_before() {
		assert_eq!(case().demand(100, 100, VOICE, None), None, "never asked");
		assert_eq!(failed(0, 100).demand(150, 160, VOICE, None), None, "asked, not failed");
		assert_eq!(failed(9, 100).demand(129, 160, VOICE, None), None, "half of the time is patience");
		assert_eq!(failed(2, 100).demand(140, 160, VOICE, None), None, "as are three attempts");
		assert_eq!(failed(3, 100).demand(130, 160, VOICE, None), Some(Demand::Join));
		assert_eq!(failed(1, 151).demand(152, 160, VOICE, None), Some(Demand::Join), "no time for more");
		assert_eq!(failed(9, 100).demand(161, 160, VOICE, None), None, "too late");
		let strong = DemandView { deadline: Some(170), ..weak(10) };
		assert_eq!(failed(9, 100).demand(159, 160, VOICE, Some(&strong)), None, "already strong");
	}

	#[test]
	fn deposit_should_be_put_down_only_at_the_end_and_when_weight_does_not_do() {
		let light = Voice { weight: 3, ..VOICE };
		assert_eq!(failed(9, 100).demand(150, 160, light, Some(&weak(3))), Some(Demand::Join));
		assert_eq!(failed(9, 100).demand(156, 160, light, Some(&weak(3))), Some(Demand::WithDeposit));
		assert_eq!(failed(9, 100).demand(156, 160, VOICE, None), Some(Demand::Join), "ten in forty do");
		let poor = Voice { has_bond: false, ..light };
		assert_eq!(failed(9, 100).demand(156, 160, poor, None), Some(Demand::Join));
		let newcomer = Voice { weight: 0, ..VOICE };
		assert_eq!(failed(9, 100).demand(150, 160, newcomer, None), None);
		assert_eq!(failed(9, 100).demand(157, 160, newcomer, None), Some(Demand::WithDeposit));
	}

	#[test]
	fn challenges_should_be_two_at_a_time_and_each_made_once() {
		let (me, other): (AccountId, AccountId) = ([1; 32].into(), [3; 32].into());
		let dispute = |challenger: &AccountId, position| DisputeView {
			race: 5,
			id: position,
			subject: [2; 32].into(),
			challenger: challenger.clone(),
			position,
			deadline: 0,
			answer: None,
		};
		let mut case = case();
		case.doubt([(9, 90), (5, 50)]);
		assert_eq!(case.challenges(&me, &[], None, |_| false), [], "too late");
		assert_eq!(case.challenges(&me, &[], None, |_| true), [(5, 50), (9, 90)]);
		case.doubt([(1, 10)]);
		assert_eq!(case.challenges(&me, &[], None, |_| true), [(5, 50), (9, 90)], "those two do not show yet");
		case.sent = BTreeSet::from([1, 5]);
		assert_eq!(case.challenges(&me, &[dispute(&other, 1)], None, |_| true).len(), 2, "others may be in league with it");
		assert_eq!(case.challenges(&me, &[dispute(&me, 1)], None, |_| true), [(5, 50)]);
		case.end(1);
		assert_eq!(case.challenges(&me, &[], None, |_| true), [(5, 50), (9, 90)]);
		let posted = DemandView { posted: vec![(9, 90)], ..weak(1) };
		assert_eq!(case.challenges(&me, &[], Some(&posted), |is_posted| is_posted), [(9, 90)]);
	}
}
