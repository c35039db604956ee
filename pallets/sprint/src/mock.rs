//! A runtime around the pallet: the real `pallet-hosts`, and a driver that makes blocks, rotates sessions and leaves out
//! BABE epochs as the real pallets do. Beacon and session keys are switches that tests set.

mod doubles;

use frame_support::{
	derive_impl, parameter_types,
	traits::{Authorize, ConstU128, ConstU32, OnFinalize, OnInitialize},
};
use pacer_types::{
	duty::{signing_hash, CallKind, DutyCall, DutyHeader, Lane},
	node_key,
	traits::{DutyAuth, EpochClock, SlotSource},
	AccountId, Balance, ClockParams, EpochIndex, Hash, Phase, SessionIndex, Slot, PCR,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{
	generic,
	traits::{BlakeTwo256, Dispatchable, IdentityLookup},
	transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction},
	BuildStorage, DispatchResult, MultiSignature,
};

use crate as pallet_sprint;
pub use doubles::*;

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
	pub type Sprint = pallet_sprint;
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

/// Nobody's node matters here; heartbeats are written directly.
pub struct NodeKeys;
impl pacer_types::traits::NodeKeyOwner for NodeKeys {
	fn owner(_: &node_key::Public) -> Option<AccountId> {
		None
	}
}

parameter_types! {
	pub const Bond: Balance = 1_000 * PCR;
	pub const BondPerCount: Balance = PCR;
	pub const MaxCount: u32 = 2_000;
	pub const ChallengeDeposit: Balance = 10 * PCR;
	/// Whether blocks have VRF outputs.
	pub static VrfOutputs: bool = true;
	/// What every Host earned in the current epoch.
	pub static Earned: Balance = 0;
	/// Whether the race value of the current epoch is there.
	pub static RaceValue: bool = true;
	/// Whether the audit value of the current epoch is there.
	pub static AuditValue: bool = true;
	pub static Session: SessionIndex = 0;
	pub static BabeEpoch: u64 = 0;
	pub static CurrentSlot: Slot = GENESIS_SLOT;
}

impl pallet_hosts::Config for Test {
	type Clock = Sprint;
	type Currency = Balances;
	type HostBond = Bond;
	type NodeKeyOwner = NodeKeys;
	type RuntimeHoldReason = RuntimeHoldReason;
	type WeightInfo = ();
	type Weights = Sprint;
}

impl crate::Config for Test {
	type Auth = Hosts;
	type Beacon = FakeBeacon;
	#[cfg(feature = "runtime-benchmarks")]
	type BenchmarkHelper = Slots;
	type BondPerCount = BondPerCount;
	type Bonds = Hosts;
	type Bounties = Recorder;
	type ChallengeDeposit = ChallengeDeposit;
	type Currency = Balances;
	type Earnings = Recorder;
	type Hosts = Hosts;
	type MaxCount = MaxCount;
	type MaxOpenPerChallenger = ConstU32<4>;
	type MaxWalletDisputes = ConstU32<6>;
	type OnEpoch = Recorder;
	type RuntimeHoldReason = RuntimeHoldReason;
	type SessionKeys = WithKeys;
	type Slots = Slots;
	type Standing = Recorder;
	type WeightInfo = ();
}

/// Slot of the first block.
pub const GENESIS_SLOT: Slot = 1_000;

/// Purges a Host's session keys.
pub fn purge_keys(name: &str) {
	KEYLESS.with(|k| k.borrow_mut().insert(account(name)));
}

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

/// All Hosts; the first four have weight at genesis.
pub const NAMES: [&str; 5] = ["Alice", "Bob", "Charlie", "Dave", "Eve"];

/// Accounts that are no Hosts.
pub const WALLETS: [&str; 3] = ["Wanda", "Walt", "Wilma"];

/// Ends the current block and begins one in this slot, as the executive, pallet-session and BABE do.
pub fn begin_block(slot: Slot) {
	let height = System::block_number();
	if height > 0 {
		Sprint::on_finalize(height);
	}
	System::set_block_number(height + 1);
	CurrentSlot::set(slot);
	Sprint::on_initialize(height + 1);
	let slots = u64::from(Sprint::params().session_slots);
	if slot >= Slots::session_start() + slots {
		Session::set(Session::get() + 1);
		let planned = Session::get() + 1;
		if let Some(hosts) = Sprint::validators_for(planned) {
			QUEUED.with(|q| q.borrow_mut().push((planned, hosts)));
		}
		BabeEpoch::set((slot - GENESIS_SLOT) / slots);
	}
}

/// Makes a block in every second slot up to the first one in this session.
pub fn run_to_session(session: SessionIndex) {
	while Session::get() < session {
		begin_block(CurrentSlot::get() + 2);
	}
}

/// Runs to the first block of a phase, of this epoch or a later one.
pub fn run_to(epoch: EpochIndex, phase: Phase) {
	let params = Sprint::params();
	run_to_session(epoch * params.epoch_sessions() + params.first_session_of(phase));
	assert_eq!((Sprint::epoch(), Sprint::phase()), (epoch, phase));
}

/// Heartbeats of all Hosts in this epoch.
pub fn heartbeats() {
	for name in NAMES {
		pallet_hosts::Heartbeats::<Test>::insert(Sprint::epoch(), account(name), ());
	}
}

pub fn header(name: &str) -> DutyHeader {
	let host = account(name);
	DutyHeader { nonce: 0, epoch: Sprint::epoch(), valid_until: CurrentSlot::get() + 32, host }
}

/// A commit with the Host's next nonce.
pub fn commit(name: &str, count: u32) -> crate::Call<Test> {
	let nonce = Hosts::next_nonce(&account(name), Lane::Consensus);
	commit_with(name, DutyHeader { nonce, ..header(name) }, count)
}

pub fn commit_with(signer: &str, header: DutyHeader, count: u32) -> crate::Call<Test> {
	commit_root(signer, header, count, Hash::repeat_byte(count as u8))
}

pub fn commit_root(signer: &str, header: DutyHeader, count: u32, root: Hash) -> crate::Call<Test> {
	let message = signing_hash(&Hosts::genesis_hash(), &header, CallKind::Commit, &(count, root));
	crate::Call::commit { header, count, root, signature: duty_pair(signer).sign(&message) }
}

/// Any duty call, signed by the Host itself.
pub fn say(name: &str, call: DutyCall) -> crate::Call<Test> {
	say_with(name, header(name), call)
}

pub fn say_with(signer: &str, header: DutyHeader, call: DutyCall) -> crate::Call<Test> {
	let signature = duty_pair(signer).sign(&call.signing_hash(&Hosts::genesis_hash(), &header));
	match call {
		DutyCall::Challenge { race, subject, position } => crate::Call::challenge { header, race, subject, position, signature },
		DutyCall::Answer { race, dispute, opening, hashes } => {
			crate::Call::answer { header, race, dispute, opening, hashes: hashes.try_into().expect("fits"), signature }
		}
		DutyCall::Refute { race, dispute, step } => crate::Call::refute { header, race, dispute, step, signature },
		DutyCall::DemandList { subject, with_deposit } => crate::Call::demand_list { header, subject, with_deposit, signature },
		DutyCall::PostOpenings { openings } => {
			crate::Call::post_openings { header, openings: openings.try_into().expect("fits"), signature }
		}
		other => unreachable!("{other:?} is not of this pallet"),
	}
}

/// Dispatches a call of a wallet, as the executive does: all or nothing.
pub fn wallet(name: &str, call: crate::Call<Test>) -> DispatchResult {
	let result = frame_support::storage::with_storage_layer(|| {
		RuntimeCall::from(call).dispatch(RuntimeOrigin::signed(account(name))).map_err(|e| e.error)
	});
	result.map(|_| ())
}

/// What the pool says.
pub fn judge(call: &crate::Call<Test>) -> Result<ValidTransaction, TransactionValidityError> {
	let call = RuntimeCall::from(call.clone());
	call.authorize(TransactionSource::External).expect("calls are authorized").map(|(valid, _)| valid)
}

/// Includes the call in the current block.
pub fn submit(call: &crate::Call<Test>) -> Result<(), TransactionValidityError> {
	let call = RuntimeCall::from(call.clone());
	call.authorize(TransactionSource::InBlock).expect("calls are authorized")?;
	call.dispatch(frame_system::RawOrigin::Authorized.into()).expect("an authorized call returns Ok");
	Ok(())
}

pub fn stale() -> Result<(), TransactionValidityError> {
	Err(InvalidTransaction::Stale.into())
}

pub fn rejected(why: pacer_types::Rejection) -> Result<(), TransactionValidityError> {
	Err(InvalidTransaction::from(why).into())
}

/// A race in which the named Hosts commit, up to the first block of Switch.
pub fn race(epoch: EpochIndex, counts: &[(&str, u32)]) {
	run_to(epoch, Phase::Inference);
	heartbeats();
	run_to(epoch, Phase::Race);
	for (name, count) in counts {
		submit(&commit(name, *count)).unwrap();
	}
	run_to(epoch, Phase::Switch);
}

/// (work, consensus) of the named Host.
pub fn weight(epoch: EpochIndex, name: &str) -> Option<(u64, u64)> {
	use pacer_types::traits::EpochWeights;
	Sprint::weight(epoch, &account(name)).map(|w| (w.work, w.consensus))
}

/// Events of this pallet since the start.
pub fn events() -> Vec<crate::Event<Test>> {
	let ours = |record: frame_system::EventRecord<RuntimeEvent, Hash>| match record.event {
		RuntimeEvent::Sprint(event) => Some(event),
		_ => None,
	};
	System::events().into_iter().filter_map(ours).collect()
}

/// Thread-locals outlive a chain.
fn reset() {
	Session::set(0);
	BabeEpoch::set(0);
	CurrentSlot::set(GENESIS_SLOT);
	RaceValue::set(true);
	AuditValue::set(true);
	VrfOutputs::set(true);
	Earned::set(0);
	KEYLESS.with(|k| k.borrow_mut().clear());
	HEARD.with(|h| h.borrow_mut().clear());
	QUEUED.with(|q| q.borrow_mut().clear());
}

/// Runs a test on a chain with five Hosts and these rules; checks the invariants at the end.
pub fn build_with(mean_of: u32, min_hosts: u32, test: impl FnOnce()) {
	build(mean_of, min_hosts, 100, test);
}

/// The local rules, but each of the first four Hosts begins with this weight.
pub fn build_weighing(weight: u64, test: impl FnOnce()) {
	build(1, 2, weight, test);
}

fn build(mean_of: u32, min_hosts: u32, weight: u64, test: impl FnOnce()) {
	reset();
	let mut storage = frame_system::GenesisConfig::<Test>::default().build_storage().unwrap();
	let balances = NAMES.iter().chain(&WALLETS).map(|name| (account(name), 5_000 * PCR)).collect();
	pallet_balances::GenesisConfig::<Test> { balances, ..Default::default() }.assimilate_storage(&mut storage).unwrap();
	let hosts = NAMES.map(|name| pallet_hosts::GenesisHost {
		account: account(name),
		duty_key: duty_pair(name).public(),
		endpoint: format!("http://{name}.example"),
		models: vec![],
	});
	let hosts = pallet_hosts::GenesisConfig::<Test> { hosts: hosts.to_vec(), ..Default::default() };
	hosts.assimilate_storage(&mut storage).unwrap();
	let weights = NAMES[..4].iter().map(|name| (account(name), weight)).collect();
	let sprint = crate::GenesisConfig::<Test> {
		clock: ClockParams::LOCAL,
		preset: 0,
		threshold: 1,
		min_hosts,
		mean_of,
		weights,
		..Default::default()
	};
	sprint.assimilate_storage(&mut storage).unwrap();
	sp_io::TestExternalities::from(storage).execute_with(|| {
		begin_block(GENESIS_SLOT);
		test();
		Sprint::do_try_state().unwrap();
	});
}

/// The local rules.
pub fn build_and_execute(test: impl FnOnce()) {
	build_with(1, 2, test);
}
