//! One-shot facts: submitted again until the chain answers that it knows them.
//!
//! Invariants
//! 1. A fact is told once per epoch and subject; when the chain says *stale* it is there and nothing more is sent.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
	Sent(Slot),
	Done,
}

/// Facts of this epoch and how far they are.
pub struct OneShots {
	api: Api,
	key: KeyPair,
	/// By epoch, kind and subject: which call, and its state.
	facts: BTreeMap<(EpochIndex, u8, Vec<u8>), State>,
}

/// Kind and subject: what makes a fact unique. How a vote goes is not part of it.
fn subject(call: &DutyCall) -> (u8, Vec<u8>) {
	let subject = match call {
		DutyCall::VoteCount { subject, .. } => subject.encode(),
		DutyCall::VoteInference { batch, index, .. } => (batch, index).encode(),
		_ => Vec::new(),
	};
	(call.kind() as u8, subject)
}

impl OneShots {
	/// None yet.
	pub fn new(api: Api, key: KeyPair) -> Self {
		Self { api, key, facts: BTreeMap::new() }
	}

	/// Whether nothing more has to be done about the call's fact in this epoch.
	pub fn is_done(&self, epoch: EpochIndex, call: &DutyCall) -> bool {
		let (kind, subject) = subject(call);
		self.facts.get(&(epoch, kind, subject)) == Some(&State::Done)
	}

	/// Sends the fact unless it is known or under way. Returns whether it is known to be on chain (or can never be).
	pub async fn ensure(&mut self, view: &View, call: DutyCall) -> bool {
		let Some(me) = view.me.clone() else { return false };
		let epoch = view.epoch();
		self.facts.retain(|(e, _, _), _| *e >= epoch);
		let (kind, subject) = subject(&call);
		let fact = (epoch, kind, subject);
		match self.facts.get(&fact) {
			Some(State::Done) => return true,
			Some(State::Sent(at)) if view.slot() < at.saturating_add(RESEND_SLOTS) => return false,
			_ => {},
		}
		let name = call.kind();
		let header = DutyHeader { host: me, epoch, nonce: 0, valid_until: view.slot().saturating_add(VALIDITY_SLOTS) };
		let state = match self.api.submit(self.key.sign_call(&self.api.genesis, header, call)).await {
			Ok(()) | Err(Error::Refused(Refusal::Waiting | Refusal::Later)) => State::Sent(view.slot()),
			Err(Error::Refused(Refusal::Stale)) => State::Done,
			Err(Error::Refused(Refusal::Pacer(Rejection::WrongPhase))) => return false,
			Err(Error::Refused(why)) => {
				tracing::warn!("{name:?} was refused: {}", why.in_words());
				// It will not become true by repetition, except where something else must come first.
				match why {
					Refusal::Pacer(Rejection::NotEntitled | Rejection::Malformed | Rejection::UnknownSubject) => State::Done,
					_ => State::Sent(view.slot()),
				}
			},
			Err(e) => {
				tracing::debug!("{name:?} could not be sent: {e}");
				return false;
			},
		};
		self.facts.insert(fact, state);
		state == State::Done
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
		assert!(!once.ensure(&chain.view(0), call.clone()).await);
		assert!(!once.ensure(&chain.view(0), call.clone()).await);
		assert_eq!(chain.submitted().len(), 1, "not again before some slots passed");
		chain.advance(RESEND_SLOTS);
		chain.refuse_next(Refusal::Stale);
		assert!(once.ensure(&chain.view(0), call.clone()).await);
		chain.advance(RESEND_SLOTS);
		assert!(once.ensure(&chain.view(0), call).await);
		assert_eq!(chain.submitted().len(), 1);
	}
}
