//! What a rogue claims, and how it behaves when it is asked about it.

use std::collections::{BTreeMap, BTreeSet};

use pacer_sprint::{Opening, Step};
use pacer_types::{
	duty::MAX_POSTED,
	views::{DemandView, DisputeView, SprintView},
	AccountId, DutyCall, Hash, Slot,
};

use crate::rogue::{forge::Forged, search::RaceOf};

/// How a rogue answers when one of its positions is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
	/// With the right hashes, be the nonce appropriate or not.
	Truth,
	/// With a wrong hash of `x_0`, and right ones behind it.
	WrongInput,
	/// With a wrong hash of the state after this layer.
	WrongLayer(u32),
	/// Not at all.
	Silence,
}

/// What a rogue does when it must post its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posting {
	/// Every sampled position that it can open.
	WhatOpens,
	/// Nothing.
	Nothing,
}

/// A list as a rogue claims it.
#[derive(Clone, Debug)]
pub struct Claim {
	/// What it commits to.
	pub tree: Forged,
	/// What it serves.
	pub served: Vec<u64>,
	/// Positions that the rogue knows to be invented, where it knows them.
	pub fakes: BTreeSet<u32>,
}

impl Claim {
	/// A list that is served as it is committed.
	pub fn of(nonces: Vec<u64>) -> Self {
		Self { tree: Forged::build(nonces.iter().copied().map(Some).collect()), served: nonces, fakes: BTreeSet::new() }
	}

	/// A list of found nonces with invented ones among them, in order.
	pub fn mixed(found: Vec<u64>, invented: &[u64]) -> Self {
		let mut nonces = [&found, invented].concat();
		nonces.sort_unstable();
		nonces.dedup();
		let fakes = nonces.iter().zip(0u32..).filter(|(nonce, _)| invented.contains(nonce)).map(|(_, at)| at).collect();
		Self { fakes, ..Self::of(nonces) }
	}

	/// The commitment to it.
	pub fn commit(&self) -> DutyCall {
		DutyCall::Commit { count: self.tree.count(), root: Hash::from(self.tree.root()) }
	}

	/// The answer to a dispute, if this way of answering has one and the position can be opened.
	///
	/// # Errors
	/// If the race's shape is none.
	pub fn answer(
		&self,
		how: Answering,
		race: &RaceOf,
		host: &[u8; 32],
		dispute: &DisputeView,
	) -> anyhow::Result<Option<DutyCall>> {
		let Some(opening) = self.tree.open(dispute.position).filter(|_| how != Answering::Silence) else { return Ok(None) };
		let mut hashes: Vec<Hash> = race.trace(host, opening.nonce)?.hashes().into_iter().map(Hash::from).collect();
		let wrong = match how {
			Answering::WrongInput => hashes.first_mut(),
			Answering::WrongLayer(layer) => hashes.get_mut(layer as usize + 1),
			Answering::Truth | Answering::Silence => None,
		};
		if let Some(hash) = wrong {
			*hash = Hash::repeat_byte(0xEE);
		}
		Ok(Some(DutyCall::Answer { race: dispute.race, dispute: dispute.id, opening, hashes }))
	}

	/// The next openings to post after a demand, of `sampled` positions that are not posted yet.
	pub fn post(&self, how: Posting, sampled: &[u32], demand: &DemandView) -> Option<DutyCall> {
		let posted: BTreeSet<u32> = demand.posted.iter().map(|(position, _)| *position).collect();
		let open = sampled.iter().filter(|p| how == Posting::WhatOpens && !posted.contains(*p));
		let openings: Vec<Opening> = open.filter_map(|p| self.tree.open(*p)).take(MAX_POSTED as usize).collect();
		(!openings.is_empty()).then_some(DutyCall::PostOpenings { openings })
	}
}

/// A refutation that is false: a layer's true input, whose output is what the Host says it is. `None` while the Host
/// has not answered.
///
/// # Errors
/// If the race's shape is none.
pub fn false_refutation(race: &RaceOf, dispute: &DisputeView) -> anyhow::Result<Option<DutyCall>> {
	let Some((nonce, _)) = &dispute.answer else { return Ok(None) };
	let trace = race.trace(dispute.subject.as_ref(), *nonce)?;
	let Some(x) = trace.states.first() else { return Ok(None) };
	let state = x.iter().map(|value| value.to_ne_bytes()[0]).collect();
	Ok(Some(DutyCall::Refute { race: dispute.race, dispute: dispute.id, step: Step::Layer { index: 0, state } }))
}

/// Disputes against a Host that wait for its answer.
pub fn unanswered<'a>(view: &'a SprintView, host: &'a AccountId) -> impl Iterator<Item = &'a DisputeView> + 'a {
	view.disputes.iter().filter(move |dispute| dispute.subject == *host && dispute.answer.is_none())
}

/// Remembers when something was last said, so that it is repeated only if it may have been lost.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
	at: BTreeMap<(AccountId, String), Slot>,
}

impl Repeats {
	/// Slots after which something that did not reach the chain is said again.
	const AGAIN: u64 = 4;

	/// Whether it is time that `who` says `what` (again); notes that it is said.
	pub fn is_due(&mut self, who: &AccountId, what: impl Into<String>, slot: Slot) -> bool {
		let last = self.at.entry((who.clone(), what.into())).or_insert(Slot::MAX);
		let due = *last == Slot::MAX || slot >= last.saturating_add(Self::AGAIN);
		if due {
			*last = slot;
		}
		due
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn claim_should_know_its_fakes_when_they_stand_among_found_nonces() {
		let claim = Claim::mixed(vec![2, 5, 9, 30], &[6, 31, 5]);
		assert_eq!(claim.served, [2, 5, 6, 9, 30, 31]);
		assert_eq!(claim.fakes, BTreeSet::from([1, 2, 5]));
		assert!((0..6).all(|position| claim.tree.open(position).is_some()), "it is a proper list");
	}
}
