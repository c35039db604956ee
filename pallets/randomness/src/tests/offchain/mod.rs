//! The off-chain worker on one or more nodes.

mod duties;
mod memory;

use std::sync::Arc;

use codec::{Decode, Encode};
use frame_support::traits::Hooks;
use pacer_types::{node_key, Phase};
use parking_lot::RwLock;
use sp_core::offchain::{
	testing::{OffchainState, PoolState, TestOffchainExt, TestPersistentOffchainDB, TestTransactionPoolExt},
	OffchainDbExt, OffchainWorkerExt, TransactionPoolExt,
};
use sp_io::TestExternalities;
use sp_keystore::{testing::MemoryKeystore, Keystore, KeystoreExt};
use sp_runtime::offchain::storage::StorageValueRef;

use crate::{
	mock::*,
	offchain::{memory::SEEDS_KEY, FINALIZED_KEY},
};

/// A running node: the pool it submits to, and what else is outside the chain.
struct Node {
	pool: Arc<RwLock<PoolState>>,
	offchain: Arc<RwLock<OffchainState>>,
}

/// A node with the keys of these Hosts.
fn node(names: &[&str]) -> (TestExternalities, Node) {
	let mut ext = externalities();
	let node = start(&mut ext, names, TestPersistentOffchainDB::new(), 42);
	(ext, node)
}

/// Starts a node's process on what is on its disk.
fn start(ext: &mut TestExternalities, names: &[&str], disk: TestPersistentOffchainDB, entropy: u8) -> Node {
	let (ext_offchain, offchain) = TestOffchainExt::with_offchain_db(disk);
	offchain.write().seed = [entropy; 32];
	let (ext_pool, pool) = TestTransactionPoolExt::new();
	let keystore = MemoryKeystore::new();
	for name in names {
		keystore.sr25519_generate_new(node_key::KEY_TYPE, Some(&node_uri(name))).unwrap();
	}
	ext.register_extension(OffchainDbExt::new(ext_offchain.clone()));
	ext.register_extension(OffchainWorkerExt::new(ext_offchain));
	ext.register_extension(TransactionPoolExt::new(ext_pool));
	ext.register_extension(KeystoreExt(Arc::new(keystore)));
	Node { pool, offchain }
}

/// Runs the worker after the current block.
fn work() {
	Randomness::offchain_worker(System::block_number());
}

/// Makes a block, then runs the worker.
fn next() {
	begin_block(CurrentSlot::get() + 1);
	work();
}

impl Node {
	/// Takes everything out of the pool.
	fn sent(&self) -> Vec<crate::Call<Test>> {
		let waiting: Vec<Vec<u8>> = self.pool.write().transactions.drain(..).collect();
		let call = |bytes: Vec<u8>| match Extrinsic::decode(&mut bytes.as_slice()).unwrap().function {
			RuntimeCall::Randomness(call) => call,
			other => panic!("{other:?}"),
		};
		waiting.into_iter().map(call).collect()
	}

	/// Includes everything in the pool; returns how much that was.
	fn include_all(&self) -> usize {
		let waiting = self.sent();
		waiting.iter().for_each(|call| submit(call).unwrap());
		waiting.len()
	}

	/// Draws the seed and registers.
	fn register(&self) -> usize {
		work();
		next();
		self.include_all()
	}

	/// Registers and deals.
	fn deal(&self) -> usize {
		self.register();
		run_to(0, Phase::Deal, 0, 0);
		work();
		self.include_all()
	}
}

/// The node's native side: this block of the present fork is final.
fn finalize(height: u32) {
	let last = (height, hash_of(height)).encode();
	sp_io::offchain::local_storage_set(sp_core::offchain::StorageKind::PERSISTENT, FINALIZED_KEY, &last);
}

fn seeds() -> Vec<(u32, u32, [u8; 32])> {
	StorageValueRef::persistent(SEEDS_KEY).get().unwrap().unwrap_or_default()
}

/// Both dealings of a call.
fn dealings(call: &crate::Call<Test>) -> (Vec<u8>, Vec<u8>) {
	match call {
		crate::Call::deal { race, audit, .. } => (race.to_vec(), audit.to_vec()),
		other => panic!("{other:?}"),
	}
}
