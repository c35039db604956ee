//! Drives the whole runtime block by block, natively, as a chain would: a header with BABE's digest, the timestamp,
//! extrinsics, finalisation. Every extrinsic goes through the same checks as in the pool and in a block.

use codec::Encode;
use pacer_runtime::*;
use pacer_types::{
	duty::{signing_hash, CallKind, DutyCall, DutyHeader},
	node_key,
	traits::{BeaconValue, DutyAuth, EpochClock, EpochWeights},
	Lane, Moment, Phase, SignedDutyCall,
};
use serde_json::Value;
use sp_consensus_babe::{
	digests::{PreDigest, PrimaryPreDigest, SecondaryPlainPreDigest},
	make_vrf_sign_data, BABE_ENGINE_ID,
};
use sp_core::{
	crypto::{ByteArray as _, Pair as _, VrfSecret as _},
	sr25519, H256,
};
use sp_runtime::{traits::Header as _, ApplyExtrinsicResult, Digest, DigestItem};

/// The Hosts of the `local` preset.
pub const HOSTS: [&str; 4] = ["Alice", "Bob", "Charlie", "Dave"];
const FIRST_SLOT: u64 = 1_000_000;

/// A chain in memory.
pub struct Driver {
	slot: u64,
	parent: H256,
	number: u32,
	/// Logs of the last block.
	pub digest: Digest,
}

fn merge(base: &mut Value, patch: Value) {
	match (base, patch) {
		(Value::Object(base), Value::Object(patch)) => {
			for (key, value) in patch {
				merge(base.entry(key).or_insert(Value::Null), value);
			}
		}
		(base, patch) => *base = patch,
	}
}

/// Runs `test` on a chain that begins with the `local` preset.
pub fn with_local_chain(test: impl FnOnce(&mut Driver)) {
	let patch = genesis::get_preset(&genesis::LOCAL.into()).expect("the preset exists");
	let mut config = serde_json::to_value(RuntimeGenesisConfig::default()).unwrap();
	merge(&mut config, serde_json::from_slice(&patch).unwrap());
	let mut ext = sp_io::TestExternalities::default();
	ext.execute_with(|| {
		frame_support::genesis_builder_helper::build_state::<RuntimeGenesisConfig>(serde_json::to_vec(&config).unwrap()).unwrap();
		test(&mut Driver { slot: FIRST_SLOT, parent: H256::zero(), number: 0, digest: Digest::default() });
	});
}

impl Driver {
	/// Makes the block of the next slot with these calls; returns what became of each.
	pub fn block(&mut self, calls: Vec<RuntimeCall>) -> Vec<ApplyExtrinsicResult> {
		self.number += 1;
		let digest = Digest { logs: vec![DigestItem::PreRuntime(BABE_ENGINE_ID, self.claim().encode())] };
		let header = Header::new(self.number, H256::zero(), H256::zero(), self.parent, digest);
		Executive::initialize_block(&header);
		let now = pallet_timestamp::Call::set { now: self.slot * Sprint::params().slot_ms }.into();
		Executive::apply_extrinsic(UncheckedExtrinsic::new_bare(now)).unwrap().unwrap();
		let results = calls
			.into_iter()
			.map(|call| Executive::apply_extrinsic(UncheckedExtrinsic::new_transaction(call, unsigned_extension())))
			.collect();
		let header = Executive::finalize_block();
		self.parent = header.hash();
		self.digest = header.digest;
		self.slot += 1;
		results
	}

	/// The claim of the first authority to the slot. In the first slot of a session, whose randomness is known only
	/// inside the block, without a VRF output.
	fn claim(&self) -> PreDigest {
		let (authority_index, slot) = (0, self.slot.into());
		if (self.slot - FIRST_SLOT) % u64::from(Sprint::params().session_slots) == 0 {
			return PreDigest::SecondaryPlain(SecondaryPlainPreDigest { authority_index, slot });
		}
		let (key, _) = Babe::authorities().first().cloned().expect("there is one");
		let pairs = HOSTS.map(|name| sr25519::Pair::from_string(&format!("//{name}"), None).unwrap());
		let pair = pairs.into_iter().find(|pair| pair.public().as_slice() == key.as_slice()).expect("a Host's node");
		let vrf_signature = pair.vrf_sign(&make_vrf_sign_data(&Babe::randomness(), slot, Babe::epoch_index()));
		PreDigest::Primary(PrimaryPreDigest { authority_index, slot, vrf_signature })
	}

	/// Where the last block was on the clock.
	pub fn now(&self) -> Moment {
		Sprint::now()
	}

	/// Makes empty blocks until the clock is in this phase and session of it, at least `offset` slots into it.
	pub fn run_to(&mut self, epoch: u32, phase: Phase, session_in_phase: u32, offset: u64) {
		for _ in 0..3_000 {
			if self.number > 0 {
				let now = self.now();
				if now.epoch == epoch
					&& now.phase == phase
					&& now.session_in_phase == session_in_phase
					&& now.slot >= now.session_start + offset
				{
					return;
				}
			}
			self.block(vec![]);
		}
		panic!("{phase:?} of epoch {epoch} did not come; now {:?}", self.now());
	}

	/// Makes a block and asserts that every call was taken and succeeded.
	pub fn include(&mut self, calls: Vec<RuntimeCall>) {
		for result in self.block(calls) {
			result.expect("the transaction is valid").expect("the call succeeds");
		}
	}

	/// Heartbeats, keys, dealing, opening, commits, opening: everything a good epoch needs, up to Switch's first block.
	pub fn good_epoch(&mut self, epoch: u32, counts: &[u32; 4]) {
		self.audited_epoch(epoch, |host, now| {
			let count = HOSTS.iter().zip(counts).find(|(name, _)| **name == host).map_or(0, |(_, count)| *count);
			(count > 0).then(|| commit(host, count, now))
		});
		self.run_to(epoch, Phase::Switch, 0, 0);
	}

	/// As [`Driver::good_epoch`] with these commits, up to the block that opens the audit value.
	pub fn audited_epoch(&mut self, epoch: u32, commit_of: impl Fn(&str, Moment) -> Option<RuntimeCall>) {
		self.run_to(epoch, Phase::Inference, 1, 0);
		self.include(HOSTS.iter().map(|h| heartbeat(h, self.now())).collect());
		// Only Hosts with weight are members.
		let members: Vec<&str> = HOSTS.into_iter().filter(|h| Sprint::weight(epoch, &account(h)).is_some()).collect();
		self.include(members.iter().map(|h| register_key(h, self.now())).collect());
		self.run_to(epoch, Phase::Deal, 0, 2);
		self.include(members.iter().map(|h| deal(h, self.now())).collect());
		self.run_to(epoch, Phase::Open, 0, 17);
		self.include(members.iter().map(|h| open(h, BeaconValue::Race, self.now())).collect());
		self.run_to(epoch, Phase::Race, 0, 4);
		let now = self.now();
		self.include(HOSTS.iter().filter_map(|host| commit_of(host, now)).collect());
		self.run_to(epoch, Phase::Audit, 0, 17);
		self.include(members.iter().map(|h| open(h, BeaconValue::Audit, self.now())).collect());
	}
}

pub fn account(name: &str) -> AccountId {
	sr25519::Pair::from_string(&format!("//{name}"), None).unwrap().public().into()
}

fn duty(name: &str) -> sr25519::Pair {
	sr25519::Pair::from_string(&format!("//{name}//duty"), None).unwrap()
}

fn node(name: &str) -> node_key::Pair {
	node_key::Pair::from_string(&format!("//{name}"), None).unwrap()
}

fn header(name: &str, now: Moment) -> DutyHeader {
	DutyHeader { host: account(name), epoch: now.epoch, nonce: 0, valid_until: now.slot + 30 }
}

pub fn heartbeat(name: &str, now: Moment) -> RuntimeCall {
	let header = header(name, now);
	let signature = node(name).sign(&signing_hash(&Hosts::genesis_hash(), &header, CallKind::Heartbeat, &()));
	pallet_hosts::Call::heartbeat { header, key: node(name).public(), signature }.into()
}

/// The key that the Host's node registers for an epoch.
fn secret_key(name: &str, epoch: u32) -> pacer_beacon::SecretKey {
	pacer_beacon::SecretKey::from_seed(&[7; 32], &Randomness::genesis_hash().0, epoch, &account(name).into())
}

/// The epoch's committee as its blocks know it.
fn committee(epoch: u32) -> pacer_beacon::Committee {
	Randomness::protocol_committee(&Randomness::committee(epoch)).expect("enough keys")
}

pub fn register_key(name: &str, now: Moment) -> RuntimeCall {
	let header = header(name, now);
	let secret = secret_key(name, now.epoch);
	let proof = secret.prove(&Randomness::genesis_hash().0, now.epoch, &account(name).into());
	let body = (secret.public(), proof);
	let signature = node(name).sign(&signing_hash(&Hosts::genesis_hash(), &header, CallKind::RegisterKey, &body));
	let (encryption_key, key) = (secret.public(), node(name).public());
	pallet_randomness::Call::register_key { header, key, encryption_key, proof, signature }.into()
}

pub fn deal(name: &str, now: Moment) -> RuntimeCall {
	let header = header(name, now);
	let bytes = |which| {
		let context = Randomness::context(now.epoch, which);
		let dealing = context.deal(&committee(now.epoch), &account(name).into(), &[7; 32]).expect("a member");
		pallet_randomness::DealingBytes::try_from(dealing.encode()).expect("it fits")
	};
	let (race, audit) = (bytes(BeaconValue::Race), bytes(BeaconValue::Audit));
	let members = pallet_randomness::committee_hash(&Randomness::committee(now.epoch));
	let message = signing_hash(&Hosts::genesis_hash(), &header, CallKind::Deal, &(members, &race, &audit));
	let signature = node(name).sign(&message);
	pallet_randomness::Call::deal { header, key: node(name).public(), race, audit, signature }.into()
}

pub fn open(name: &str, which: BeaconValue, now: Moment) -> RuntimeCall {
	let header = header(name, now);
	let committee = committee(now.epoch);
	let sum = pallet_randomness::Sums::<Runtime>::get((now.epoch, which)).expect("Deal began");
	let sum = pacer_beacon::Sum::decode(&sum, committee.live_slots()).expect("a sum");
	let context = Randomness::context(now.epoch, which);
	let opening = context.open(&committee, &sum, &account(name).into(), &secret_key(name, now.epoch)).expect("its key");
	let opening = pallet_randomness::OpeningBytes::try_from(opening.encode()).expect("it fits");
	let signature = node(name).sign(&signing_hash(&Hosts::genesis_hash(), &header, CallKind::Open, &(which, &opening)));
	pallet_randomness::Call::open { header, key: node(name).public(), which, opening, signature }.into()
}

/// A duty call as an agent makes it: signed, then wrapped by the runtime.
pub fn duty_call(name: &str, call: DutyCall, now: Moment) -> RuntimeCall {
	let nonce = call.lane().map_or(0, |lane: Lane| <Hosts as DutyAuth>::next_nonce(&account(name), lane));
	let header = DutyHeader { nonce, ..header(name, now) };
	let signature = duty(name).sign(&call.signing_hash(&Hosts::genesis_hash(), &header));
	let bytes = pacer_runtime::views::duty_extrinsic(SignedDutyCall { header, call, signature });
	let extrinsic = <UncheckedExtrinsic as codec::Decode>::decode(&mut &bytes[..]).expect("the runtime wraps it");
	extrinsic.function
}

pub fn commit(name: &str, count: u32, now: Moment) -> RuntimeCall {
	duty_call(name, DutyCall::Commit { count, root: H256::repeat_byte(9) }, now)
}
