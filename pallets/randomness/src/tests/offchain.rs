//! The off-chain worker on one or more nodes.

use std::sync::Arc;

use codec::{Decode, Encode};
use frame_support::traits::Hooks;
use pacer_types::{
	node_key,
	traits::{Beacon, BeaconValue},
	Phase,
};
use parking_lot::RwLock;
use sp_core::offchain::{
	testing::{PoolState, TestOffchainExt, TestPersistentOffchainDB, TestTransactionPoolExt},
	OffchainDbExt, OffchainWorkerExt, TransactionPoolExt,
};
use sp_io::TestExternalities;
use sp_keystore::{testing::MemoryKeystore, Keystore, KeystoreExt};

use crate::{mock::*, offchain::FINALIZED_KEY, Rounds};

type Pool = Arc<RwLock<PoolState>>;

/// A node with the keys of these Hosts, and the pool it submits to.
fn node(names: &[&str]) -> (TestExternalities, Pool) {
	let mut ext = externalities();
	let pool = start(&mut ext, names, TestPersistentOffchainDB::new(), [42; 32]);
	(ext, pool)
}

/// Starts a node's process on what is on its disk.
fn start(ext: &mut TestExternalities, names: &[&str], disk: TestPersistentOffchainDB, entropy: [u8; 32]) -> Pool {
	let (offchain, state) = TestOffchainExt::with_offchain_db(disk);
	state.write().seed = entropy;
	let (pool, pool_state) = TestTransactionPoolExt::new();
	let keystore = MemoryKeystore::new();
	for name in names {
		keystore.sr25519_generate_new(node_key::KEY_TYPE, Some(&node_uri(name))).unwrap();
	}
	ext.register_extension(OffchainDbExt::new(offchain.clone()));
	ext.register_extension(OffchainWorkerExt::new(offchain));
	ext.register_extension(TransactionPoolExt::new(pool));
	ext.register_extension(KeystoreExt(Arc::new(keystore)));
	pool_state
}

/// Runs the worker after the current block.
fn work() {
	Randomness::offchain_worker(System::block_number());
}

/// Includes everything in the pool; returns how much that was.
fn include_all(pool: &Pool) -> usize {
	let waiting: Vec<Vec<u8>> = pool.write().transactions.drain(..).collect();
	for bytes in &waiting {
		let extrinsic = Extrinsic::decode(&mut bytes.as_slice()).unwrap();
		include(extrinsic.function).unwrap();
	}
	waiting.len()
}

fn finalize(height: u32) {
	sp_io::offchain::local_storage_set(sp_core::offchain::StorageKind::PERSISTENT, FINALIZED_KEY, &height.encode());
}

#[test]
fn worker_should_draw_both_values_when_blocks_become_final() {
	let (mut ext, pool) = node(&MEMBERS);
	ext.execute_with(|| {
		run_to(0, Phase::Deal, 0, 0);
		work();
		assert_eq!(include_all(&pool), 4);
		for which in [BeaconValue::Race, BeaconValue::Audit] {
			run_to_window(0, which);
			finalize(System::block_number());
			work();
			assert_eq!(include_all(&pool), 4);
			assert!(Randomness::value(0, which).is_some());
		}
		Randomness::do_try_state().unwrap();
	});
}

#[test]
fn worker_should_wait_when_the_closing_block_is_not_final() {
	let (mut ext, pool) = node(&MEMBERS);
	ext.execute_with(|| {
		run_to(0, Phase::Deal, 0, 0);
		work();
		include_all(&pool);
		run_to_window(0, BeaconValue::Race);
		work();
		assert_eq!(include_all(&pool), 0, "nothing is known to be final");
		let closed = Rounds::<Test>::get(0).unwrap().dealing_closed.unwrap();
		finalize(closed - 1);
		work();
		assert_eq!(include_all(&pool), 0, "the block before is final");
		finalize(closed);
		work();
		assert_eq!(include_all(&pool), 4);
	});
}

#[test]
fn worker_should_send_again_after_some_blocks_when_nothing_reached_the_chain() {
	let (mut ext, pool) = node(&["Alice"]);
	ext.execute_with(|| {
		run_to(0, Phase::Deal, 0, 0);
		let mut sent = vec![];
		for _ in 0..9 {
			work();
			sent.push(pool.write().transactions.drain(..).count());
			begin_block(CurrentSlot::get() + 1);
		}
		assert_eq!(sent, [1, 0, 0, 0, 1, 0, 0, 0, 1]);
	});
}

#[test]
fn worker_should_send_nothing_when_it_is_on_chain_already() {
	let (mut ext, pool) = node(&["Alice"]);
	ext.execute_with(|| {
		run_to(0, Phase::Deal, 0, 0);
		work();
		assert_eq!(include_all(&pool), 1);
		run_to(0, Phase::Deal, 0, 20);
		work();
		assert_eq!(include_all(&pool), 0);
	});
}

#[test]
fn worker_should_do_nothing_when_its_hosts_are_not_in_the_committee() {
	let (mut ext, pool) = node(&["Eve", "Ferdie"]);
	ext.execute_with(|| {
		run_to(0, Phase::Deal, 0, 0);
		work();
		assert!(pool.read().transactions.is_empty());
	});
}

#[test]
fn worker_should_be_silent_when_another_node_dealt_with_its_key() {
	let (mut ext, pool) = node(&["Alice"]);
	ext.execute_with(|| {
		run_to(0, Phase::Deal, 0, 0);
		// By other secrets than those of this node.
		MEMBERS.iter().for_each(|name| submit(&deal(name)).unwrap());
		run_to_window(0, BeaconValue::Race);
		finalize(System::block_number());
		work();
		assert!(pool.read().transactions.is_empty());
	});
}

#[test]
fn worker_should_open_what_it_dealt_when_the_node_restarted() {
	for (disk_survives, openings) in [(true, 4), (false, 0)] {
		let mut ext = externalities();
		let disk = TestPersistentOffchainDB::new();
		let pool = start(&mut ext, &MEMBERS, disk.clone(), [42; 32]);
		ext.execute_with(|| {
			run_to(0, Phase::Deal, 0, 0);
			work();
			assert_eq!(include_all(&pool), 4);
		});
		// The machine's randomness is different now.
		let disk = if disk_survives { disk } else { TestPersistentOffchainDB::new() };
		let pool = start(&mut ext, &MEMBERS, disk, [43; 32]);
		ext.execute_with(|| {
			run_to_window(0, BeaconValue::Race);
			finalize(System::block_number());
			work();
			assert_eq!(include_all(&pool), openings);
			assert_eq!(Randomness::value(0, BeaconValue::Race).is_some(), disk_survives);
		});
	}
}
