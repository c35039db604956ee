//! The off-chain worker: deals and opens for every committee member whose node key is in this node's keystore.
//!
//! Secrets follow from a random seed that is written to the node's persistent off-chain storage before the first
//! dealing leaves, so a node that restarts opens what it dealt. They are never logged.
//!
//! A member opens only after the block that closed what it opens is **final** ([`crate::Round::closed_for`]): else a
//! fork could change what the value judges after it was shown. The node's native side writes the finalised height, a
//! SCALE-encoded `u32`, under [`FINALIZED_KEY`]; where nothing is written, nothing is opened.

use codec::Encode;
use frame_system::{offchain::SubmitTransaction, pallet_prelude::BlockNumberFor};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader},
	node_key,
	traits::{BeaconValue, EpochClock, HostRegistry, NodeKeyOwner},
	AccountId, BlockNumber, EpochIndex, Hash, Moment,
};
use sp_runtime::{
	offchain::{
		storage::{MutateStorageError, StorageRetrievalError, StorageValueRef},
		storage_lock::{StorageLock, Time},
		Duration,
	},
	traits::SaturatedConversion,
	RuntimeAppPublic,
};

use crate::{Call, Config, Dealing, Dealings, Openings, Pallet, Rounds};

/// Where the node writes the height of the last final block.
pub const FINALIZED_KEY: &[u8] = b"pacer/finalized";
/// Where the seed of all secrets is kept.
const SEED_KEY: &[u8] = b"pacer/beacon/seed";
/// One worker at a time.
const LOCK_KEY: &[u8] = b"pacer/beacon/lock";
/// After this time a lock that nobody released is free again.
const LOCK_MS: u64 = 5_000;
/// Target of log lines.
const LOG: &str = "pacer::randomness";
/// Blocks after which something that is not on chain is sent again.
const RESEND_BLOCKS: BlockNumber = 4;
/// Slots for which a payload is valid.
const VALID_SLOTS: u64 = 32;

/// What is sent: the dealing, or an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode)]
enum Duty {
	Deal,
	Open(BeaconValue),
}

impl<T: Config> Pallet<T> {
	/// Does what is due after this block.
	pub(crate) fn run_duties(now: BlockNumberFor<T>) {
		let moment = T::Clock::now();
		let duty = if Self::may_deal(&moment) {
			Duty::Deal
		} else if let Some(which) = Self::opening_now(&moment) {
			Duty::Open(which)
		} else {
			return;
		};
		let mut lock = StorageLock::<Time>::with_deadline(LOCK_KEY, Duration::from_millis(LOCK_MS));
		let Ok(_guard) = lock.try_lock() else { return };
		for key in node_key::Public::all() {
			let Some(host) = T::NodeKeyOwner::owner(&key).filter(T::Hosts::is_host) else { continue };
			match duty {
				Duty::Deal => Self::send_dealing(&moment, now, host, key),
				Duty::Open(which) => Self::send_opening(&moment, now, host, key, which),
			}
		}
	}

	fn send_dealing(moment: &Moment, now: BlockNumberFor<T>, host: AccountId, key: node_key::Public) {
		let epoch = moment.epoch;
		let member = Self::committee(epoch).iter().any(|m| m.host == host);
		if !member || Dealings::<T>::contains_key(epoch, &host) || !claim_turn::<T>(&key, epoch, Duty::Deal, now) {
			return;
		}
		let Some(seed) = seed() else { return };
		let commitment = |which| {
			let context = Self::context(epoch, which);
			let account: [u8; 32] = host.clone().into();
			Hash::from(context.commitment(&account, &context.secret(&seed, &account)))
		};
		let dealing = Dealing { race: commitment(BeaconValue::Race), audit: commitment(BeaconValue::Audit) };
		let header = header(moment, host);
		let body = (dealing.race, dealing.audit);
		let message = signing_hash(&Self::genesis_hash(), &header, CallKind::Deal, &body);
		let Some(signature) = key.sign(&message) else { return };
		let call = Call::<T>::deal { header, key, race_commitment: body.0, audit_commitment: body.1, signature };
		submit::<T>(call, epoch, "dealing");
	}

	fn send_opening(moment: &Moment, now: BlockNumberFor<T>, host: AccountId, key: node_key::Public, which: BeaconValue) {
		let epoch = moment.epoch;
		let Some(dealing) = Dealings::<T>::get(epoch, &host) else { return };
		if Openings::<T>::contains_key((epoch, which), &host) {
			return;
		}
		let Some(round) = Rounds::<T>::get(epoch).filter(|round| round.dealt) else { return };
		let Some(closed) = round.closed_for(which) else { return };
		let finalized = StorageValueRef::persistent(FINALIZED_KEY).get::<BlockNumber>().ok().flatten();
		if finalized.is_none_or(|height| height < closed) {
			log::debug!(target: LOG, "waiting to open the {which:?} value of epoch {epoch}: block {closed} is not final yet");
			return;
		}
		if !claim_turn::<T>(&key, epoch, Duty::Open(which), now) {
			return;
		}
		let Some(seed) = seed() else { return };
		let secret = Self::context(epoch, which).secret(&seed, &host.clone().into());
		if !Self::opens(epoch, which, &host, &dealing, &secret) {
			log::warn!(
				target: LOG,
				"cannot open the {which:?} value of epoch {epoch}: another node with the same key dealt, or this node's off-chain storage was lost",
			);
			return;
		}
		let header = header(moment, host);
		let message = signing_hash(&Self::genesis_hash(), &header, CallKind::Open, &(which, secret));
		let Some(signature) = key.sign(&message) else { return };
		let what = match which {
			BeaconValue::Race => "opening of the race value",
			BeaconValue::Audit => "opening of the audit value",
		};
		submit::<T>(Call::<T>::open { header, key, which, secret, signature }, epoch, what);
	}
}

fn header(moment: &Moment, host: AccountId) -> DutyHeader {
	DutyHeader { host, epoch: moment.epoch, nonce: 0, valid_until: moment.slot.saturating_add(VALID_SLOTS) }
}

fn submit<T: Config>(call: Call<T>, epoch: EpochIndex, what: &str) {
	let extrinsic = T::create_authorized_transaction(call.into());
	match SubmitTransaction::<T, Call<T>>::submit_transaction(extrinsic) {
		Ok(()) => log::info!(target: LOG, "sent the {what} of epoch {epoch}"),
		Err(()) => log::debug!(target: LOG, "the pool did not take the {what} of epoch {epoch}; trying again"),
	}
}

/// The seed of this node's secrets, drawn once and kept.
fn seed() -> Option<[u8; 32]> {
	let kept = StorageValueRef::persistent(SEED_KEY);
	let outcome = kept.mutate(|seed: Result<Option<[u8; 32]>, StorageRetrievalError>| match seed {
		Ok(Some(seed)) => Ok(seed),
		Ok(None) => Ok(sp_io::offchain::random_seed()),
		Err(e) => Err(e),
	});
	match outcome {
		Ok(seed) => Some(seed),
		// Another worker wrote at the same time: what it wrote counts.
		Err(MutateStorageError::ConcurrentModification(_)) => kept.get().ok().flatten(),
		Err(MutateStorageError::ValueFunctionFailed(_)) => {
			log::error!(target: LOG, "the seed in off-chain storage is damaged; this node cannot deal or open");
			None
		}
	}
}

/// Whether it is time to send (again). The worker runs at every block, also of forks.
fn claim_turn<T: Config>(key: &node_key::Public, epoch: EpochIndex, duty: Duty, now: BlockNumberFor<T>) -> bool {
	let now: BlockNumber = now.saturated_into();
	let name = (b"pacer/beacon/sent", key, duty).encode();
	let outcome =
		StorageValueRef::persistent(&name).mutate(|sent: Result<Option<(EpochIndex, BlockNumber)>, StorageRetrievalError>| {
			match sent {
				Ok(Some((e, at))) if e == epoch && now >= at && now < at.saturating_add(RESEND_BLOCKS) => Err(()),
				_ => Ok((epoch, now)),
			}
		});
	outcome.is_ok()
}
