//! A runtime with this pallet and real balances, and a small world of Hosts, weights and standings around it.

use std::{
	cell::RefCell,
	collections::{BTreeMap, BTreeSet},
};

use frame_support::{
	derive_impl,
	traits::{OnIdle, OnInitialize},
	weights::Weight,
};
use pacer_types::{
	node_key,
	traits::{BeaconFaults, Earnings, EpochClock, EpochWeights, HostRegistry, Ineligible, OnEpoch, OnExcluded, Standing},
	weights::HostWeight,
	AccountId, Balance, ClockParams, DutyKey, EpochIndex, ModelId, Moment, Phase, PCR,
};
use sp_runtime::{traits::IdentityLookup, BuildStorage, DispatchError};

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
	pub type Balances = pallet_balances;
	#[runtime::pallet_index(2)]
	pub type Rewards = crate;
}

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
	type AccountId = AccountId;
	type Lookup = IdentityLookup<AccountId>;
	type Block = frame_system::mocking::MockBlock<Test>;
	type AccountData = pallet_balances::AccountData<Balance>;
	type DbWeight = frame_support::weights::constants::RocksDbWeight;
}

/// The existential deposit.
pub const DEPOSIT: Balance = PCR / 1_000;

frame_support::parameter_types! {
	pub const ExistentialDeposit: Balance = DEPOSIT;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
	type Balance = Balance;
	type ExistentialDeposit = ExistentialDeposit;
	type AccountStore = System;
}

impl crate::Config for Test {
	type Currency = Balances;
	type Clock = World;
	type Hosts = World;
	type Weights = World;
	type Standing = World;
	type BeaconFaults = World;
	type WeightInfo = ();
}

/// Everything the pallet asks others about.
#[derive(Default)]
pub struct World {
	/// The epoch.
	pub epoch: EpochIndex,
	/// Work weights.
	pub weights: BTreeMap<(EpochIndex, AccountId), u64>,
	/// Registered Hosts.
	pub hosts: BTreeSet<AccountId>,
	/// Hosts that are not eligible.
	pub ineligible: BTreeMap<(EpochIndex, AccountId), Ineligible>,
	/// Faults in the randomness.
	pub faults: BTreeMap<(EpochIndex, AccountId), u32>,
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
		let params = ClockParams::LOCAL;
		let session = world(|w| w.epoch) * params.epoch_sessions() + params.first_session_of(Phase::Switch);
		let start = u64::from(session) * u64::from(params.session_slots);
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
	fn duty_key(_: &AccountId) -> Option<DutyKey> {
		None
	}
	fn duty_key_for_seed(_: &AccountId, _: EpochIndex) -> Option<DutyKey> {
		None
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

impl Standing for World {
	fn reputation(_: &AccountId) -> u32 {
		0
	}
	fn is_excluded(epoch: EpochIndex, who: &AccountId) -> bool {
		Self::eligible(epoch, who) == Err(Ineligible::Excluded)
	}
	fn note_check(_: EpochIndex, _: &AccountId, _: bool) {}
	fn note_fraud(_: EpochIndex, _: &AccountId) {}
	fn duty_seed(_: EpochIndex, _: &AccountId) -> Option<[u8; 32]> {
		None
	}
	fn eligible(epoch: EpochIndex, who: &AccountId) -> Result<(), Ineligible> {
		world(|w| w.ineligible.get(&(epoch, who.clone())).copied()).map_or(Ok(()), Err)
	}
}

impl BeaconFaults for World {
	fn faults(epoch: EpochIndex, who: &AccountId) -> u32 {
		world(|w| w.faults.get(&(epoch, who.clone())).copied().unwrap_or(0))
	}
}

/// The n-th account; their order is that of the numbers.
pub fn account(n: u32) -> AccountId {
	let mut bytes = [0; 32];
	bytes[..4].copy_from_slice(&n.to_be_bytes());
	AccountId::new(bytes)
}

/// The ledger's pot, which is rich.
pub fn ledger() -> AccountId {
	account(1_000_000)
}

/// Gives a Host weight in an epoch.
pub fn weigh(epoch: EpochIndex, n: u32, work: u64) {
	world(|w| w.weights.insert((epoch, account(n)), work));
}

/// Sets the epoch.
pub fn at(epoch: EpochIndex) {
	world(|w| w.epoch = epoch);
}

/// The ledger pays for an inference.
pub fn pay(epoch: EpochIndex, workers: &[u32], price: Balance) -> Result<(), DispatchError> {
	let workers: Vec<AccountId> = workers.iter().map(|n| account(*n)).collect();
	<Rewards as Earnings>::pay_work(epoch, &ledger(), &workers, price)
}

/// Marks a Host as not eligible; tells the pallet if it is excluded.
pub fn disqualify(epoch: EpochIndex, n: u32, reason: Ineligible) {
	world(|w| w.ineligible.insert((epoch, account(n)), reason));
	if reason == Ineligible::Excluded {
		Rewards::on_excluded(epoch, &account(n));
	}
}

/// Makes one block.
pub fn block() {
	let now = System::block_number() + 1;
	System::set_block_number(now);
	Rewards::on_initialize(now);
	Rewards::do_try_state().unwrap();
}

/// Runs blocks until settlement and sweep are over; returns how many it took.
pub fn settle() -> u32 {
	let mut blocks = 0;
	while crate::Settling::<Test>::exists() || crate::Sweeping::<Test>::exists() {
		blocks += 1;
		assert!(blocks < 1_000, "the settlement never ends");
		block();
	}
	blocks
}

/// Goes through the Switch of an epoch, to the end of its settlement, and into the next epoch.
pub fn switch(epoch: EpochIndex) {
	at(epoch);
	Rewards::on_switch(epoch, &[], &[]);
	settle();
	at(epoch + 1);
}

/// A claim by the n-th account; whether it was free of fees.
pub fn claim(n: u32, epochs: &[EpochIndex]) -> Result<bool, DispatchError> {
	let epochs = epochs.to_vec().try_into().unwrap();
	match Rewards::claim(RuntimeOrigin::signed(account(n)), epochs) {
		Ok(info) => Ok(info.pays_fee == frame_support::dispatch::Pays::No),
		Err(failed) => {
			assert_eq!(failed.post_info.pays_fee, frame_support::dispatch::Pays::Yes, "failing must not be free");
			Err(failed.error)
		}
	}
}

/// The sum an account could claim now.
pub fn waiting(n: u32) -> Balance {
	Rewards::claimable(&account(n)).iter().map(|(_, amount)| amount).sum()
}

/// Lets blocks pass with time to tidy up.
pub fn idle(blocks: u32) {
	for _ in 0..blocks {
		let now = System::block_number() + 1;
		System::set_block_number(now);
		Rewards::on_idle(now, Weight::MAX);
	}
}

/// Checks that nobody gave the pot anything, so that invariant 1 holds with equality, and that issuance is explained.
pub fn exact() {
	let sums = crate::Books::<Test>::get();
	assert_eq!(Balances::free_balance(Rewards::pot()), DEPOSIT + sums.owed());
	assert_eq!(Balances::total_issuance() + sums.burned, genesis_issuance() + sums.minted);
}

const LEDGER_FUNDS: Balance = 1_000_000 * PCR;

fn genesis_issuance() -> Balance {
	LEDGER_FUNDS + DEPOSIT
}

/// Runs a test in a new world and checks the invariants at the end.
pub fn in_world<R>(test: impl FnOnce() -> R) -> R {
	let balances = pallet_balances::GenesisConfig { balances: vec![(ledger(), LEDGER_FUNDS)], ..Default::default() };
	let config = RuntimeGenesisConfig { balances, ..Default::default() };
	let mut ext = sp_io::TestExternalities::from(config.build_storage().unwrap());
	ext.execute_with(|| {
		System::set_block_number(1);
		world(|w| {
			*w = World::default();
			w.hosts.extend((1..=2_000).map(account));
		});
		let result = test();
		Rewards::do_try_state().unwrap();
		exact();
		result
	})
}
