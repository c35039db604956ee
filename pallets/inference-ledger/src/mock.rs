//! A runtime around the pallet. Clock, Hosts, weights, beacon, standing and earnings are small fakes that tests set.

use std::{cell::RefCell, collections::BTreeMap};

use codec::Encode;
use frame_support::{
	derive_impl, parameter_types,
	traits::{fungible::Mutate, tokens::Preservation, ConstU128, ConstU64, Hooks},
	weights::Weight,
	PalletId,
};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyHeader, Lane},
	node_key,
	traits::*,
	weights::HostWeight,
	AccountId, Balance, ClockParams, DutyKey, DutySignature, EpochIndex, Hash, ModelId, Moment, Phase, PCR,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{
	traits::{BlakeTwo256, IdentityLookup, Verify},
	transaction_validity::*,
	BuildStorage, DispatchError,
};

use crate as pallet_inference_ledger;
use crate::{Event, GenesisModel};

pub type Block = frame_system::mocking::MockBlockU32<Test>;

#[frame_support::runtime]
mod runtime {
	#[runtime::runtime]
	#[runtime::derive(
		RuntimeCall,
		RuntimeEvent,
		RuntimeError,
		RuntimeOrigin,
		RuntimeHoldReason,
		RuntimeFreezeReason,
		RuntimeTask
	)]
	pub struct Test;
	#[runtime::pallet_index(0)]
	pub type System = frame_system;
	#[runtime::pallet_index(1)]
	pub type Balances = pallet_balances;
	#[runtime::pallet_index(2)]
	pub type Ledger = pallet_inference_ledger;
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
	type AccountData = pallet_balances::AccountData<Balance>;
	type AccountId = AccountId;
	type Block = Block;
	type Hash = Hash;
	type Hashing = BlakeTwo256;
	type Lookup = IdentityLookup<AccountId>;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
	type AccountStore = System;
	type Balance = Balance;
	type ExistentialDeposit = ConstU128<{ PCR / 100 }>;
}

/// What the fakes answer.
pub struct World {
	pub slot: u64,
	pub work: BTreeMap<AccountId, u64>,
	pub serving: Vec<(AccountId, ModelId)>,
	pub nonces: BTreeMap<AccountId, u64>,
	pub reputation: u32,
	pub excluded: Vec<(EpochIndex, AccountId)>,
	pub checks: Vec<(EpochIndex, AccountId, bool)>,
	pub frauds: Vec<(EpochIndex, AccountId)>,
	pub exposers: Vec<AccountId>,
	pub seeds: BTreeMap<(EpochIndex, AccountId), [u8; 32]>,
	pub payments: Vec<(EpochIndex, Vec<AccountId>, Balance)>,
	pub payments_fail: bool,
	pub allow_self: bool,
}

thread_local! {
	static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Reads or changes what the fakes answer.
pub fn world<R>(f: impl FnOnce(&mut World) -> R) -> R {
	WORLD.with(|world| f(world.borrow_mut().as_mut().expect("set by build_and_execute")))
}

pub struct Fake;

impl EpochClock for Fake {
	fn params() -> ClockParams {
		ClockParams::LOCAL
	}
	fn now() -> Moment {
		let params = Self::params();
		let slot = world(|w| w.slot);
		let session = (slot / u64::from(params.session_slots)) as u32;
		params.moment(session, u64::from(session * params.session_slots), slot)
	}
}

impl HostRegistry for Fake {
	fn is_host(who: &AccountId) -> bool {
		world(|w| w.work.contains_key(who))
	}
	fn hosts() -> Vec<AccountId> {
		world(|w| w.work.keys().cloned().collect())
	}
	fn duty_key(_: &AccountId) -> Option<DutyKey> {
		None
	}
	fn duty_key_for_seed(_: &AccountId, _: EpochIndex) -> Option<DutyKey> {
		None
	}
	fn serves(who: &AccountId, model: ModelId) -> bool {
		world(|w| w.serving.contains(&(who.clone(), model)))
	}
	fn may_race(_: &AccountId, _: EpochIndex) -> bool {
		true
	}
	fn owns_node_key(_: &AccountId, _: &node_key::Public) -> bool {
		false
	}
}

impl EpochWeights for Fake {
	fn weights(_: EpochIndex) -> Vec<HostWeight> {
		world(|w| w.work.iter().map(|(host, work)| HostWeight { host: host.clone(), work: *work, consensus: *work }).collect())
	}
	fn weight(epoch: EpochIndex, who: &AccountId) -> Option<HostWeight> {
		Self::weights(epoch).into_iter().find(|w| w.host == *who)
	}
	fn total_work(epoch: EpochIndex) -> u64 {
		Self::weights(epoch).iter().map(|w| w.work).sum()
	}
	fn total_consensus(epoch: EpochIndex) -> u64 {
		Self::total_work(epoch)
	}
}

impl Beacon for Fake {
	fn value(epoch: EpochIndex, _: BeaconValue) -> Option<[u8; 32]> {
		Some([epoch as u8; 32])
	}
	fn latest() -> [u8; 32] {
		[Self::epoch_byte(); 32]
	}
}

impl Fake {
	fn epoch_byte() -> u8 {
		Self::now().epoch as u8
	}
}

impl Standing for Fake {
	fn reputation(_: &AccountId) -> u32 {
		world(|w| w.reputation)
	}
	fn is_excluded(epoch: EpochIndex, who: &AccountId) -> bool {
		world(|w| w.excluded.contains(&(epoch, who.clone())))
	}
	fn note_check(epoch: EpochIndex, who: &AccountId, passed: bool) {
		world(|w| w.checks.push((epoch, who.clone(), passed)));
	}
	fn note_fraud(epoch: EpochIndex, who: &AccountId) {
		world(|w| {
			w.frauds.push((epoch, who.clone()));
			w.excluded.push((epoch, who.clone()));
		});
	}
	fn duty_seed(epoch: EpochIndex, who: &AccountId) -> Option<[u8; 32]> {
		world(|w| w.seeds.get(&(epoch, who.clone())).copied())
	}
	fn eligible(_: EpochIndex, _: &AccountId) -> Result<(), Ineligible> {
		Ok(())
	}
}

impl Earnings for Fake {
	fn pay_work(epoch: EpochIndex, pot: &AccountId, workers: &[AccountId], price: Balance) -> Result<(), DispatchError> {
		// Money moves first: a failure afterwards must be rolled back by the pallet.
		Balances::transfer(pot, &rewards_account(), price, Preservation::Preserve)?;
		if world(|w| w.payments_fail) {
			return Err(DispatchError::Other("payments fail"));
		}
		world(|w| w.payments.push((epoch, workers.to_vec(), price)));
		Ok(())
	}
	fn pending(_: EpochIndex, _: &AccountId) -> Balance {
		0
	}
}

impl Bounties for Fake {
	fn note_exposed(_: EpochIndex, exposers: &[AccountId]) {
		world(|w| w.exposers.extend_from_slice(exposers));
	}
}

type Judged<T> = Result<T, TransactionValidityError>;

impl Fake {
	fn judge(
		kind: CallKind,
		header: &DutyHeader,
		body: &impl Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		check()?;
		let message = signing_hash(&Ledger::genesis_hash(), header, kind, body);
		if !signature.verify(&message[..], &duty_pair(&header.host).public()) {
			return Err(InvalidTransaction::BadProof.into());
		}
		Ok(ValidTransaction { provides: vec![(header, kind).encode()], ..Default::default() })
	}
}

impl DutyAuth for Fake {
	fn authorize_lane(
		_: TransactionSource,
		kind: CallKind,
		_: Lane,
		header: &DutyHeader,
		body: &impl Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		if header.nonce < Self::next_nonce(&header.host, Lane::Ledger) {
			return Err(InvalidTransaction::Stale.into());
		}
		Self::judge(kind, header, body, signature, check)
	}
	fn authorize_once(
		kind: CallKind,
		header: &DutyHeader,
		_: &impl Encode,
		body: &impl Encode,
		signature: &DutySignature,
		check: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		Self::judge(kind, header, body, signature, check)
	}
	fn authorize_node(
		_: CallKind,
		_: &DutyHeader,
		_: &node_key::Public,
		_: &impl Encode,
		_: &impl Encode,
		_: &node_key::Signature,
		_: impl FnOnce() -> Judged<()>,
	) -> Judged<ValidTransaction> {
		Err(InvalidTransaction::BadSigner.into())
	}
	fn mark(_: Lane, header: &DutyHeader) {
		world(|w| w.nonces.insert(header.host.clone(), header.nonce + 1));
	}
	fn next_nonce(who: &AccountId, _: Lane) -> u64 {
		world(|w| w.nonces.get(who).copied().unwrap_or(0))
	}
}

parameter_types! {
	pub const LedgerPot: PalletId = PalletId(*b"pacr/inf");
	pub AllowSelf: bool = world(|w| w.allow_self);
}

impl crate::Config for Test {
	type AdminOrigin = frame_system::EnsureRoot<AccountId>;
	type AllowSelf = AllowSelf;
	type Auth = Fake;
	type Beacon = Fake;
	type Bounties = Fake;
	type Clock = Fake;
	type Currency = Balances;
	type Earnings = Fake;
	type ExpirySlots = ConstU64<40>;
	type Hosts = Fake;
	type MinDeposit = ConstU128<PCR>;
	type PalletId = LedgerPot;
	type ScanSlots = ConstU64<4>;
	type Standing = Fake;
	type VerdictWindow = ConstU64<32>;
	type VoteWindow = ConstU64<32>;
	type WeightInfo = ();
	type Weights = Fake;
}

/// Host number n. Hosts 0 to 4 have weights 10, 20, 30, 40 and 0.
pub fn host(n: u8) -> AccountId {
	AccountId::new([n + 1; 32])
}

/// Developer number n; Developers 0 to 2 have 100 tokens.
pub fn developer(n: u8) -> AccountId {
	AccountId::new([n + 101; 32])
}

/// Where the fake rewards keep what they were paid.
pub fn rewards_account() -> AccountId {
	AccountId::new([200; 32])
}

pub fn duty_pair(who: &AccountId) -> sr25519::Pair {
	sr25519::Pair::from_seed(who.as_ref())
}

pub fn events() -> Vec<Event<Test>> {
	System::events()
		.into_iter()
		.filter_map(|record| match record.event {
			RuntimeEvent::Ledger(event) => Some(event),
			_ => None,
		})
		.collect()
}

/// Makes the next block, `slots` later.
pub fn next_block(slots: u64) {
	Ledger::on_idle(System::block_number(), Weight::MAX);
	let number = System::block_number() + 1;
	System::reset_events();
	System::initialize(&number, &Hash::repeat_byte(number as u8), &Default::default());
	world(|w| w.slot += slots);
	Ledger::on_initialize(number);
}

/// Makes a block in the slot.
pub fn block_at(slot: u64) {
	let now = world(|w| w.slot);
	next_block(slot - now);
}

/// Goes to the last session of the epoch's Audit, and lets ready batches be sealed.
pub fn go_sealing(epoch: u64) {
	let params = ClockParams::LOCAL;
	let session = u64::from(params.first_session_of(Phase::Switch)) - 1;
	block_at(epoch * params.epoch_slots() + session * u64::from(params.session_slots));
	next_block(1);
}

/// The pot holds exactly what Developers have, and every invariant holds.
pub fn check() {
	let balance = Ledger::conservation();
	assert_eq!(balance.escrow, balance.held, "invariant 1, to the unit");
	Ledger::do_try_state().unwrap();
}

/// One model at 2 and 4 tokens per 1,000 prompt and completion tokens; Hosts 0 to 3 serve it. Checks the invariants at
/// the end.
pub fn build_and_execute(test: impl FnOnce()) {
	WORLD.with(|world| {
		*world.borrow_mut() = Some(World {
			slot: 1,
			work: (0..5).map(|n| (host(n), [10, 20, 30, 40, 0][usize::from(n)])).collect(),
			serving: (0..5).map(|n| (host(n), 0)).collect(),
			nonces: BTreeMap::new(),
			reputation: 0,
			excluded: vec![],
			checks: vec![],
			frauds: vec![],
			exposers: vec![],
			seeds: BTreeMap::new(),
			payments: vec![],
			payments_fail: false,
			allow_self: false,
		});
	});
	let mut storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
	let balances = (0..3).map(|n| (developer(n), 100 * PCR)).chain([(rewards_account(), PCR)]).collect();
	pallet_balances::GenesisConfig::<Test> { balances, ..Default::default() }.assimilate_storage(&mut storage).unwrap();
	let model = GenesisModel {
		name: "demo".into(),
		weights_hash: Hash::repeat_byte(9),
		prompt_price: 2 * PCR,
		completion_price: 4 * PCR,
		thresholds: vec![],
	};
	crate::GenesisConfig::<Test> { models: vec![model], ..Default::default() }.assimilate_storage(&mut storage).unwrap();
	sp_io::TestExternalities::from(storage).execute_with(|| {
		next_block(1);
		test();
		check();
	});
}
