//! A claim falls exactly if it is false.

use pacer_sprint::{
	dispute::{check_step, judge, judge_order, Claim, Step},
	first_false_step, threshold_for_one_in, trace, Error, Hash, Preset, RangeTree, Trace, TreeError,
};
use proptest::prelude::*;

const SEED: Hash = [7; 32];
const HOST: Hash = [9; 32];

fn threshold() -> u64 {
	threshold_for_one_in(4, 256).expect("in the table")
}

fn traced(nonce: u64) -> Trace {
	trace(&Preset::Dev.config(), &SEED, threshold(), &HOST, nonce).expect("a valid shape")
}

/// The first nonce from `from` on that is appropriate, or is not.
fn find(from: u64, appropriate: bool) -> (u64, Trace) {
	(from..).map(|nonce| (nonce, traced(nonce))).find(|(_, trace)| trace.appropriate == appropriate).expect("one in four")
}

fn decide(nonce: u64, hashes: &[Hash], step: &Step) -> Result<bool, Error> {
	let claim = Claim { host: &HOST, nonce, hashes };
	let config = Preset::Dev.config();
	let judged = judge(&config, &SEED, threshold(), &claim, step);
	assert_eq!(check_step(&config, &claim, step), judged.map(|_| ()), "the cheap check lets through what can be judged");
	judged
}

fn bytes(state: &[i8]) -> Vec<u8> {
	state.iter().map(|value| *value as u8).collect()
}

/// Every step that a challenger may name against an honest claim.
fn steps(trace: &Trace) -> Vec<Step> {
	let (last, before) = trace.states.split_last().expect("states");
	let layers = before.iter().enumerate().map(|(i, state)| Step::Layer { index: i as u32, state: bytes(state) });
	std::iter::once(Step::Input).chain(layers).chain([Step::Output { state: bytes(last) }]).collect()
}

#[test]
fn claim_should_stand_when_it_is_true() {
	let (nonce, trace) = find(0, true);
	let hashes = trace.hashes();
	assert_eq!((hashes.len(), first_false_step(&trace, &hashes)), (6, None));
	for step in steps(&trace) {
		assert_eq!(decide(nonce, &hashes, &step), Ok(false), "{}", step.name());
	}
}

#[test]
fn claim_should_fall_when_any_one_hash_is_wrong() {
	let (nonce, trace) = find(0, true);
	for at in 0..trace.hashes().len() {
		let mut hashes = trace.hashes();
		hashes[at][31] ^= 1;
		let step = first_false_step(&trace, &hashes).expect("a false step");
		assert_eq!(decide(nonce, &hashes, &step), Ok(true), "hash {at}, step {}", step.name());
		let expected = match at {
			0 => "input",
			5 => "output",
			_ => "layer",
		};
		assert_eq!(step.name(), expected, "hash {at}");
	}
}

#[test]
fn claim_should_fall_by_its_output_when_the_nonce_is_merely_not_appropriate() {
	let (nonce, trace) = find(0, false);
	let hashes = trace.hashes();
	let step = first_false_step(&trace, &hashes).expect("a false step");
	assert_eq!((step.name(), decide(nonce, &hashes, &step)), ("output", Ok(true)));
	// Nothing else about it is wrong.
	for step in steps(&trace).into_iter().filter(|step| step.name() != "output") {
		assert_eq!(decide(nonce, &hashes, &step), Ok(false));
	}
}

#[test]
fn claim_should_fall_when_it_is_that_of_another_nonce_or_host() {
	let (nonce, own) = find(0, true);
	let (_, other) = find(nonce + 1, true);
	let step = first_false_step(&own, &other.hashes()).expect("a false step");
	assert_eq!((step.name(), decide(nonce, &other.hashes(), &step)), ("input", Ok(true)));
	let foreign = trace(&Preset::Dev.config(), &SEED, threshold(), &[1; 32], nonce).expect("a valid shape");
	let step = first_false_step(&own, &foreign.hashes()).expect("a false step");
	assert_eq!((step.name(), decide(nonce, &foreign.hashes(), &step)), ("input", Ok(true)));
}

#[test]
fn step_should_decide_nothing_when_it_does_not_speak_of_the_claim() {
	let (nonce, trace) = find(0, true);
	let hashes = trace.hashes();
	let state = bytes(&trace.states[1]);
	let mut forged = state.clone();
	forged[0] ^= 1;
	assert_eq!(decide(nonce, &hashes, &Step::Layer { index: 1, state: forged }), Err(Error::State));
	assert_eq!(decide(nonce, &hashes, &Step::Layer { index: 2, state: state.clone() }), Err(Error::State));
	assert_eq!(decide(nonce, &hashes, &Step::Layer { index: 4, state: state.clone() }), Err(Error::Layer(4)));
	let short = Err(Error::Length { expected: 256, found: 255 });
	assert_eq!(decide(nonce, &hashes, &Step::Layer { index: 1, state: state[1..].to_vec() }), short);
	assert_eq!(decide(nonce, &hashes, &Step::Output { state }), Err(Error::Length { expected: 64, found: 256 }));
	let few = Err(Error::Length { expected: 6, found: 5 });
	assert_eq!(decide(nonce, &hashes[1..], &Step::Input), few);
	let tree = RangeTree::build(&[1, 2]).expect("ascending");
	let other = tree.open(0).expect("there");
	assert_eq!(decide(nonce, &hashes, &Step::Order { other }), Err(Error::Layer(4)));
}

#[test]
fn order_should_stand_when_openings_are_those_of_a_tree() {
	let tree = RangeTree::build(&[3, 5, 8, 13, 21]).expect("ascending");
	let (root, count) = (tree.root(), tree.count());
	for position in 0..count {
		let nonce = tree.open(position).expect("there").nonce;
		for other in 0..count {
			let judged = judge_order(&root, count, position, nonce, &tree.open(other).expect("there"));
			assert_eq!(judged, if other == position { Err(TreeError::Position) } else { Ok(false) });
		}
	}
	// What no tree gives: a nonce at a lower position that is not below the other.
	let high = tree.open(4).expect("there");
	assert_eq!(judge_order(&root, count, 1, 21, &high), Ok(true));
	assert_eq!(judge_order(&root, count, 1, 22, &high), Ok(true));
	assert_eq!(judge_order(&[0; 32], count, 1, 22, &high), Err(TreeError::Root));
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

	/// Invariants 1 and 2 of the module, for any nonce and any wrong hashes.
	#[test]
	fn claim_should_fall_exactly_when_it_is_false(
		nonce in any::<u64>(),
		wrong in prop::collection::btree_map(0usize..6, 1u8..=255, 0..3),
	) {
		let trace = traced(nonce);
		let mut hashes = trace.hashes();
		for (at, mask) in &wrong {
			hashes[*at][*mask as usize % 32] ^= mask;
		}
		let step = first_false_step(&trace, &hashes);
		prop_assert_eq!(step.is_some(), !trace.appropriate || !wrong.is_empty());
		if let Some(step) = step {
			prop_assert_eq!(decide(nonce, &hashes, &step), Ok(true));
		}
	}
}
