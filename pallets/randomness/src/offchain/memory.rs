//! What a node remembers in its persistent off-chain storage, which survives restarts and knows no forks.
//!
//! # Seeds
//! One random seed an epoch, from which the epoch's secret keys and all dealt secrets follow. It is drawn in one block and
//! used from a later one on: whatever is lost when the process is killed right after drawing it was never used. It is
//! wiped when the epoch after is over, so that whoever takes the disk later learns nothing of older epochs (as far as the
//! database overwrites what it is told to forget).
//!
//! # Turns
//! When each duty was last tried, so that what does not reach the chain is sent again, after 2, 4, 8 and then every 16
//! blocks.

use alloc::vec::Vec;
use codec::Encode;
use pacer_types::{beacon::BeaconDuty, node_key, BlockNumber, EpochIndex, Phase};
use sp_runtime::offchain::storage::{MutateStorageError, StorageRetrievalError, StorageValueRef};

use crate::LOG;

/// Where the seeds are.
pub const SEEDS_KEY: &[u8] = b"pacer/beacon/seeds";
/// Longest pause between two tries is `2^LAST_PAUSE` blocks.
const LAST_PAUSE: u32 = 4;

/// Seeds by epoch, each with the block that drew it.
type Seeds = Vec<(EpochIndex, BlockNumber, [u8; 32])>;

/// The node's seed of an epoch; `None` in the block that draws it.
pub fn seed(epoch: EpochIndex, now: BlockNumber) -> Option<[u8; 32]> {
	let outcome = StorageValueRef::persistent(SEEDS_KEY).mutate(|seeds: Result<Option<Seeds>, StorageRetrievalError>| {
		let mut seeds = seeds.unwrap_or_else(|_| {
			// What followed from them is lost; with new ones the node takes part again from the next epoch on.
			log::error!(target: LOG, "the seeds in off-chain storage were damaged; drawing new ones");
			None
		});
		let seeds = seeds.get_or_insert_with(Vec::new);
		match seeds.iter().find(|(e, ..)| *e == epoch) {
			Some((_, drawn, seed)) => Err((*drawn, *seed)),
			None => {
				seeds.push((epoch, now, sp_io::offchain::random_seed()));
				Ok(core::mem::take(seeds))
			}
		}
	});
	match outcome {
		Err(MutateStorageError::ValueFunctionFailed((drawn, seed))) => (drawn < now).then_some(seed),
		// Drawn just now, or another worker wrote at the same time: what is there counts, in the next block.
		_ => None,
	}
}

/// Forgets the seeds of epochs before the last.
pub fn wipe(epoch: EpochIndex) {
	let is_kept = |e: EpochIndex| e.saturating_add(1) >= epoch;
	let outcome = StorageValueRef::persistent(SEEDS_KEY).mutate(|seeds: Result<Option<Seeds>, StorageRetrievalError>| {
		let old = seeds.ok().flatten().unwrap_or_default();
		// Usually there is nothing to write.
		if old.iter().all(|(e, ..)| is_kept(*e)) {
			return Err(());
		}
		Ok(old.into_iter().filter(|(e, ..)| is_kept(*e)).collect::<Seeds>())
	});
	if outcome.is_ok() {
		log::debug!(target: LOG, "wiped seeds of epochs before the last");
	}
}

/// When a duty was tried: epoch, number of tries, block of the last.
type Tries = (EpochIndex, u32, BlockNumber);

/// Whether it is time to try (again); notes the try. Each phase begins with short pauses again.
pub(crate) fn claim_turn(key: &node_key::Public, epoch: EpochIndex, duty: BeaconDuty, phase: Phase, now: BlockNumber) -> bool {
	let name = (b"pacer/beacon/tried", key, duty, phase).encode();
	let outcome = StorageValueRef::persistent(&name).mutate(|tries: Result<Option<Tries>, StorageRetrievalError>| match tries {
		Ok(Some((e, tries, at))) if e == epoch => {
			let pause: BlockNumber = 1 << tries.min(LAST_PAUSE);
			// A block below the last try is one of a fork that came late.
			if now >= at && now < at.saturating_add(pause) {
				Err(())
			} else {
				Ok((epoch, tries.saturating_add(1), now))
			}
		}
		_ => Ok((epoch, 1, now)),
	});
	outcome.is_ok()
}
