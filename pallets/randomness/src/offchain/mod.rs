//! The off-chain worker: registers keys, deals and opens for every committee member whose node key is in this node's
//! keystore. It runs after each new best block, also of forks.
//!
//! # Nothing twice
//! What it sends follows from the epoch's seed and from what the block's state says, nothing else: sent again, also after
//! a restart, a dealing has the same bytes. On a fork with other keys it is another dealing with other secrets, so two
//! dealings of one epoch never tell more than each alone. The chain takes one.
//!
//! # Nothing early
//! A member opens only when the block that closed what it opens ([`crate::Round::closed_for`]) is final and on this
//! chain: else a fork could change what the value judges after it was shown. The node's native side writes height and
//! hash of the last final block under [`FINALIZED_KEY`]; where nothing is written, nothing is opened.
//!
//! # Nothing lost
//! See [`memory`]: a seed is used only from a block after the one that drew it, so a process that is killed has not used
//! what it lost. A power cut may take more; then the node is silent until the next epoch.

use alloc::vec::Vec;
use frame_system::{offchain::SubmitTransaction, pallet_prelude::BlockNumberFor};
use pacer_beacon::{EncryptionKey, SecretKey};
use pacer_types::{
	beacon::BeaconDuty,
	duty::{signing_hash, CallKind, DutyHeader},
	node_key,
	traits::{BeaconValue, EpochClock, HostRegistry, NodeKeyOwner},
	AccountId, BlockNumber, EpochIndex, Hash, Moment,
};
use sp_runtime::{
	offchain::{
		storage::StorageValueRef,
		storage_lock::{StorageLock, Time},
		Duration,
	},
	traits::SaturatedConversion,
	RuntimeAppPublic,
};

use crate::{
	committee::{bytes, committee_hash, find, live_slots},
	Call, Config, Members, Pallet, Rounds, LOG,
};

pub mod memory;

/// Where the node writes height and hash of the last final block.
pub const FINALIZED_KEY: &[u8] = b"pacer/finalized";
/// One worker at a time.
const LOCK_KEY: &[u8] = b"pacer/beacon/lock";
/// After this time a lock that nobody released is free again. Two dealings take a tenth of a second of WebAssembly, maybe
/// ten times that on a busy machine; much longer only a dead worker holds it.
const LOCK_DEALING_MS: u64 = 10_000;
/// The same for what takes milliseconds; short, because opening windows are.
const LOCK_MS: u64 = 3_000;
/// Slots for which a payload is valid.
const VALID_SLOTS: u64 = 32;

/// A Host whose node this is, with what it needs to speak.
struct Speaker {
	host: AccountId,
	key: node_key::Public,
	/// What it registered on chain.
	registered: Option<EncryptionKey>,
}

impl<T: Config> Pallet<T> {
	/// Does what is due after this block.
	pub(crate) fn run_duties(now: BlockNumberFor<T>) {
		let moment = T::Clock::now();
		let Some(duty) = Self::duty_now(&moment) else { return };
		memory::wipe(moment.epoch);
		let members = Self::committee(moment.epoch);
		let due = Self::speakers(&members, moment.epoch, duty);
		if due.is_empty() || !Self::is_time(moment.epoch, duty) {
			return;
		}
		let lock_ms = if duty == BeaconDuty::Deal { LOCK_DEALING_MS } else { LOCK_MS };
		let mut lock = StorageLock::<Time>::with_deadline(LOCK_KEY, Duration::from_millis(lock_ms));
		let Ok(_guard) = lock.try_lock() else { return };
		let height: BlockNumber = now.saturated_into();
		let Some(seed) = memory::seed(moment.epoch, height) else { return };
		for speaker in due {
			if memory::claim_turn(&speaker.key, moment.epoch, duty, moment.phase, height) {
				Self::speak(&moment, &members, speaker, duty, &seed);
			}
		}
	}

	/// What members owe at this moment.
	fn duty_now(moment: &Moment) -> Option<BeaconDuty> {
		if Self::may_register(moment.epoch, moment.phase) {
			Some(BeaconDuty::Key)
		} else if Self::may_deal(moment) {
			Some(BeaconDuty::Deal)
		} else {
			Self::opening_now(moment).map(BeaconDuty::Open)
		}
	}

	/// The members whose node this is and that have not done it yet.
	fn speakers(members: &Members, epoch: EpochIndex, duty: BeaconDuty) -> Vec<Speaker> {
		let speaker = |key: node_key::Public| {
			let host = T::NodeKeyOwner::owner(&key).filter(T::Hosts::is_host)?;
			let registered = find(members, &host)?.key;
			let open = match duty {
				BeaconDuty::Key => registered.is_none() && !Self::was_rejected(epoch, &host, duty),
				BeaconDuty::Deal => registered.is_some() && !Self::has_dealt(epoch, &host),
				BeaconDuty::Open(which) => registered.is_some() && !Self::has_opened(epoch, which, &host),
			};
			open.then_some(Speaker { host, key, registered })
		};
		node_key::Public::all().into_iter().filter_map(speaker).collect()
	}

	/// Whether the duty can be done without harm: an opening waits for finality, on this chain.
	fn is_time(epoch: EpochIndex, duty: BeaconDuty) -> bool {
		let BeaconDuty::Open(which) = duty else { return true };
		let Some(closed) = Rounds::<T>::get(epoch).filter(|r| r.can_open()).and_then(|r| r.closed_for(which)) else {
			return false;
		};
		let last = StorageValueRef::persistent(FINALIZED_KEY).get::<(BlockNumber, Hash)>();
		if last.is_err() {
			log::warn!(target: LOG, "cannot read which block is final: this node is of another version than its runtime");
		}
		let last = last.ok().flatten();
		let is_final = last.is_some_and(|(height, hash)| {
			height >= closed && frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::from(height)) == hash
		});
		if !is_final {
			log::debug!(target: LOG, "waiting to open the {which:?} value of epoch {epoch}: block {closed} is not final here yet");
		}
		is_final
	}

	/// Makes and sends what the duty asks for.
	fn speak(moment: &Moment, members: &Members, speaker: Speaker, duty: BeaconDuty, seed: &[u8; 32]) {
		let epoch = moment.epoch;
		let account = bytes(&speaker.host);
		let secret = SecretKey::from_seed(seed, &Self::genesis_hash().0, epoch, &account);
		if speaker.registered.is_some_and(|key| key != secret.public()) {
			log::warn!(
				target: LOG,
				"silent in epoch {epoch}: another node with the same key registered, or this node's off-chain storage was lost",
			);
			return;
		}
		let header = DutyHeader { host: speaker.host, epoch, nonce: 0, valid_until: moment.slot.saturating_add(VALID_SLOTS) };
		let (what, call) = match duty {
			BeaconDuty::Key => ("key", Self::key_call(header, speaker.key, &secret)),
			BeaconDuty::Deal => ("dealing", Self::deal_call(header, speaker.key, members, seed)),
			BeaconDuty::Open(which) => (opening_name(which), Self::open_call(header, speaker.key, members, which, &secret)),
		};
		let Some(call) = call else {
			log::error!(target: LOG, "cannot make the {what} of epoch {epoch}");
			return;
		};
		match SubmitTransaction::<T, Call<T>>::submit_transaction(T::create_authorized_transaction(call.into())) {
			Ok(()) => log::info!(target: LOG, "sent the {what} of epoch {epoch}"),
			Err(()) => log::debug!(target: LOG, "the pool did not take the {what} of epoch {epoch}; trying again"),
		}
	}

	fn sign(
		header: &DutyHeader,
		key: &node_key::Public,
		kind: CallKind,
		body: &impl codec::Encode,
	) -> Option<node_key::Signature> {
		key.sign(&signing_hash(&Self::genesis_hash(), header, kind, body))
	}

	fn key_call(header: DutyHeader, key: node_key::Public, secret: &SecretKey) -> Option<Call<T>> {
		let (encryption_key, genesis) = (secret.public(), Self::genesis_hash().0);
		let proof = secret.prove(&genesis, header.epoch, &bytes(&header.host));
		let signature = Self::sign(&header, &key, CallKind::RegisterKey, &(encryption_key, proof))?;
		Some(Call::register_key { header, key, encryption_key, proof, signature })
	}

	fn deal_call(header: DutyHeader, key: node_key::Public, members: &Members, seed: &[u8; 32]) -> Option<Call<T>> {
		let committee = Self::protocol_committee(members)?;
		let deal = |which| {
			let dealing = Self::context(header.epoch, which).deal(&committee, &bytes(&header.host), seed).ok()?;
			crate::DealingBytes::try_from(dealing.encode()).ok()
		};
		let (race, audit) = (deal(BeaconValue::Race)?, deal(BeaconValue::Audit)?);
		let signature = Self::sign(&header, &key, CallKind::Deal, &(committee_hash(members), &race, &audit))?;
		Some(Call::deal { header, key, race, audit, signature })
	}

	fn open_call(
		header: DutyHeader,
		key: node_key::Public,
		members: &Members,
		which: BeaconValue,
		secret: &SecretKey,
	) -> Option<Call<T>> {
		let committee = Self::protocol_committee(members)?;
		let sum = Self::sum(header.epoch, which, live_slots(members))?;
		let opening = Self::context(header.epoch, which).open(&committee, &sum, &bytes(&header.host), secret).ok()?;
		let opening = crate::OpeningBytes::try_from(opening.encode()).ok()?;
		let signature = Self::sign(&header, &key, CallKind::Open, &(which, &opening))?;
		Some(Call::open { header, key, which, opening, signature })
	}
}

fn opening_name(which: BeaconValue) -> &'static str {
	match which {
		BeaconValue::Race => "opening of the race value",
		BeaconValue::Audit => "opening of the audit value",
	}
}
