//! What is sent when, and what is not.

use std::sync::Mutex;

use pacer_types::traits::{Beacon, BeaconValue};

use super::*;
use crate::Rounds;

#[test]
fn worker_should_draw_both_values_when_blocks_become_final() {
	let (mut ext, node) = node(&MEMBERS);
	ext.execute_with(|| {
		assert_eq!(node.deal(), 4);
		for which in [BeaconValue::Race, BeaconValue::Audit] {
			run_to_window(0, which);
			finalize(System::block_number());
			work();
			assert_eq!(node.include_all(), 4);
			assert!(Randomness::value(0, which).is_some());
		}
		assert_eq!(Randomness::beacon_view(0).faults, []);
		Randomness::do_try_state().unwrap();
	});
}

#[test]
fn worker_should_use_a_seed_only_after_the_block_that_drew_it() {
	let (mut ext, node) = node(&["Alice"]);
	ext.execute_with(|| {
		work();
		assert_eq!((seeds().len(), node.sent().len()), (1, 0), "drawn, not used");
		work();
		assert_eq!(node.sent().len(), 0, "the same block once more");
		next();
		assert_eq!(node.sent().len(), 1);
	});
}

#[test]
fn worker_should_wait_when_the_closing_block_is_not_final() {
	let (mut ext, node) = node(&MEMBERS);
	ext.execute_with(|| {
		node.deal();
		run_to_window(0, BeaconValue::Race);
		work();
		assert_eq!(node.include_all(), 0, "nothing is known to be final");
		let closed = Rounds::<Test>::get(0).unwrap().dealing_closed.unwrap();
		finalize(closed - 1);
		work();
		assert_eq!(node.include_all(), 0, "the block before is final");
		finalize(closed);
		work();
		assert_eq!(node.include_all(), 4);
	});
}

#[test]
fn worker_should_not_open_when_another_fork_became_final() {
	let (mut ext, node) = node(&MEMBERS);
	ext.execute_with(|| {
		node.deal();
		run_to_window(0, BeaconValue::Race);
		Fork::set(1);
		finalize(System::block_number() - 1);
		work();
		assert_eq!(node.include_all(), 0, "the final block is none of this chain");
		finalize(System::block_number() + 5);
		work();
		assert_eq!(node.include_all(), 0, "the final block is above this one");
		Fork::set(0);
		finalize(System::block_number());
		work();
		assert_eq!(node.include_all(), 4);
	});
}

#[test]
fn worker_should_not_open_the_audit_value_when_race_is_not_final() {
	let (mut ext, node) = node(&MEMBERS);
	ext.execute_with(|| {
		node.deal();
		run_to(0, Phase::Race, 0, 20);
		finalize(System::block_number());
		run_to_window(0, BeaconValue::Audit);
		work();
		assert_eq!(node.include_all(), 0);
		finalize(Rounds::<Test>::get(0).unwrap().race_closed.unwrap());
		work();
		assert_eq!(node.include_all(), 4);
	});
}

#[test]
fn worker_should_do_nothing_when_its_hosts_are_not_in_the_committee() {
	let (mut ext, node) = node(&["Eve", "Ferdie"]);
	ext.execute_with(|| {
		assert_eq!(node.deal(), 0);
		assert!(seeds().is_empty());
	});
}

#[test]
fn worker_should_be_silent_when_another_node_registered_with_its_key() {
	let (mut ext, node) = node(&["Alice"]);
	ext.execute_with(|| {
		work();
		// By other secrets than those of this node.
		registered(0, &MEMBERS);
		run_to(0, Phase::Deal, 0, 0);
		(0..3).for_each(|_| next());
		MEMBERS.iter().for_each(|name| submit(&deal(name)).unwrap());
		run_to_window(0, BeaconValue::Race);
		finalize(System::block_number());
		(0..3).for_each(|_| next());
		assert!(node.sent().is_empty());
		// In the next epoch it may be faster.
		run_to(1, Phase::Inference, 0, 0);
		(0..3).for_each(|_| next());
		assert_eq!(node.include_all(), 1);
	});
}

/// Lines of this crate, at every level.
struct Lines(Mutex<Vec<String>>);
static LINES: Lines = Lines(Mutex::new(vec![]));

impl log::Log for Lines {
	fn enabled(&self, metadata: &log::Metadata) -> bool {
		metadata.target() == crate::LOG
	}
	fn log(&self, record: &log::Record) {
		if self.enabled(record.metadata()) {
			self.0.lock().unwrap().push(format!("{}", record.args()));
		}
	}
	fn flush(&self) {}
}

#[test]
fn log_should_tell_what_was_sent_and_nothing_secret() {
	// The only logger of the process: each test is one of its own, and where not, others only add lines.
	log::set_logger(&LINES).unwrap();
	log::set_max_level(log::LevelFilter::Trace);
	let (mut ext, node) = node(&MEMBERS);
	ext.execute_with(|| {
		node.deal();
		run_to_window(0, BeaconValue::Race);
		work();
		finalize(System::block_number());
		work();
		assert_eq!(node.include_all(), 4);
		let lines = LINES.0.lock().unwrap().join("\n");
		for line in ["sent the key of epoch 0", "sent the dealing of epoch 0", "sent the opening of the race value of epoch 0"] {
			assert!(lines.contains(line), "{line}: {lines}");
		}
		let (_, _, seed) = seeds()[0];
		let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
		assert!(!lines.contains(&hex(&seed[..4])) && !lines.contains(&format!("{}, {}", seed[0], seed[1])), "{lines}");
	});
}
