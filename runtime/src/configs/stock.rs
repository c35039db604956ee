//! The SDK's pallets, and how off-chain workers make transactions.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{
	derive_impl, parameter_types,
	traits::{ConstU128, ConstU32, ConstU64, ConstU8, InstanceFilter},
	weights::{
		constants::{RocksDbWeight, WEIGHT_REF_TIME_PER_SECOND},
		ConstantMultiplier, IdentityFee, Weight,
	},
};
use frame_system::{
	limits::{BlockLength, BlockWeights},
	offchain::{CreateAuthorizedTransaction, CreateBare, CreateTransaction, CreateTransactionBase},
};
use pacer_types::{traits::EpochClock, AccountId, Balance, Hash, PCR};
use pallet_transaction_payment::{FungibleAdapter, TargetedFeeAdjustment};
use scale_info::TypeInfo;
use sp_runtime::{
	traits::{BlakeTwo256, ConvertInto},
	FixedPointNumber, Perbill, Perquintill,
};
use sp_staking::{
	offence::{OffenceDetails, OnOffenceHandler},
	SessionIndex,
};

use crate::{session, *};

/// Amounts below this do not keep an account alive.
pub const EXISTENTIAL_DEPOSIT: Balance = PCR / 1_000;
/// Compute of a block: 1 s. Nobody is sent proofs of this chain's state, so their size is no bound.
const MAX_BLOCK: Weight = Weight::from_parts(WEIGHT_REF_TIME_PER_SECOND, u64::MAX);
/// Share of the compute for normal calls; the rest is left to operational ones and the work of hooks.
const NORMAL_RATIO: Perbill = Perbill::from_percent(60);
/// Share reserved for operational calls.
const RESERVED_RATIO: Perbill = Perbill::from_percent(35);

parameter_types! {
	pub const BlockHashCount: BlockNumber = 4_096;
	pub const Version: sp_version::RuntimeVersion = VERSION;
	pub RuntimeBlockWeights: BlockWeights = BlockWeights::builder()
		.for_class(frame_support::dispatch::DispatchClass::Normal, |w| w.max_total = Some(NORMAL_RATIO * MAX_BLOCK))
		.for_class(frame_support::dispatch::DispatchClass::Operational, |w| {
			w.max_total = Some(MAX_BLOCK);
			w.reserved = Some(RESERVED_RATIO * MAX_BLOCK);
		})
		.avg_block_initialization(Perbill::from_percent(5))
		.build_or_panic();
	pub RuntimeBlockLength: BlockLength = BlockLength::builder()
		.max_length(3 * 1024 * 1024)
		.modify_max_length_for_class(frame_support::dispatch::DispatchClass::Normal, |m| *m = NORMAL_RATIO * *m)
		.build();
	pub const SS58Prefix: u16 = pacer_types::SS58_PREFIX;
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
	type AccountData = pallet_balances::AccountData<Balance>;
	type AccountId = AccountId;
	type Block = Block;
	type BlockHashCount = BlockHashCount;
	type BlockLength = RuntimeBlockLength;
	type BlockWeights = RuntimeBlockWeights;
	type DbWeight = RocksDbWeight;
	type Hash = Hash;
	type Hashing = BlakeTwo256;
	type Lookup = sp_runtime::traits::AccountIdLookup<AccountId, ()>;
	type MaxConsumers = ConstU32<16>;
	type Nonce = Nonce;
	type SS58Prefix = SS58Prefix;
	type Version = Version;
}

/// Slots of a BABE epoch: a session of the clock that genesis set.
pub struct EpochDuration;
impl frame_support::traits::Get<u64> for EpochDuration {
	fn get() -> u64 {
		u64::from(Sprint::params().session_slots)
	}
}

/// A slot in milliseconds, as genesis set it.
pub struct SlotMillis;
impl frame_support::traits::Get<u64> for SlotMillis {
	fn get() -> u64 {
		Sprint::params().slot_ms
	}
}

/// Half a slot: no two blocks are closer.
pub struct MinimumPeriod;
impl frame_support::traits::Get<u64> for MinimumPeriod {
	fn get() -> u64 {
		Sprint::params().slot_ms / 2
	}
}

/// How many blocks a report of an equivocation may wait: two epochs' worth of slots.
pub struct ReportLongevity;
impl frame_support::traits::Get<u64> for ReportLongevity {
	fn get() -> u64 {
		Sprint::params().epoch_slots().saturating_mul(2)
	}
}

/// Most authorities. Bounded by the most Hosts there may be.
pub type MaxAuthorities = ConstU32<{ pacer_types::MAX_HOSTS }>;

impl pallet_babe::Config for Runtime {
	type DisabledValidators = Session;
	type EpochChangeTrigger = pallet_babe::ExternalTrigger;
	type EpochDuration = EpochDuration;
	type EquivocationReportSystem = pallet_babe::EquivocationReportSystem<Self, Offences, Historical, ReportLongevity>;
	type ExpectedBlockTime = SlotMillis;
	type KeyOwnerProof = sp_session::MembershipProof;
	type MaxAuthorities = MaxAuthorities;
	type MaxNominators = ConstU32<0>;
	type WeightInfo = ();
}

impl pallet_grandpa::Config for Runtime {
	type EquivocationReportSystem = pallet_grandpa::EquivocationReportSystem<Self, Offences, Historical, ReportLongevity>;
	type KeyOwnerProof = sp_session::MembershipProof;
	type MaxAuthorities = MaxAuthorities;
	type MaxNominators = ConstU32<0>;
	type MaxSetIdSessionEntries = ConstU64<16>;
	type RuntimeEvent = RuntimeEvent;
	type WeightInfo = ();
}

impl pallet_timestamp::Config for Runtime {
	type MinimumPeriod = MinimumPeriod;
	type Moment = u64;
	type OnTimestampSet = Babe;
	type WeightInfo = ();
}

impl pallet_balances::Config for Runtime {
	type AccountStore = System;
	type Balance = Balance;
	type DoneSlashHandler = ();
	type DustRemoval = ();
	type ExistentialDeposit = ConstU128<EXISTENTIAL_DEPOSIT>;
	type FreezeIdentifier = RuntimeFreezeReason;
	type MaxFreezes = ConstU32<8>;
	type MaxLocks = ConstU32<8>;
	type MaxReserves = ConstU32<8>;
	type ReserveIdentifier = [u8; 8];
	type RuntimeEvent = RuntimeEvent;
	type RuntimeFreezeReason = RuntimeFreezeReason;
	type RuntimeHoldReason = RuntimeHoldReason;
	type WeightInfo = pallet_balances::weights::SubstrateWeight<Runtime>;
}

parameter_types! {
	pub const TargetBlockFullness: Perquintill = Perquintill::from_percent(25);
	pub AdjustmentVariable: pallet_transaction_payment::Multiplier = pallet_transaction_payment::Multiplier::saturating_from_rational(1, 100_000);
	pub MinimumMultiplier: pallet_transaction_payment::Multiplier = pallet_transaction_payment::Multiplier::saturating_from_rational(1, 1_000);
	pub MaximumMultiplier: pallet_transaction_payment::Multiplier = pallet_transaction_payment::Multiplier::saturating_from_integer(1_000);
}

impl pallet_transaction_payment::Config for Runtime {
	type FeeMultiplierUpdate =
		TargetedFeeAdjustment<Self, TargetBlockFullness, AdjustmentVariable, MinimumMultiplier, MaximumMultiplier>;
	type LengthToFee = ConstantMultiplier<Balance, ConstU128<1_000_000>>;
	type OnChargeTransaction = FungibleAdapter<Balances, ()>;
	type OperationalFeeMultiplier = ConstU8<5>;
	type RuntimeEvent = RuntimeEvent;
	type WeightInfo = ();
	// A second of compute costs one token.
	type WeightToFee = IdentityFee<Balance>;
}

impl pallet_authorship::Config for Runtime {
	type EventHandler = ();
	type FindAuthor = pallet_session::FindAccountFromAuthorIndex<Self, Babe>;
}

impl pallet_offences::Config for Runtime {
	type IdentificationTuple = pallet_session::historical::IdentificationTuple<Self>;
	type OnOffenceHandler = PenaliseEquivocation;
	type RuntimeEvent = RuntimeEvent;
}

/// An equivocation costs the next race's weight and the epoch's earnings. Nobody is disabled inside a session: BABE and
/// GRANDPA count heads, not weights, when they disable.
pub struct PenaliseEquivocation;
impl OnOffenceHandler<AccountId, pallet_session::historical::IdentificationTuple<Runtime>, Weight> for PenaliseEquivocation {
	fn on_offence(
		offenders: &[OffenceDetails<AccountId, pallet_session::historical::IdentificationTuple<Runtime>>],
		_slash_fraction: &[Perbill],
		_session: SessionIndex,
	) -> Weight {
		let epoch = <Sprint as EpochClock>::epoch();
		for offender in offenders {
			let (who, ()) = &offender.offender;
			Sprint::penalise(who);
			<Reputation as pacer_types::traits::Standing>::note_fraud(epoch, who);
		}
		RocksDbWeight::get().reads_writes(1, 3).saturating_mul(offenders.len() as u64)
	}
}

impl pallet_session::Config for Runtime {
	type Currency = Balances;
	type DisablingStrategy = ();
	type KeyDeposit = ConstU128<{ PCR / 10 }>;
	type Keys = SessionKeys;
	type NextSessionRotation = Babe;
	type RuntimeEvent = RuntimeEvent;
	type SessionHandler = session::SessionHandlers;
	type SessionManager = pallet_session::historical::NoteHistoricalRoot<Self, session::EpochSessions>;
	type ShouldEndSession = Babe;
	type ValidatorId = AccountId;
	type ValidatorIdOf = ConvertInto;
	type WeightInfo = ();
}

/// Hosts have no identification beside their account.
pub struct NoIdentification;
impl sp_runtime::traits::Convert<AccountId, Option<()>> for NoIdentification {
	fn convert(_: AccountId) -> Option<()> {
		Some(())
	}
}

impl pallet_session::historical::Config for Runtime {
	type FullIdentification = ();
	type FullIdentificationOf = NoIdentification;
	type RuntimeEvent = RuntimeEvent;
}

impl pallet_sudo::Config for Runtime {
	type RuntimeCall = RuntimeCall;
	type RuntimeEvent = RuntimeEvent;
	type WeightInfo = ();
}

impl pallet_utility::Config for Runtime {
	type PalletsOrigin = OriginCaller;
	type RuntimeCall = RuntimeCall;
	type RuntimeEvent = RuntimeEvent;
	type WeightInfo = ();
}

impl pallet_multisig::Config for Runtime {
	type BlockNumberProvider = System;
	type Currency = Balances;
	type DepositBase = ConstU128<{ PCR / 10 }>;
	type DepositFactor = ConstU128<{ PCR / 100 }>;
	type MaxSignatories = ConstU32<100>;
	type RuntimeCall = RuntimeCall;
	type RuntimeEvent = RuntimeEvent;
	type WeightInfo = ();
}

/// What a proxy may do in its principal's name.
#[derive(
	Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum ProxyType {
	/// Anything.
	#[default]
	Any,
	/// Claiming rewards, nothing else: the money goes to the principal.
	Claim,
	/// What an operator does: keys, endpoint, claims; no transfers.
	Operate,
}

impl InstanceFilter<RuntimeCall> for ProxyType {
	fn filter(&self, call: &RuntimeCall) -> bool {
		match self {
			ProxyType::Any => true,
			ProxyType::Claim => matches!(call, RuntimeCall::Rewards(..)),
			ProxyType::Operate => matches!(call, RuntimeCall::Rewards(..) | RuntimeCall::Hosts(..) | RuntimeCall::Session(..)),
		}
	}

	fn is_superset(&self, other: &Self) -> bool {
		match (self, other) {
			(ProxyType::Any, _) => true,
			(ProxyType::Operate, ProxyType::Claim) => true,
			_ => self == other,
		}
	}
}

impl pallet_proxy::Config for Runtime {
	type AnnouncementDepositBase = ConstU128<{ PCR / 10 }>;
	type AnnouncementDepositFactor = ConstU128<{ PCR / 100 }>;
	type BlockNumberProvider = System;
	type CallHasher = BlakeTwo256;
	type Currency = Balances;
	type MaxPending = ConstU32<32>;
	type MaxProxies = ConstU32<32>;
	type ProxyDepositBase = ConstU128<{ PCR / 10 }>;
	type ProxyDepositFactor = ConstU128<{ PCR / 100 }>;
	type ProxyType = ProxyType;
	type RuntimeCall = RuntimeCall;
	type RuntimeEvent = RuntimeEvent;
	type WeightInfo = ();
}

// Transactions made by off-chain workers.

impl<LocalCall> CreateTransactionBase<LocalCall> for Runtime
where
	RuntimeCall: From<LocalCall>,
{
	type Extrinsic = UncheckedExtrinsic;
	type RuntimeCall = RuntimeCall;
}

impl<LocalCall> CreateTransaction<LocalCall> for Runtime
where
	RuntimeCall: From<LocalCall>,
{
	type Extension = TxExtension;

	fn create_transaction(call: RuntimeCall, extension: TxExtension) -> UncheckedExtrinsic {
		UncheckedExtrinsic::new_transaction(call, extension)
	}
}

impl<LocalCall> CreateAuthorizedTransaction<LocalCall> for Runtime
where
	RuntimeCall: From<LocalCall>,
{
	fn create_extension() -> TxExtension {
		unsigned_extension()
	}
}

impl<LocalCall> CreateBare<LocalCall> for Runtime
where
	RuntimeCall: From<LocalCall>,
{
	fn create_bare(call: RuntimeCall) -> UncheckedExtrinsic {
		UncheckedExtrinsic::new_bare(call)
	}
}
