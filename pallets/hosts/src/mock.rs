//! A runtime around the pallet, with a clock and weights that tests set.

use std::cell::RefCell;

use frame_support::{derive_impl, parameter_types, traits::ConstU128};
use pacer_types::{
	node_key,
	traits::{EpochClock, EpochWeights},
	AccountId, Balance, ClockParams, DutyKey, DutySignature, EpochIndex, Hash, Moment, Phase, PCR,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{
	generic,
	traits::{BlakeTwo256, IdentityLookup},
	BuildStorage, MultiSignature,
};

use crate as pallet_hosts;

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

thread_local! {
	static NOW: RefCell<(EpochIndex, Phase, u64)> = const { RefCell::new((0, Phase::Inference, 10)) };
}

/// Moves the clock.
pub fn set_now(epoch: EpochIndex, phase: Phase, slot: u64) {
	NOW.with(|now| *now.borrow_mut() = (epoch, phase, slot));
}

pub struct Clock;
impl EpochClock for Clock {
	fn params() -> ClockParams {
		ClockParams::LOCAL
	}
	fn now() -> Moment {
		let (epoch, phase, slot) = NOW.with(|now| *now.borrow());
		let params = Self::params();
		let session = epoch * params.epoch_sessions() + params.first_session_of(phase);
		Moment { slot, ..params.moment(session, slot, slot) }
	}
}

/// Every Host but Eve has weight.
pub struct Weights;
impl EpochWeights for Weights {
	fn weights(_: EpochIndex) -> Vec<pacer_types::weights::HostWeight> {
		vec![]
	}
	fn weight(_: EpochIndex, who: &AccountId) -> Option<pacer_types::weights::HostWeight> {
		(*who != account("Eve")).then(|| pacer_types::weights::HostWeight { host: who.clone(), work: 5, consensus: 5 })
	}
	fn total_work(_: EpochIndex) -> u64 {
		10
	}
	fn total_consensus(_: EpochIndex) -> u64 {
		10
	}
}

/// The node key made from a name belongs to the account of that name.
pub struct NodeKeys;
impl pacer_types::traits::NodeKeyOwner for NodeKeys {
	fn owner(key: &node_key::Public) -> Option<AccountId> {
		["Alice", "Bob", "Eve"].iter().find(|name| node_pair(name).public() == *key).map(|name| account(name))
	}
}

parameter_types! {
	pub const Bond: Balance = 1_000 * PCR;
}

impl crate::Config for Test {
	type Clock = Clock;
	type Currency = Balances;
	type HostBond = Bond;
	type NodeKeyOwner = NodeKeys;
	type RuntimeHoldReason = RuntimeHoldReason;
	type WeightInfo = ();
	type Weights = Weights;
}

pub fn account(name: &str) -> AccountId {
	sr25519::Pair::from_string(&format!("//{name}"), None).unwrap().public().into()
}

pub fn duty_pair(name: &str) -> sr25519::Pair {
	sr25519::Pair::from_string(&format!("//{name}//duty"), None).unwrap()
}

pub fn node_pair(name: &str) -> node_key::Pair {
	node_key::Pair::from_string(&format!("//{name}//node"), None).unwrap()
}

/// The proof with which `name` registers `key`.
pub fn proof(name: &str, key: &sr25519::Pair) -> (DutyKey, DutySignature) {
	(key.public(), key.sign(&Hosts::possession_hash(&account(name))))
}

/// Registers a Host named so.
pub fn register(name: &str) {
	let (key, proof) = proof(name, &duty_pair(name));
	let endpoint = format!("http://{name}.example:80").into_bytes().try_into().unwrap();
	Hosts::register(RuntimeOrigin::signed(account(name)), key, endpoint, vec![0].try_into().unwrap(), proof).unwrap();
}

/// Alice, Bob and Eve have money; nobody is a Host. Checks the invariants at the end.
pub fn build_and_execute(test: impl FnOnce()) {
	let mut storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
	let balances = ["Alice", "Bob", "Eve"].map(|name| (account(name), 5_000 * PCR)).to_vec();
	pallet_balances::GenesisConfig::<Test> { balances, ..Default::default() }.assimilate_storage(&mut storage).unwrap();
	sp_io::TestExternalities::from(storage).execute_with(|| {
		System::set_block_number(1);
		set_now(0, Phase::Inference, 10);
		test();
		Hosts::do_try_state().unwrap();
	});
}
