//! One-shot facts: submitted again until the chain knows them.
//!
//! A *fact* is told once per epoch and subject; when the chain says *stale* it is there, and nothing more is sent. A
//! *move* in a dispute is a fact that its speaker sees on chain: whoever makes it asks again for as long as it is due,
//! so it is never taken for done here. Silence loses a dispute, and a fork may take back what was known.
//!
//! Invariants
//! 1. The same fact is not sent again within [`RESEND_SLOTS`], or [`RETRY_SLOTS`] if it was refused.
//! 2. Facts of past epochs are forgotten.

use std::collections::BTreeMap;

use codec::Encode;
use pacer_types::{DutyCall, DutyHeader, EpochIndex, Rejection, Slot};

use crate::{
	chain::{Api, View, VALIDITY_SLOTS},
	error::{Error, Refusal},
	keys::KeyPair,
};

/// Slots after which a fact that is not on chain yet is sent again.
const RESEND_SLOTS: u64 = 6;
/// Slots after which a fact that was refused is tried again: room for a dispute may come with any block.
const RETRY_SLOTS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
	Sent(Slot),
	Refused(Slot, Refusal),
	Done,
}

/// What came of telling a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
	/// It was sent for the first time.
	First,
	/// It was sent, now or before, or could not be sent now.
	Waiting,
	/// The chain knows it, or will never take it.
	Known,
}

/// Facts of this epoch and how far they are.
pub struct OneShots {
	api: Api,
	key: KeyPair,
	/// By epoch, kind and subject.
	facts: BTreeMap<(EpochIndex, u8, Vec<u8>), State>,
}

/// Kind and subject: what makes a fact unique. How a vote goes is not part of it.
fn subject(call: &DutyCall) -> (u8, Vec<u8>) {
	let subject = match call {
		DutyCall::VoteInference { batch, index, .. } => (batch, index).encode(),
		DutyCall::Challenge { race, subject, position } => (race, subject, position).encode(),
		DutyCall::Answer { race, dispute, .. } | DutyCall::Refute { race, dispute, .. } => (race, dispute).encode(),
		DutyCall::DemandList { subject, with_deposit } => (subject, with_deposit).encode(),
		DutyCall::PostOpenings { openings } => openings.first().map(|o| o.position).encode(),
		_ => Vec::new(),
	};
	(call.kind() as u8, subject)
}

/// Whether its speaker sees on chain that it is still due.
fn is_move(call: &DutyCall) -> bool {
	matches!(call, DutyCall::Answer { .. } | DutyCall::Refute { .. } | DutyCall::PostOpenings { .. })
}

impl OneShots {
	/// None yet.
	pub fn new(api: Api, key: KeyPair) -> Self {
		Self { api, key, facts: BTreeMap::new() }
	}

	/// Sends the fact unless it is known or under way.
	pub async fn ensure(&mut self, view: &View, call: DutyCall) -> Told {
		let Some(me) = view.me.clone() else { return Told::Waiting };
		let epoch = view.epoch();
		self.facts.retain(|(e, _, _), _| *e >= epoch);
		let (kind, subject) = subject(&call);
		let fact = (epoch, kind, subject);
		let before = self.facts.get(&fact).copied();
		match before {
			Some(State::Done) => return Told::Known,
			Some(State::Sent(at)) if view.slot() < at.saturating_add(RESEND_SLOTS) => return Told::Waiting,
			Some(State::Refused(at, _)) if view.slot() < at.saturating_add(RETRY_SLOTS) => return Told::Waiting,
			_ => {},
		}
		let (name, is_move) = (call.kind(), is_move(&call));
		let is_dispute = is_move || matches!(call, DutyCall::Challenge { .. } | DutyCall::DemandList { .. });
		let header = DutyHeader { host: me, epoch, nonce: 0, valid_until: view.slot().saturating_add(VALIDITY_SLOTS) };
		let state = match self.api.submit(self.key.sign_call(&self.api.genesis, header, call)).await {
			Ok(()) | Err(Error::Refused(Refusal::Waiting | Refusal::Later)) => State::Sent(view.slot()),
			Err(Error::Refused(Refusal::Stale)) if is_move => State::Sent(view.slot()),
			Err(Error::Refused(Refusal::Stale)) => State::Done,
			Err(Error::Refused(Refusal::Pacer(Rejection::WrongPhase))) => return Told::Waiting,
			Err(Error::Refused(why)) => {
				if !matches!(before, Some(State::Refused(_, old)) if old == why) {
					tracing::warn!("{name:?} was refused: {}", why.in_words());
				}
				// It will not become true by repetition, except where something else must come first: a dispute that this
				// agent sees may be news to a pool that judges by an older block.
				let is_final =
					matches!(why, Refusal::Pacer(Rejection::NotEntitled | Rejection::Malformed | Rejection::UnknownSubject));
				if is_final && !is_dispute {
					State::Done
				} else {
					State::Refused(view.slot(), why)
				}
			},
			Err(e) => {
				tracing::debug!("{name:?} could not be sent: {e}");
				return Told::Waiting;
			},
		};
		self.facts.insert(fact, state);
		match (before, state) {
			(_, State::Done) => Told::Known,
			(None | Some(State::Refused(..)), State::Sent(_)) => Told::First,
			_ => Told::Waiting,
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::testing::FakeChain;

	#[tokio::test]
	async fn fact_should_be_resent_until_the_chain_knows_it() {
		let chain = FakeChain::four_hosts();
		let mut once = OneShots::new(chain.api(), chain.key(0));
		let call = DutyCall::RevealDutySeed { pre_output: [1; 32], proof: [2; 64] };
		assert_eq!(once.ensure(&chain.view(0), call.clone()).await, Told::First);
		assert_eq!(once.ensure(&chain.view(0), call.clone()).await, Told::Waiting);
		assert_eq!(chain.submitted().len(), 1, "not again before some slots passed");
		chain.advance(RESEND_SLOTS);
		chain.refuse_next(Refusal::Stale);
		assert_eq!(once.ensure(&chain.view(0), call.clone()).await, Told::Known);
		chain.advance(RESEND_SLOTS);
		assert_eq!(once.ensure(&chain.view(0), call).await, Told::Known);
		assert_eq!(chain.submitted().len(), 1);
	}

	#[tokio::test]
	async fn move_should_be_resent_for_as_long_as_it_is_asked_for() {
		let chain = FakeChain::four_hosts();
		let mut once = OneShots::new(chain.api(), chain.key(0));
		let step = pacer_sprint::Step::Input;
		let call = DutyCall::Refute { race: 5, dispute: 3, step };
		for why in [Refusal::Stale, Refusal::Pacer(Rejection::UnknownSubject)] {
			chain.refuse_next(why);
			assert_ne!(once.ensure(&chain.view(0), call.clone()).await, Told::Known);
			chain.advance(RESEND_SLOTS);
		}
		assert_eq!(once.ensure(&chain.view(0), call.clone()).await, Told::First, "the first that was not refused");
		let other = DutyCall::Refute { race: 5, dispute: 4, step: pacer_sprint::Step::Input };
		assert_eq!(once.ensure(&chain.view(0), other).await, Told::First, "another dispute is another move");
		assert_eq!(chain.submitted().len(), 2);
	}
}
