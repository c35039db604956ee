//! What a node remembers across blocks, forks and restarts.

use pacer_types::{
	beacon::BeaconDuty,
	traits::{Beacon, BeaconValue},
};
use sp_core::offchain::Timestamp;
use sp_runtime::offchain::{
	storage_lock::{StorageLock, Time},
	Duration,
};

use super::*;

#[test]
fn worker_should_pause_twice_as_long_each_time_when_nothing_reaches_the_chain() {
	let (mut ext, node) = node(&["Alice"]);
	ext.execute_with(|| {
		work();
		let mut sent = vec![];
		for block in 0..70 {
			next();
			if !node.sent().is_empty() {
				sent.push(block);
			}
		}
		assert_eq!(sent, [0, 2, 6, 14, 30, 46, 62]);
		// Another duty, another count.
		MEMBERS[1..].iter().for_each(|name| submit(&register(name)).unwrap());
		run_to(0, Phase::Inference, 3, 0);
		work();
		submit(&node.sent()[0]).unwrap();
		run_to(0, Phase::Deal, 0, 0);
		let mut sent = vec![];
		for block in 0..10 {
			work();
			sent.extend((!node.sent().is_empty()).then_some(block));
			begin_block(CurrentSlot::get() + 1);
		}
		assert_eq!(sent, [0, 2, 6]);
	});
}

#[test]
fn worker_should_send_the_same_dealing_again_also_after_a_restart() {
	let mut ext = externalities();
	let disk = TestPersistentOffchainDB::new();
	let node = start(&mut ext, &["Alice"], disk.clone(), 42);
	let first = ext.execute_with(|| {
		assert_eq!(node.register(), 1);
		MEMBERS[1..].iter().for_each(|name| submit(&register(name)).unwrap());
		run_to(0, Phase::Deal, 0, 0);
		work();
		dealings(&node.sent()[0])
	});
	// Killed: what was in the pool is gone, the machine's randomness is different now.
	let node = start(&mut ext, &["Alice"], disk, 43);
	ext.execute_with(|| {
		begin_block(CurrentSlot::get() + 2);
		begin_block(CurrentSlot::get() + 2);
		work();
		let again = node.sent();
		assert_eq!(dealings(&again[0]), first);
		submit(&again[0]).unwrap();
		assert_eq!(last_fault(), None);
		(0..20).for_each(|_| next());
		assert!(node.sent().is_empty(), "on chain: never again");
	});
}

#[test]
fn worker_should_deal_other_secrets_on_a_fork_with_other_keys() {
	let disk = TestPersistentOffchainDB::new();
	let dealt_with_dave = |dave: &str| {
		let mut ext = externalities();
		let node = start(&mut ext, &["Alice"], disk.clone(), 42);
		ext.execute_with(|| {
			// The other fork's tries are not this one's.
			let tries = [(BeaconDuty::Key, Phase::Inference), (BeaconDuty::Deal, Phase::Deal)];
			tries.iter().for_each(|(duty, phase)| StorageValueRef::persistent(&tried(*duty, *phase)).clear());
			assert_eq!(node.register(), 1);
			["Bob", "Charlie"].iter().for_each(|name| submit(&register(name)).unwrap());
			submit(&register_with("Dave", header("Dave"), &other_key(dave))).unwrap();
			run_to(0, Phase::Deal, 0, 0);
			work();
			let call = node.sent().remove(0);
			submit(&call).unwrap();
			assert_eq!(last_fault(), None);
			let own =
				Randomness::protocol_committee(&Randomness::committee(0)).unwrap().slots_of(&account("Alice").into()).unwrap();
			let (race, _) = dealings(&call);
			race[(own.start as usize - 1) * 32..(own.end as usize - 1) * 32].to_vec()
		})
	};
	let (one, other) = (dealt_with_dave("this"), dealt_with_dave("that"));
	// Shares for the same slots under the same key: equal ones would show that the same secret was dealt twice.
	assert_eq!(one.len(), 32 * 32);
	assert!(one.chunks(32).zip(other.chunks(32)).all(|(a, b)| a != b));
	assert_eq!(one, dealt_with_dave("this"));
}

fn other_key(seed: &str) -> pacer_beacon::SecretKey {
	let seed = sp_io::hashing::blake2_256(seed.as_bytes());
	pacer_beacon::SecretKey::from_seed(&seed, &Randomness::genesis_hash().0, 0, &account("Dave").into())
}

fn tried(duty: BeaconDuty, phase: Phase) -> Vec<u8> {
	(b"pacer/beacon/tried", sp_core::Pair::public(&node_pair("Alice")), duty, phase).encode()
}

#[test]
fn worker_should_open_what_it_dealt_when_the_node_restarted() {
	for (disk_survives, openings) in [(true, 4), (false, 0)] {
		let mut ext = externalities();
		let disk = TestPersistentOffchainDB::new();
		let node = start(&mut ext, &MEMBERS, disk.clone(), 42);
		ext.execute_with(|| assert_eq!(node.deal(), 4));
		let disk = if disk_survives { disk } else { TestPersistentOffchainDB::new() };
		let node = start(&mut ext, &MEMBERS, disk, 43);
		ext.execute_with(|| {
			run_to_window(0, BeaconValue::Race);
			finalize(System::block_number());
			(0..2).for_each(|_| next());
			assert_eq!(node.include_all(), openings);
			assert_eq!(Randomness::value(0, BeaconValue::Race).is_some(), disk_survives);
		});
	}
}

#[test]
fn worker_should_wipe_a_seed_when_the_epoch_after_is_over() {
	let (mut ext, node) = node(&["Alice"]);
	ext.execute_with(|| {
		let epochs = || seeds().iter().map(|(epoch, ..)| *epoch).collect::<Vec<_>>();
		let mut drawn = vec![];
		for epoch in 0..4u32 {
			run_to(epoch, Phase::Inference, 0, 0);
			node.offchain.write().seed = [epoch as u8 + 1; 32];
			work();
			assert_eq!(epochs(), (epoch.saturating_sub(1)..=epoch).collect::<Vec<_>>());
			drawn.push(seeds().last().unwrap().2);
		}
		drawn.dedup();
		assert_eq!(drawn.len(), 4, "each epoch has its own");
		// Also where the Host is in no committee any more.
		Committee::set(vec![("Bob".to_string(), 1)]);
		run_to(5, Phase::Inference, 0, 0);
		work();
		assert!(epochs().is_empty());
		let on_disk = node.offchain.read().persistent_storage.get(SEEDS_KEY).unwrap();
		assert!(!on_disk.windows(32).any(|window| drawn.iter().any(|seed| window == seed)));
	});
}

#[test]
fn worker_should_draw_anew_when_its_seeds_are_damaged() {
	let (mut ext, node) = node(&["Alice"]);
	ext.execute_with(|| {
		work();
		sp_io::offchain::local_storage_set(sp_core::offchain::StorageKind::PERSISTENT, SEEDS_KEY, &[0xff; 7]);
		next();
		assert_eq!((seeds().len(), node.sent().len()), (1, 0));
		next();
		assert_eq!(node.sent().len(), 1);
	});
}

#[test]
fn worker_should_wait_for_a_lock_and_take_it_when_its_holder_died() {
	let (mut ext, node) = node(&["Alice"]);
	ext.execute_with(|| {
		work();
		begin_block(CurrentSlot::get() + 1);
		let mut lock = StorageLock::<Time>::with_deadline(b"pacer/beacon/lock", Duration::from_millis(10_000));
		// Never released: the process was killed.
		std::mem::forget(lock.try_lock().ok().unwrap());
		work();
		assert!(node.sent().is_empty());
		node.offchain.write().timestamp = Timestamp::from_unix_millis(10_001);
		work();
		assert_eq!(node.sent().len(), 1);
	});
}
