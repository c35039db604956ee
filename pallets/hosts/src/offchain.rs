//! The off-chain worker: one heartbeat an epoch, signed by the node's key.

use frame_system::{offchain::SubmitTransaction, pallet_prelude::BlockNumberFor};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader},
	node_key,
	traits::{EpochClock, NodeKeyOwner},
};
use sp_runtime::{
	offchain::{
		storage::{MutateStorageError, StorageRetrievalError, StorageValueRef},
		storage_lock::{StorageLock, Time},
		Duration,
	},
	RuntimeAppPublic,
};

use crate::{Call, Config, Heartbeats, Hosts, Pallet};

/// Target of log lines.
const LOG: &str = "pacer::hosts";
/// Blocks after which an unseen heartbeat is sent again.
const RESEND_BLOCKS: u32 = 6;

impl<T: Config> Pallet<T> {
	/// Sends the epoch's heartbeat for every Host whose node key is in this node's keystore.
	pub(crate) fn send_heartbeat(now: BlockNumberFor<T>) {
		let mut lock = StorageLock::<Time>::with_deadline(b"pacer/heartbeat/lock", Duration::from_millis(5_000));
		let Ok(_guard) = lock.try_lock() else { return };
		let moment = T::Clock::now();
		for key in node_key::Public::all() {
			let Some(host) = T::NodeKeyOwner::owner(&key) else { continue };
			if !Hosts::<T>::contains_key(&host) || Heartbeats::<T>::contains_key(moment.epoch, &host) {
				continue;
			}
			if !Self::claim_turn(&key, moment.epoch, now) {
				continue;
			}
			let valid_until = moment.slot.saturating_add(32);
			let header = DutyHeader { host, epoch: moment.epoch, nonce: 0, valid_until };
			let message = signing_hash(&Self::genesis_hash(), &header, CallKind::Heartbeat, &());
			let Some(signature) = key.sign(&message) else { continue };
			let epoch = header.epoch;
			let call = Call::<T>::heartbeat { header, key, signature };
			let extrinsic = T::create_authorized_transaction(call.into());
			match SubmitTransaction::<T, Call<T>>::submit_transaction(extrinsic) {
				Ok(()) => log::info!(target: LOG, "sent the heartbeat of epoch {epoch}"),
				Err(()) => log::debug!(target: LOG, "the pool did not take the heartbeat of epoch {epoch}; trying again"),
			}
		}
	}

	/// Whether it is time to send (again). The worker runs at every block, also of forks.
	fn claim_turn(key: &node_key::Public, epoch: u32, now: BlockNumberFor<T>) -> bool {
		let name = codec::Encode::encode(&(b"pacer/heartbeat", key));
		let last = StorageValueRef::persistent(&name);
		let resend: BlockNumberFor<T> = RESEND_BLOCKS.into();
		let outcome = last.mutate(|sent: Result<Option<(u32, BlockNumberFor<T>)>, StorageRetrievalError>| match sent {
			Ok(Some((e, at))) if e == epoch && now < at + resend && now >= at => Err(()),
			_ => Ok((epoch, now)),
		});
		!matches!(outcome, Err(MutateStorageError::ValueFunctionFailed(())))
	}
}
