//! A chain in memory: enough of the runtime API to see what an agent tells it.

use std::{
	collections::BTreeMap,
	sync::{Arc, Mutex, MutexGuard},
	time::Instant,
};

use codec::{Decode, DecodeAll, Encode};
use futures::future::BoxFuture;
use pacer_types::{
	ledger::{BatchKey, FinishRecord, InferenceStatus, InferenceView, ModelView, StartRecord},
	views::{ClockView, CommitView, EpochView, HostView, PayerView, RaceDeadlines, SprintView},
	AccountId, ClockParams, DutyCall, DutyKey, Hash, Lane, Phase, SignedDutyCall, Slot,
};

use crate::{
	chain::{inferences::Inferences, Api, Transport, View},
	error::{Error, Refusal, Result},
	keys::{verify, KeyPair},
};

/// Work weight of every Host of the fake chain.
pub const WEIGHT: u64 = 10;
/// The model's name.
pub const MODEL: &str = "demo";

struct Inner {
	slot: Slot,
	number: u32,
	phase: Phase,
	epoch: u32,
	endpoints: Vec<String>,
	/// Consensus weight and bond.
	stakes: Vec<(u64, u128)>,
	nonces: BTreeMap<AccountId, [u64; 2]>,
	sprint: SprintView,
	payer: PayerView,
	submitted: Vec<SignedDutyCall>,
	refusals: Vec<Refusal>,
	batches: BTreeMap<BatchKey, Vec<InferenceView>>,
	/// Whether submitted batches are executed at once.
	is_automatic: bool,
}

/// A chain of four Hosts with one model, one payer, and a race that is always open.
#[derive(Clone)]
pub struct FakeChain {
	inner: Arc<Mutex<Inner>>,
	/// Genesis hash.
	pub genesis: Hash,
}

fn number_of(lane: Lane) -> usize {
	match lane {
		Lane::Consensus => 0,
		Lane::Ledger => 1,
	}
}

impl FakeChain {
	/// In Inference of epoch 5.
	pub fn four_hosts() -> Self {
		let sprint = SprintView {
			epoch: 5,
			preset: 0,
			threshold: 7_670_677,
			seed: Some([3; 32]),
			audit: Some([4; 32]),
			salt: vec![5; 64],
			skipped: false,
			commits: vec![],
			disputes: vec![],
			demands: vec![],
			deadlines: RaceDeadlines { demand: 10_040, challenge: 10_048, challenge_posted: 10_064 },
		};
		let payer = PayerView {
			index: 2,
			account: AccountId::from([77; 32]),
			salt: Hash::repeat_byte(8),
			free: u128::MAX,
			reserved: 0,
			next_sequence: 0,
		};
		let inner = Inner {
			slot: 10_000,
			number: 100,
			phase: Phase::Inference,
			epoch: 5,
			endpoints: vec!["http://127.0.0.1:9".into(); 4],
			stakes: vec![(WEIGHT, 0); 4],
			nonces: BTreeMap::new(),
			sprint,
			payer,
			submitted: vec![],
			refusals: vec![],
			batches: BTreeMap::new(),
			is_automatic: false,
		};
		Self { inner: Arc::new(Mutex::new(inner)), genesis: Hash::repeat_byte(1) }
	}

	fn lock(&self) -> MutexGuard<'_, Inner> {
		self.inner.lock().unwrap()
	}

	/// Duty key of a Host.
	pub fn key(&self, host: usize) -> KeyPair {
		KeyPair::from_uri(&format!("//Host{host}")).unwrap()
	}

	/// Account of a Host.
	pub fn account(&self, host: usize) -> AccountId {
		AccountId::from([host as u8 + 1; 32])
	}

	/// The runtime API over it.
	pub fn api(&self) -> Api {
		Api::new(Arc::new(self.clone()), self.genesis)
	}

	/// Calls that reached the pool.
	pub fn submitted(&self) -> Vec<SignedDutyCall> {
		self.lock().submitted.clone()
	}

	/// The next submission is refused.
	pub fn refuse_next(&self, why: Refusal) {
		self.lock().refusals.push(why);
	}

	/// Lets slots and as many blocks pass.
	pub fn advance(&self, slots: u64) {
		let mut inner = self.lock();
		inner.slot += slots;
		inner.number += slots as u32;
	}

	/// Enters a phase.
	pub fn enter(&self, phase: Phase) {
		self.lock().phase = phase;
	}

	/// Begins another epoch.
	pub fn begin(&self, epoch: u32) {
		self.lock().epoch = epoch;
	}

	/// Sets the next nonce of a lane.
	pub fn set_nonce(&self, host: usize, lane: Lane, next: u64) {
		self.lock().nonces.entry(self.account(host)).or_default()[number_of(lane)] = next;
	}

	/// Sets where a Host's agent is.
	pub fn set_endpoint(&self, host: usize, url: String) {
		self.lock().endpoints[host] = url;
	}

	/// Executes batches of records as soon as they are submitted.
	pub fn execute_at_once(&self) {
		self.lock().is_automatic = true;
	}

	/// Records a commitment.
	pub fn commit(&self, host: usize, count: u32, root: Hash) {
		let commit = CommitView { host: self.account(host), count, root, struck: false };
		self.lock().sprint.commits.push(commit);
	}

	/// Changes what the chain says of the race of epoch 5.
	pub fn edit_race(&self, edit: impl FnOnce(&mut SprintView)) {
		edit(&mut self.lock().sprint);
	}

	/// Sets consensus weight and bond of a Host.
	pub fn set_stake(&self, host: usize, weight: u64, bond: u128) {
		self.lock().stakes[host] = (weight, bond);
	}

	/// What the payer's next number is.
	pub fn set_next_sequence(&self, next: u32) {
		self.lock().payer.next_sequence = next;
	}

	/// Puts an inference on chain; the status follows from `finish`.
	pub fn record(&self, ta: usize, executor: usize, id: Hash, start: StartRecord, finish: Option<FinishRecord>) {
		let mut inner = self.lock();
		let key = BatchKey { ta: self.account(ta), number: inner.batches.len() as u64 };
		let status = if finish.is_some() { InferenceStatus::Finished } else { InferenceStatus::Started };
		let view = InferenceView {
			id,
			batch: key.clone(),
			index: 0,
			epoch: inner.epoch,
			started_at: inner.slot,
			payer: inner.payer.account.clone(),
			executor: self.account(executor),
			start,
			finish,
			cost: 0,
			verify_ppb: pacer_duty::PPB,
			verdicts: vec![],
			status,
		};
		inner.batches.insert(key, vec![view]);
	}

	/// The chain as a Host's agent sees it.
	pub fn view(&self, me: usize) -> View {
		let inner = self.lock();
		let mut inferences = Inferences::default();
		for (key, batch) in &inner.batches {
			inferences.put(key.clone(), batch.clone());
		}
		View {
			hash: Hash::from_low_u64_be(inner.number.into()),
			number: inner.number,
			clock: self.clock(&inner),
			hosts: Arc::new(self.hosts(&inner)),
			models: Arc::new(vec![model()]),
			draw_value: [inner.epoch as u8; 32],
			seed_value: Some([7; 32]),
			me: Some(self.account(me)),
			inferences: Arc::new(inferences),
			read_at: Instant::now(),
		}
	}

	fn clock(&self, inner: &Inner) -> ClockView {
		let params = ClockParams::LOCAL;
		let session = inner.epoch * params.epoch_sessions() + params.first_session_of(inner.phase);
		ClockView { params, now: params.moment(session, inner.slot, inner.slot) }
	}

	fn hosts(&self, inner: &Inner) -> Vec<HostView> {
		let host = |i: usize| HostView {
			account: self.account(i),
			duty_key: self.key(i).public(),
			endpoint: inner.endpoints[i].clone().into_bytes(),
			models: vec![0],
			bond: inner.stakes[i].1,
			work: WEIGHT,
			consensus: inner.stakes[i].0,
			reputation: 0,
			excluded: false,
			heartbeat: true,
			may_race: true,
			work_counts: Default::default(),
		};
		(0..4).map(host).collect()
	}

	fn answer(&self, method: &str, args: &[u8]) -> Result<Vec<u8>> {
		fn read<T: Decode>(mut args: &[u8]) -> T {
			T::decode_all(&mut args).unwrap()
		}
		let inner = self.lock();
		Ok(match method.trim_start_matches("PacerApi_") {
			"clock" => self.clock(&inner).encode(),
			"hosts" => self.hosts(&inner).encode(),
			"models" => vec![model()].encode(),
			"sprint" if read::<u32>(args) == inner.sprint.epoch => inner.sprint.encode(),
			"sprint" => {
				SprintView { epoch: read(args), seed: None, commits: vec![], disputes: vec![], ..inner.sprint.clone() }.encode()
			},
			"lane_nonce" => {
				let (who, lane): (AccountId, Lane) = read(args);
				inner.nonces.get(&who).map_or(0, |n| n[number_of(lane)]).encode()
			},
			"payer_of" => {
				let _: (AccountId, Option<AccountId>) = read(args);
				Some(&inner.payer).encode()
			},
			"allowance" => u128::MAX.encode(),
			"request_keys" => Vec::<DutyKey>::new().encode(),
			"beacon" => {
				let race = Some([9u8; 32]);
				pacer_types::views::BeaconView { race, ..Default::default() }.encode()
			},
			"epoch" => {
				let weights = (0..4).map(|i| (self.account(i), WEIGHT, WEIGHT)).collect();
				EpochView { epoch: read(args), weights, totals: Default::default() }.encode()
			},
			"duty_extrinsic" => args.to_vec().encode(),
			other => return Err(Error::Node(format!("Exported method {other} is not found"))),
		})
	}

	/// What the chain does with records: without checks, for tests of what agents do.
	fn execute(&self, inner: &mut Inner, call: &SignedDutyCall) {
		let who = call.header.host.clone();
		inner.nonces.entry(who.clone()).or_default()[1] = call.header.nonce + 1;
		match &call.call {
			DutyCall::FinishMany { records } => {
				for (key, index, record) in records {
					let Some(i) = inner.batches.get_mut(key).and_then(|b| b.get_mut(usize::from(*index))) else { continue };
					i.finish = Some(record.clone());
					i.status = InferenceStatus::Finished;
				}
			},
			DutyCall::VerdictMany { records } => {
				for r in records {
					let Some(i) = inner.batches.get_mut(&r.batch).and_then(|b| b.get_mut(usize::from(r.index))) else { continue };
					i.verdicts.push((who.clone(), r.verdict.is_pass()));
				}
			},
			_ => {},
		}
	}
}

fn model() -> ModelView {
	let [prompt_price, completion_price] = [1_000_000_000; 2];
	ModelView { id: 0, name: MODEL.into(), weights_hash: Hash::zero(), prompt_price, completion_price }
}

impl Transport for FakeChain {
	fn state_call(&self, method: String, args: Vec<u8>, _at: Option<Hash>) -> BoxFuture<'_, Result<Vec<u8>>> {
		Box::pin(async move { self.answer(&method, &args) })
	}

	fn submit(&self, extrinsic: Vec<u8>) -> BoxFuture<'_, Result<()>> {
		Box::pin(async move {
			let call = SignedDutyCall::decode_all(&mut &extrinsic[..]).map_err(Error::node)?;
			let mut inner = self.lock();
			if let Some(why) = inner.refusals.pop() {
				return Err(Error::Refused(why));
			}
			let host = (0..4).find(|i| self.account(*i) == call.header.host).unwrap();
			let message = call.call.signing_hash(&self.genesis, &call.header);
			if !verify(&self.key(host).public(), &message, &call.signature) {
				return Err(Error::Refused(Refusal::BadProof));
			}
			if inner.is_automatic {
				self.execute(&mut inner, &call);
			}
			inner.submitted.push(call);
			Ok(())
		})
	}
}
