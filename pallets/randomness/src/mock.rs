//! A runtime around the pallet: the real `pallet-hosts`, a clock that a driver moves block by block, and weights that
//! tests set.

use frame_support::{
	derive_impl, parameter_types,
	traits::{Authorize, ConstU128, OnFinalize, OnInitialize},
};
use pacer_types::{
	duty::DutyHeader,
	node_key,
	traits::{BeaconValue, EpochClock, EpochWeights},
	weights::HostWeight,
	AccountId, Balance, ClockParams, EpochIndex, Hash, Moment, Phase, SessionIndex, Slot, PCR,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{
	generic,
	traits::{BlakeTwo256, Dispatchable, IdentityLookup},
	transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction},
	BuildStorage, MultiSignature,
};

use crate as pallet_randomness;

mod members;
pub use members::*;

pub type TxExtension = (frame_system::AuthorizeCall<Test>,);
pub type Extrinsic = generic::UncheckedExtrinsic<AccountId, RuntimeCall, MultiSignature, TxExtension>;
pub type Block = generic::Block<generic::Header<u32, BlakeTwo256>, Extrinsic>;

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
	pub type Hosts = pallet_hosts;
	#[runtime::pallet_index(3)]
	pub type Randomness = pallet_randomness;
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
	type ExistentialDeposit = ConstU128<1>;
}

impl<C> frame_system::offchain::CreateTransactionBase<C> for Test
where
	RuntimeCall: From<C>,
{
	type Extrinsic = Extrinsic;
	type RuntimeCall = RuntimeCall;
}

impl<C> frame_system::offchain::CreateTransaction<C> for Test
where
	RuntimeCall: From<C>,
{
	type Extension = TxExtension;

	fn create_transaction(call: RuntimeCall, extension: TxExtension) -> Extrinsic {
		Extrinsic::new_transaction(call, extension)
	}
}

impl<C> frame_system::offchain::CreateAuthorizedTransaction<C> for Test
where
	RuntimeCall: From<C>,
{
	fn create_extension() -> TxExtension {
		(frame_system::AuthorizeCall::new(),)
	}
}

/// The node key made from a name belongs to the account of that name.
pub struct NodeKeys;
impl pacer_types::traits::NodeKeyOwner for NodeKeys {
	fn owner(key: &node_key::Public) -> Option<AccountId> {
		let other = OtherNode::get().filter(|(node, _)| node == key).map(|(_, owner)| owner);
		other.or_else(|| NAMES.iter().find(|name| node_pair(name).public() == *key).map(|name| account(name)))
	}
}

parameter_types! {
	pub const Bond: Balance = 1_000 * PCR;
	pub static Session: SessionIndex = 0;
	pub static CurrentSlot: Slot = 0;
	/// Consensus weights by name.
	pub static Committee: Vec<(String, u64)> = vec![];
	/// Blocks begin with the hooks of this pallet, before the session changes.
	pub static WiredBelowSession: bool = false;
	/// Which of several forks the blocks from now on belong to.
	pub static Fork: u8 = 0;
	/// Weights by account, instead of [`Committee`] if there are any.
	pub static ManyWeights: Vec<HostWeight> = vec![];
	/// A node that belongs to an account without a name.
	pub static OtherNode: Option<(node_key::Public, AccountId)> = None;
}

impl pallet_hosts::Config for Test {
	type Clock = Clock;
	type Currency = Balances;
	type HostBond = Bond;
	type NodeKeyOwner = NodeKeys;
	type RuntimeHoldReason = RuntimeHoldReason;
	type WeightInfo = ();
	type Weights = Weights;
}

impl crate::Config for Test {
	type Auth = Hosts;
	#[cfg(feature = "runtime-benchmarks")]
	type BenchmarkHelper = Weights;
	type Clock = Clock;
	type Hosts = Hosts;
	type NodeKeyOwner = NodeKeys;
	type WeightInfo = ();
	type Weights = Weights;
}

/// Sessions begin at multiples of `E`.
pub struct Clock;
impl EpochClock for Clock {
	fn params() -> ClockParams {
		ClockParams::LOCAL
	}
	fn now() -> Moment {
		let params = Self::params();
		params.moment(Session::get(), u64::from(Session::get() * params.session_slots), CurrentSlot::get())
	}
}

pub struct Weights;
impl EpochWeights for Weights {
	fn weights(_: EpochIndex) -> Vec<HostWeight> {
		let many = ManyWeights::get();
		if !many.is_empty() {
			return many;
		}
		let mut list: Vec<HostWeight> = Committee::get()
			.into_iter()
			.map(|(name, consensus)| HostWeight { host: account(&name), work: consensus, consensus })
			.collect();
		list.sort_by(|a, b| a.host.cmp(&b.host));
		list
	}
	fn weight(epoch: EpochIndex, who: &AccountId) -> Option<HostWeight> {
		Self::weights(epoch).into_iter().find(|w| w.host == *who)
	}
	fn total_work(epoch: EpochIndex) -> u64 {
		Self::total_consensus(epoch)
	}
	fn total_consensus(epoch: EpochIndex) -> u64 {
		Self::weights(epoch).iter().map(|w| w.consensus).sum()
	}
}

#[cfg(feature = "runtime-benchmarks")]
impl crate::benchmarking::BenchmarkHelper for Weights {
	fn set_clock(session: SessionIndex, start: Slot, slot: Slot) {
		// Here sessions begin at multiples of their length.
		Session::set(session);
		CurrentSlot::set(u64::from(session * Clock::params().session_slots) + slot - start);
	}
	fn set_weights(_: EpochIndex, weights: Vec<HostWeight>) {
		ManyWeights::set(weights);
	}
	fn make_host(who: &AccountId, key: &node_key::Public) {
		let info = pallet_hosts::HostInfo {
			duty_key: Default::default(),
			previous_duty_key: None,
			seed_from: 0,
			endpoint: Default::default(),
			models: Default::default(),
			bond: 0,
			races_from: 0,
			withdraw_from: None,
		};
		pallet_hosts::Hosts::<Test>::insert(who, info);
		OtherNode::set(Some((key.clone(), who.clone())));
	}
}

/// Hosts: Eve has no weight.
pub const NAMES: [&str; 5] = ["Alice", "Bob", "Charlie", "Dave", "Eve"];
/// Committee: the first four.
pub const MEMBERS: [&str; 4] = ["Alice", "Bob", "Charlie", "Dave"];

/// 32 bytes of a name: no key derivation, which would dominate the tests' time.
fn seed(name: &str, use_of_key: &str) -> [u8; 32] {
	sp_io::hashing::blake2_256(format!("{name}/{use_of_key}").as_bytes())
}

pub fn account(name: &str) -> AccountId {
	seed(name, "account").into()
}

pub fn duty_pair(name: &str) -> sr25519::Pair {
	sr25519::Pair::from_seed(&seed(name, "duty"))
}

/// Secret URI of a Host's node key.
pub fn node_uri(name: &str) -> String {
	seed(name, "node").iter().fold("0x".to_string(), |uri, byte| format!("{uri}{byte:02x}"))
}

pub fn node_pair(name: &str) -> node_key::Pair {
	node_key::Pair::from_string(&node_uri(name), None).unwrap()
}

/// Hash of a block of this fork.
pub fn hash_of(height: u32) -> Hash {
	seed(&format!("block {height}"), &Fork::get().to_string()).into()
}

/// Ends the current block and begins one in this slot.
pub fn begin_block(slot: Slot) {
	let height = System::block_number();
	if height > 0 {
		Randomness::on_finalize(height);
	}
	System::set_block_number(height + 1);
	frame_system::BlockHash::<Test>::insert(height + 1, hash_of(height + 1));
	CurrentSlot::set(slot);
	let session = (slot / u64::from(Clock::params().session_slots)) as SessionIndex;
	if WiredBelowSession::get() {
		Randomness::on_initialize(height + 1);
		Session::set(session);
	} else {
		Session::set(session);
		Randomness::on_initialize(height + 1);
	}
}

/// Runs in blocks of two slots to the first slot of a session of a phase, plus `offset`.
pub fn run_to(epoch: EpochIndex, phase: Phase, session_in_phase: u32, offset: u64) {
	let params = Clock::params();
	let session = epoch * params.epoch_sessions() + params.first_session_of(phase) + session_in_phase;
	let target = u64::from(session * params.session_slots) + offset;
	while CurrentSlot::get() < target {
		begin_block((CurrentSlot::get() + 2).min(target));
	}
	assert_eq!((Clock::epoch(), Clock::phase()), (epoch, phase));
}

/// Runs to the first slot in which a value may be opened.
pub fn run_to_window(epoch: EpochIndex, which: BeaconValue) {
	let phase = match which {
		BeaconValue::Race => Phase::Open,
		BeaconValue::Audit => Phase::Audit,
	};
	run_to(epoch, phase, 0, u64::from(Clock::params().session_slots / 2));
}

pub fn header(name: &str) -> DutyHeader {
	DutyHeader { host: account(name), epoch: Clock::epoch(), nonce: 0, valid_until: CurrentSlot::get() + 32 }
}

/// Includes the call in the current block.
pub fn submit(call: &crate::Call<Test>) -> Result<(), TransactionValidityError> {
	include(RuntimeCall::from(call.clone())).map(|_| ())
}

/// Includes a call; returns what the pool would have been told.
pub fn include(call: RuntimeCall) -> Result<ValidTransaction, TransactionValidityError> {
	let (valid, _) = call.authorize(TransactionSource::InBlock).expect("calls are authorized")?;
	call.dispatch(frame_system::RawOrigin::Authorized.into()).expect("an authorized call returns Ok");
	Ok(valid)
}

pub fn stale() -> Result<(), TransactionValidityError> {
	Err(InvalidTransaction::Stale.into())
}

pub fn rejected(why: pacer_types::Rejection) -> Result<(), TransactionValidityError> {
	Err(InvalidTransaction::from(why).into())
}

/// Events of this pallet since the start.
pub fn events() -> Vec<crate::Event<Test>> {
	let ours = |record: frame_system::EventRecord<RuntimeEvent, Hash>| match record.event {
		RuntimeEvent::Randomness(event) => Some(event),
		_ => None,
	};
	System::events().into_iter().filter_map(ours).collect()
}

/// A chain with five Hosts, of which four have weights 10 each.
pub fn externalities() -> sp_io::TestExternalities {
	Session::set(0);
	CurrentSlot::set(0);
	WiredBelowSession::set(false);
	Fork::set(0);
	ManyWeights::set(vec![]);
	OtherNode::set(None);
	Committee::set(MEMBERS.map(|name| (name.to_string(), 10)).to_vec());
	let mut storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
	let balances = NAMES.map(|name| (account(name), 5_000 * PCR)).to_vec();
	pallet_balances::GenesisConfig::<Test> { balances, ..Default::default() }.assimilate_storage(&mut storage).unwrap();
	let hosts = NAMES.map(|name| pallet_hosts::GenesisHost {
		account: account(name),
		duty_key: duty_pair(name).public(),
		endpoint: format!("http://{name}.example"),
		models: vec![],
	});
	let hosts = pallet_hosts::GenesisConfig::<Test> { hosts: hosts.to_vec(), ..Default::default() };
	hosts.assimilate_storage(&mut storage).unwrap();
	let mut ext = sp_io::TestExternalities::from(storage);
	ext.execute_with(|| begin_block(0));
	ext
}

/// The same with a keystore, for benchmarks that sign.
#[cfg(feature = "runtime-benchmarks")]
pub fn bench_externalities() -> sp_io::TestExternalities {
	let mut ext = externalities();
	let keystore = sp_keystore::testing::MemoryKeystore::new();
	ext.register_extension(sp_keystore::KeystoreExt(std::sync::Arc::new(keystore)));
	ext
}

/// Runs a test; checks the invariants at the end.
pub fn build_and_execute(test: impl FnOnce()) {
	externalities().execute_with(|| {
		test();
		Randomness::do_try_state().unwrap();
	});
}
