//! A runtime with this pallet, and a small world of Hosts, keys, weights, counts and random values around it.

use std::{
	cell::RefCell,
	collections::{BTreeMap, BTreeSet},
};

use codec::Encode;
use frame_support::{
	derive_impl,
	traits::{OnIdle, OnInitialize},
	weights::Weight,
};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader, Lane, Rejection},
	duty_seed::{self, ProvenSeed},
	node_key,
	traits::{
		Beacon, BeaconValue, DutyAuth, EpochClock, EpochWeights, HostRegistry, OnEpoch, OnExcluded, WorkCounts, WorkRecord,
	},
	weights::HostWeight,
	AccountId, ClockParams, DutyKey, DutySignature, EpochIndex, Hash, ModelId, Moment, Phase,
};
use sp_core::{sr25519, Pair as _};
use sp_runtime::{
	traits::{IdentityLookup, Verify},
	transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction},
	BuildStorage,
};

#[frame_support::runtime]
mod runtime {
	#[runtime::runtime]
	#[runtime::derive(
		RuntimeCall,
		RuntimeEvent,
		RuntimeError,
		RuntimeOrigin,
		RuntimeFreezeReason,
		RuntimeHoldReason,
		RuntimeSlashReason,
		RuntimeLockId,
		RuntimeTask
	)]
	pub struct Test;

	#[runtime::pallet_index(0)]
	pub type System = frame_system;
	#[runtime::pallet_index(1)]
	pub type Reputation = crate;
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
	type AccountId = AccountId;
	type Lookup = IdentityLookup<AccountId>;
	type Block = frame_system::mocking::MockBlock<Test>;
	type DbWeight = frame_support::weights::constants::RocksDbWeight;
}

impl crate::Config for Test {
	type Clock = World;
	type Hosts = World;
	type Auth = World;
	type Weights = World;
	type Beacon = World;
	type Work = World;
	type OnExcluded = World;
	type WeightInfo = ();
}

/// Everything the pallet asks others about.
#[derive(Default)]
pub struct World {
	/// Epoch and phase.
	pub clock: Option<(EpochIndex, Phase)>,
	/// Work weights.
	pub weights: BTreeMap<(EpochIndex, AccountId), u64>,
	/// Race values.
	pub race_values: BTreeMap<EpochIndex, [u8; 32]>,
	/// What Hosts did.
	pub counts: BTreeMap<(EpochIndex, AccountId), WorkCounts>,
	/// Registered Hosts.
	pub hosts: BTreeSet<AccountId>,
	/// Exclusions that were announced.
	pub excluded: Vec<(EpochIndex, AccountId)>,
}

thread_local! {
	static WORLD: RefCell<World> = RefCell::default();
}

/// Changes or reads the world.
pub fn world<R>(f: impl FnOnce(&mut World) -> R) -> R {
	WORLD.with(|world| f(&mut world.borrow_mut()))
}

impl EpochClock for World {
	fn params() -> ClockParams {
		ClockParams::LOCAL
	}

	fn now() -> Moment {
		let (epoch, phase) = world(|w| w.clock).unwrap_or((0, Phase::Inference));
		let params = ClockParams::LOCAL;
		let session = epoch * params.epoch_sessions() + params.first_session_of(phase);
		let start = u64::from(session * params.session_slots);
		params.moment(session, start, start)
	}
}

impl HostRegistry for World {
	fn is_host(who: &AccountId) -> bool {
		world(|w| w.hosts.contains(who))
	}
	fn hosts() -> Vec<AccountId> {
		world(|w| w.hosts.iter().cloned().collect())
	}
	fn duty_key(who: &AccountId) -> Option<DutyKey> {
		Self::is_host(who).then(|| key(who).public())
	}
	fn duty_key_for_seed(who: &AccountId, _: EpochIndex) -> Option<DutyKey> {
		Self::duty_key(who)
	}
	fn serves(_: &AccountId, _: ModelId) -> bool {
		true
	}
	fn may_race(_: &AccountId, _: EpochIndex) -> bool {
		true
	}
	fn owns_node_key(_: &AccountId, _: &node_key::Public) -> bool {
		false
	}
}

/// Real signatures; no lanes and no node keys, which this pallet has no use for.
impl DutyAuth for World {
	fn authorize_lane(
		_: TransactionSource,
		_: CallKind,
		_: Lane,
		_: &DutyHeader,
		_: &impl Encode,
		_: &DutySignature,
		_: impl FnOnce() -> Result<(), TransactionValidityError>,
	) -> Result<ValidTransaction, TransactionValidityError> {
		Err(InvalidTransaction::Call.into())
	}

	fn authorize_once(
		kind: CallKind,
		header: &DutyHeader,
		subject: &impl Encode,
		body: &impl Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Result<(), TransactionValidityError>,
	) -> Result<ValidTransaction, TransactionValidityError> {
		let Some(key) = Self::duty_key(&header.host) else { return Err(InvalidTransaction::from(Rejection::UnknownHost).into()) };
		if header.epoch < Self::epoch() {
			return Err(InvalidTransaction::Stale.into());
		}
		check()?;
		if !signature.verify(&signing_hash(&genesis(), header, kind, body)[..], &key) {
			return Err(InvalidTransaction::BadProof.into());
		}
		let provides = vec![(kind, header.epoch, &header.host, subject).encode()];
		Ok(ValidTransaction { priority: kind.priority(), provides, ..Default::default() })
	}

	fn authorize_node(
		_: CallKind,
		_: &DutyHeader,
		_: &node_key::Public,
		_: &impl Encode,
		_: &impl Encode,
		_: &node_key::Signature,
		_: impl FnOnce() -> Result<(), TransactionValidityError>,
	) -> Result<ValidTransaction, TransactionValidityError> {
		Err(InvalidTransaction::Call.into())
	}

	fn mark(_: Lane, _: &DutyHeader) {}

	fn next_nonce(_: &AccountId, _: Lane) -> u64 {
		0
	}
}

impl EpochWeights for World {
	fn weights(epoch: EpochIndex) -> Vec<HostWeight> {
		world(|w| {
			let of_epoch = w.weights.range((epoch, account(0))..(epoch + 1, account(0)));
			of_epoch.map(|((_, host), work)| HostWeight { host: host.clone(), work: *work, consensus: *work }).collect()
		})
	}
	fn weight(epoch: EpochIndex, who: &AccountId) -> Option<HostWeight> {
		let work = world(|w| w.weights.get(&(epoch, who.clone())).copied())?;
		Some(HostWeight { host: who.clone(), work, consensus: work })
	}
	fn total_work(epoch: EpochIndex) -> u64 {
		Self::weights(epoch).iter().map(|w| w.work).sum()
	}
	fn total_consensus(epoch: EpochIndex) -> u64 {
		Self::total_work(epoch)
	}
}

impl Beacon for World {
	fn value(epoch: EpochIndex, which: BeaconValue) -> Option<[u8; 32]> {
		world(|w| w.race_values.get(&epoch).copied()).filter(|_| which == BeaconValue::Race)
	}
	fn latest() -> [u8; 32] {
		[0; 32]
	}
}

impl WorkRecord for World {
	fn counts(epoch: EpochIndex, who: &AccountId) -> WorkCounts {
		world(|w| w.counts.get(&(epoch, who.clone())).copied().unwrap_or_default())
	}
	fn paid_inferences(_: EpochIndex) -> u32 {
		0
	}
}

impl OnExcluded for World {
	fn on_excluded(epoch: EpochIndex, who: &AccountId) {
		world(|w| w.excluded.push((epoch, who.clone())));
	}
}

/// The n-th account; their order is that of the numbers.
pub fn account(n: u32) -> AccountId {
	let mut bytes = [0; 32];
	bytes[..4].copy_from_slice(&n.to_be_bytes());
	AccountId::new(bytes)
}

/// The duty key of an account.
pub fn key(who: &AccountId) -> sr25519::Pair {
	sr25519::Pair::from_seed(who.as_ref())
}

/// Hash of block 0.
pub fn genesis() -> Hash {
	System::block_hash(0)
}

/// The duty seed of a Host under the world's race value of the epoch before.
pub fn seed(who: &AccountId, epoch: EpochIndex) -> ProvenSeed {
	let value = world(|w| w.race_values.get(&(epoch - 1)).copied()).unwrap();
	duty_seed::prove(&key(who), &genesis(), epoch, &value)
}

/// Sets the clock.
pub fn at(epoch: EpochIndex, phase: Phase) {
	world(|w| w.clock = Some((epoch, phase)));
}

/// Runs blocks until the settlement is over; returns how many it took.
pub fn settle() -> u32 {
	let mut blocks = 0;
	while crate::Settling::<Test>::exists() {
		blocks += 1;
		assert!(blocks < 1_000, "the settlement never ends");
		let now = System::block_number() + 1;
		System::set_block_number(now);
		Reputation::on_initialize(now);
		Reputation::do_try_state().unwrap();
	}
	blocks
}

/// Goes through the Switch of an epoch with these racers, to the end of its settlement.
pub fn switch(epoch: EpochIndex, raced: &[AccountId], caught: &[AccountId]) {
	at(epoch, Phase::Switch);
	Reputation::on_switch(epoch, raced, caught);
	settle();
}

/// Lets blocks pass with time to tidy up.
pub fn idle(blocks: u32) {
	for _ in 0..blocks {
		let now = System::block_number() + 1;
		System::set_block_number(now);
		Reputation::on_idle(now, Weight::MAX);
	}
}

/// Runs a test in a new world with Hosts 1 to `hosts`, who have weight 10 in every epoch below 100, and checks the
/// invariants at the end.
pub fn in_world<R>(hosts: u32, test: impl FnOnce() -> R) -> R {
	let storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
	let mut ext = sp_io::TestExternalities::from(storage);
	ext.execute_with(|| {
		System::set_block_number(1);
		world(|w| {
			*w = World::default();
			for n in 1..=hosts {
				w.hosts.insert(account(n));
				w.weights.extend((0..100).map(|epoch| ((epoch, account(n)), 10)));
			}
		});
		let result = test();
		Reputation::do_try_state().unwrap();
		result
	})
}
