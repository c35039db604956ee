//! Real lists of real nonces on the `dev` network, and what Hosts and challengers say about them.

use std::{collections::BTreeMap, sync::Mutex};

use pacer_sprint::{trace, Opening, Preset, RangeTree, Step, Trace};
use pacer_types::{
	duty::{DutyCall, DutyHeader},
	traits::{DutyAuth, EpochClock},
	views::{DemandView, DisputeView},
	DisputeId, EpochIndex, Hash, Lane, Phase,
};

use crate::{mock::*, Call, Strike, Struck};

/// What tests race for: one nonce in two.
const THRESHOLD: u64 = 1;

/// Traces are the same for every test.
static TRACES: Mutex<BTreeMap<(String, EpochIndex, u64), Trace>> = Mutex::new(BTreeMap::new());

pub fn traced(name: &str, race: EpochIndex, nonce: u64) -> Trace {
	let key = (name.to_owned(), race, nonce);
	let mut known = TRACES.lock().unwrap_or_else(|e| e.into_inner());
	let compute = || {
		// What the fake beacon says, also where a test has it say nothing.
		trace(&Preset::Dev.config(), &[race as u8; 32], THRESHOLD, account(name).as_ref(), nonce).expect("a valid shape")
	};
	known.entry(key).or_insert_with(compute).clone()
}

/// A Host's nonces in a race.
#[derive(Clone)]
pub struct List {
	pub name: &'static str,
	pub race: EpochIndex,
	pub tree: RangeTree,
}

impl List {
	pub fn of(name: &'static str, race: EpochIndex, nonces: &[u64]) -> Self {
		List { name, race, tree: RangeTree::build(nonces).expect("ascending") }
	}

	/// The first appropriate nonces.
	pub fn honest(name: &'static str, race: EpochIndex, count: usize) -> Self {
		let nonces: Vec<u64> = (0..).filter(|nonce| traced(name, race, *nonce).appropriate).take(count).collect();
		List::of(name, race, &nonces)
	}

	/// Honest but for one nonce in the middle, which is merely not appropriate. Returns its position as well.
	pub fn with_one_fake(name: &'static str, race: EpochIndex, count: usize) -> (Self, u32) {
		let honest = List::honest(name, race, count);
		let mut nonces: Vec<u64> = (0..count as u32).map(|i| honest.open(i).nonce).collect();
		let fake = (0..).find(|nonce| *nonce > nonces[count / 2] && !traced(name, race, *nonce).appropriate).expect("one");
		nonces.push(fake);
		nonces.sort_unstable();
		let position = nonces.iter().position(|nonce| *nonce == fake).expect("there") as u32;
		(List::of(name, race, &nonces), position)
	}

	/// Numbers nobody recomputed: too many to trace.
	pub fn made_up(name: &'static str, race: EpochIndex, count: u64) -> Self {
		List::of(name, race, &(0..count).map(|i| 3 * i).collect::<Vec<_>>())
	}

	pub fn open(&self, position: u32) -> Opening {
		self.tree.open(position).expect("there")
	}

	pub fn trace_at(&self, position: u32) -> Trace {
		traced(self.name, self.race, self.open(position).nonce)
	}

	pub fn commit(&self) -> Call<Test> {
		let nonce = Hosts::next_nonce(&account(self.name), Lane::Consensus);
		commit_root(self.name, DutyHeader { nonce, ..header(self.name) }, self.tree.count(), self.tree.root().into())
	}

	/// The honest answer, with some bits of one hash changed.
	pub fn answer_with(&self, dispute: DisputeId, position: u32, wrong: Option<usize>) -> Call<Test> {
		let mut hashes: Vec<Hash> = self.trace_at(position).hashes().into_iter().map(Hash::from).collect();
		if let Some(at) = wrong {
			hashes[at].0[0] ^= 1;
		}
		say(self.name, DutyCall::Answer { race: self.race, dispute, opening: self.open(position), hashes })
	}

	pub fn answer(&self, dispute: DisputeId, position: u32) -> Call<Test> {
		self.answer_with(dispute, position, None)
	}

	pub fn post(&self, positions: &[u32]) -> Call<Test> {
		say(self.name, DutyCall::PostOpenings { openings: positions.iter().map(|p| self.open(*p)).collect() })
	}
}

pub fn challenge(by: &str, subject: &str, position: u32) -> Call<Test> {
	challenge_in(Sprint::epoch(), by, subject, position)
}

pub fn challenge_in(race: EpochIndex, by: &str, subject: &str, position: u32) -> Call<Test> {
	say(by, DutyCall::Challenge { race, subject: account(subject), position })
}

pub fn refute(by: &str, race: EpochIndex, dispute: DisputeId, step: Step) -> Call<Test> {
	say(by, DutyCall::Refute { race, dispute, step })
}

pub fn demand(by: &str, subject: &str, with_deposit: bool) -> Call<Test> {
	say(by, DutyCall::DemandList { subject: account(subject), with_deposit })
}

pub fn bytes(state: &[i8]) -> Vec<u8> {
	state.iter().map(|value| *value as u8).collect()
}

/// The steps of a trace in order: input, layers, output.
pub fn steps(trace: &Trace) -> Vec<Step> {
	let (last, before) = trace.states.split_last().expect("states");
	let layers = before.iter().enumerate().map(|(i, state)| Step::Layer { index: i as u32, state: bytes(state) });
	std::iter::once(Step::Input).chain(layers).chain([Step::Output { state: bytes(last) }]).collect()
}

pub fn struck(race: EpochIndex, name: &str) -> Option<Strike> {
	Struck::<Test>::get(race, account(name))
}

pub fn disputes(race: EpochIndex) -> Vec<DisputeView> {
	Sprint::sprint_view(race).disputes
}

pub fn demand_on(name: &str) -> Option<DemandView> {
	Sprint::sprint_view(Sprint::epoch()).demands.into_iter().find(|demand| demand.subject == account(name))
}

/// Makes a block in every slot up to this one.
pub fn run_to_slot(slot: u64) {
	while CurrentSlot::get() < slot {
		begin_block(CurrentSlot::get() + 1);
	}
}

/// These lists are committed; then two blocks of Audit have passed. Further Hosts of `NAMES` do not race.
pub fn audit(race: EpochIndex, lists: &[List]) {
	run_to(race, Phase::Inference);
	heartbeats();
	run_to(race, Phase::Race);
	for list in lists {
		submit(&list.commit()).unwrap();
	}
	run_to(race, Phase::Audit);
	begin_block(CurrentSlot::get() + 1);
	begin_block(CurrentSlot::get() + 1);
}

/// Lists of 40 honest nonces for all Hosts but Dave, whose list has a fake at the position that is returned.
pub fn with_a_fake(race: EpochIndex) -> (Vec<List>, u32) {
	let (dave, position) = List::with_one_fake("Dave", race, 40);
	let honest = ["Alice", "Bob", "Charlie"].map(|name| List::honest(name, race, 40));
	(honest.into_iter().chain([dave]).collect(), position)
}
