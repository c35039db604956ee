//! From weights to authorities (`design/architecture.md`, "Activation").
//!
//! The stock handlers of BABE and GRANDPA give every authority weight 1. The two here look up (session, account) in
//! the weights of the Sprint and never filter or reorder, because session, BABE and authorship share indices.
//!
//! Switch is the last session of an epoch. In its first block `new_session` is asked for the session after it, freezes
//! the weights and returns the new set: BABE announces it there and uses it from the next session's first block, in
//! which GRANDPA's change (delay 0) is scheduled too. All other sessions return `None`.

use alloc::vec::Vec;
use frame_support::{
	traits::{Get, OneSessionHandler},
	WeakBoundedVec,
};
use pacer_types::{node_key, traits::EpochClock, AccountId, SessionIndex};
use sp_consensus_babe::AuthorityId as BabeId;
use sp_consensus_grandpa::AuthorityId as GrandpaId;
use sp_runtime::{impl_opaque_keys, traits::OpaqueKeys, BoundToRuntimeAppPublic};

use crate::{Babe, Grandpa, Runtime, Session, Sprint};

impl_opaque_keys! {
	/// The session keys of a Host's node.
	pub struct SessionKeys {
		/// Block production.
		pub babe: WeightedBabe,
		/// Finality.
		pub grandpa: WeightedGrandpa,
		/// Heartbeats and randomness.
		pub node: NodeKeys,
	}
}

/// Consensus weights of a session.
struct Weights(Vec<(AccountId, u64)>);

impl Weights {
	fn of(session: SessionIndex) -> Self {
		Self(Sprint::weights_for_session(session).into_iter().map(|w| (w.host, w.consensus)).collect())
	}

	/// The account's weight. An authority always has one; were it missing, 1 keeps its node alive, for a zero weight
	/// panics it.
	fn get(&self, who: &AccountId) -> u64 {
		match self.0.binary_search_by(|(account, _)| account.cmp(who)) {
			Ok(i) => self.0.get(i).map_or(1, |(_, w)| (*w).max(1)),
			Err(_) => 1,
		}
	}
}

/// BABE with the Sprint's weights.
pub struct WeightedBabe;

impl BoundToRuntimeAppPublic for WeightedBabe {
	type Public = BabeId;
}

impl WeightedBabe {
	fn authorities<'a>(
		weights: &Weights,
		validators: impl Iterator<Item = (&'a AccountId, BabeId)>,
	) -> WeakBoundedVec<(BabeId, u64), <Runtime as pallet_babe::Config>::MaxAuthorities> {
		let list: Vec<_> = validators.map(|(who, key)| (key, weights.get(who))).collect();
		WeakBoundedVec::force_from(list, Some("more authorities than BABE allows"))
	}
}

impl OneSessionHandler<AccountId> for WeightedBabe {
	type Key = BabeId;

	fn on_genesis_session<'a, I: 'a>(validators: I)
	where
		I: Iterator<Item = (&'a AccountId, BabeId)>,
	{
		let authorities = Self::authorities(&Weights::of(0), validators);
		pallet_babe::Authorities::<Runtime>::put(&authorities);
		pallet_babe::NextAuthorities::<Runtime>::put(&authorities);
	}

	fn on_new_session<'a, I: 'a>(_changed: bool, validators: I, queued_validators: I)
	where
		I: Iterator<Item = (&'a AccountId, BabeId)>,
	{
		let session = Session::current_index();
		let now = Self::authorities(&Weights::of(session), validators);
		let next = Self::authorities(&Weights::of(session.saturating_add(1)), queued_validators);
		Babe::enact_epoch_change(now, next, Some(session));
	}

	fn on_disabled(index: u32) {
		<Babe as OneSessionHandler<AccountId>>::on_disabled(index)
	}
}

/// GRANDPA with the Sprint's weights.
pub struct WeightedGrandpa;

impl BoundToRuntimeAppPublic for WeightedGrandpa {
	type Public = GrandpaId;
}

impl OneSessionHandler<AccountId> for WeightedGrandpa {
	type Key = GrandpaId;

	fn on_genesis_session<'a, I: 'a>(validators: I)
	where
		I: Iterator<Item = (&'a AccountId, GrandpaId)>,
	{
		let weights = Weights::of(0);
		let list: Vec<_> = validators.map(|(who, key)| (key, weights.get(who))).collect();
		pallet_grandpa::Authorities::<Runtime>::put(WeakBoundedVec::<_, <Runtime as pallet_grandpa::Config>::MaxAuthorities>::force_from(
			list,
			Some("more authorities than GRANDPA allows"),
		));
		pallet_grandpa::SetIdSession::<Runtime>::insert(0, 0);
	}

	fn on_new_session<'a, I: 'a>(changed: bool, validators: I, queued_validators: I)
	where
		I: Iterator<Item = (&'a AccountId, GrandpaId)>,
	{
		let weights = Weights::of(Session::current_index());
		let validators: Vec<_> = validators.collect();
		let weighted: Vec<_> = validators.iter().map(|(who, key)| (key.clone(), weights.get(who))).collect();
		<Grandpa as OneSessionHandler<AccountId>>::on_new_session(changed, validators.into_iter(), queued_validators.collect::<Vec<_>>().into_iter());
		// The digest leaves in `on_finalize`, so the weights can still be written, but only into a change of this block.
		let now = frame_system::Pallet::<Runtime>::block_number();
		pallet_grandpa::PendingChange::<Runtime>::mutate(|pending| {
			if let Some(pending) = pending.as_mut().filter(|p| p.scheduled_at == now) {
				pending.next_authorities = WeakBoundedVec::force_from(weighted, Some("more authorities than GRANDPA allows"));
			}
		});
	}

	fn on_disabled(index: u32) {
		<Grandpa as OneSessionHandler<AccountId>>::on_disabled(index)
	}
}

/// The third session key needs no notice of sessions: its owner is looked up when it signs.
pub struct NodeKeys;

impl BoundToRuntimeAppPublic for NodeKeys {
	type Public = node_key::Public;
}

impl OneSessionHandler<AccountId> for NodeKeys {
	type Key = node_key::Public;

	fn on_genesis_session<'a, I: 'a>(_validators: I)
	where
		I: Iterator<Item = (&'a AccountId, node_key::Public)>,
	{
	}

	fn on_new_session<'a, I: 'a>(_changed: bool, _validators: I, _queued_validators: I)
	where
		I: Iterator<Item = (&'a AccountId, node_key::Public)>,
	{
	}

	fn on_disabled(_index: u32) {}
}

/// The handlers in the order of the keys.
pub type SessionHandlers = <SessionKeys as OpaqueKeys>::KeyTypeIdProviders;

/// Answers with the Hosts of a new epoch, and with `None` inside one.
pub struct EpochSessions;

impl pallet_session::SessionManager<AccountId> for EpochSessions {
	fn new_session(index: SessionIndex) -> Option<Vec<AccountId>> {
		Sprint::validators_for(index)
	}

	fn new_session_genesis(index: SessionIndex) -> Option<Vec<AccountId>> {
		Some(Sprint::weights_for_session(index).into_iter().map(|w| w.host).collect())
	}

	fn start_session(_index: SessionIndex) {}

	fn end_session(_index: SessionIndex) {}
}

impl pallet_session::historical::SessionManager<AccountId, ()> for EpochSessions {
	fn new_session(index: SessionIndex) -> Option<Vec<(AccountId, ())>> {
		<Self as pallet_session::SessionManager<_>>::new_session(index).map(with_unit)
	}

	fn new_session_genesis(index: SessionIndex) -> Option<Vec<(AccountId, ())>> {
		<Self as pallet_session::SessionManager<_>>::new_session_genesis(index).map(with_unit)
	}

	fn start_session(index: SessionIndex) {
		// Equivocations are judged within two epochs; older roots only cost space.
		let sets: u64 = <<Runtime as pallet_grandpa::Config>::MaxSetIdSessionEntries as Get<u64>>::get();
		let keep = sets.saturating_mul(u64::from(
			<Sprint as EpochClock>::params().epoch_sessions(),
		));
		let up_to = u64::from(index).saturating_sub(keep);
		pallet_session::historical::Pallet::<Runtime>::prune_up_to(u32::try_from(up_to).unwrap_or(0));
	}

	fn end_session(_index: SessionIndex) {}
}

fn with_unit(accounts: Vec<AccountId>) -> Vec<(AccountId, ())> {
	accounts.into_iter().map(|account| (account, ())).collect()
}

/// Whether the account's node has session keys; Hosts without are dropped from the set.
pub fn has_session_keys(who: &AccountId) -> bool {
	pallet_session::NextKeys::<Runtime>::contains_key(who)
}

