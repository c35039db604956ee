//! The WASM runtime: every pallet wired together.
//!
//! - [`configs`]: parameters of each pallet, and the small traits by which they meet.
//! - [`session`]: how a race's weights become BABE and GRANDPA weights, and when.
//! - [`apis`]: what a node answers.
//! - [`genesis`]: the presets `development` (one Host) and `local` (four).
#![cfg_attr(not(feature = "std"), no_std)]
#![recursion_limit = "512"]
// What the FRAME macros generate carries no docs.
#![allow(missing_docs)]

extern crate alloc;

#[cfg(feature = "std")]
include!(concat!(env!("OUT_DIR"), "/wasm_binary.rs"));

// First: its macros are used in `apis`.
#[cfg(feature = "runtime-benchmarks")]
#[macro_use]
pub mod benchmarks;
pub mod apis;
pub mod configs;
pub mod genesis;
pub mod session;
pub mod views;

use alloc::{borrow::Cow, vec::Vec};
pub use pacer_types::{AccountId, Balance, BlockNumber, Hash, Signature};
use sp_runtime::{generic, traits::BlakeTwo256, MultiAddress};
use sp_version::RuntimeVersion;

pub use configs::*;
pub use session::SessionKeys;

/// Nonce of an account.
pub type Nonce = u32;
/// Address as written in transactions.
pub type Address = MultiAddress<AccountId, ()>;
/// Header of a block.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// A block.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// What every transaction is checked for. `AuthorizeCall` comes first: it turns a general transaction whose call
/// authorises itself into an authorised origin, which the rest lets pass without account or fee.
pub type TxExtension = (
	frame_system::AuthorizeCall<Runtime>,
	frame_system::CheckNonZeroSender<Runtime>,
	frame_system::CheckSpecVersion<Runtime>,
	frame_system::CheckTxVersion<Runtime>,
	frame_system::CheckGenesis<Runtime>,
	frame_system::CheckEra<Runtime>,
	frame_system::CheckNonce<Runtime>,
	frame_system::CheckWeight<Runtime>,
	pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
	frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
	frame_system::WeightReclaim<Runtime>,
);
/// A transaction as it travels.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// What a wallet signs.
pub type SignedPayload = generic::SignedPayload<RuntimeCall, TxExtension>;
/// Runs blocks.
pub type Executive =
	frame_executive::Executive<Runtime, Block, frame_system::ChainContext<Runtime>, Runtime, AllPalletsWithSystem>;

/// The extension of a transaction that no wallet signs.
pub fn unsigned_extension() -> TxExtension {
	extension(0, generic::Era::Immortal)
}

/// The extension of a transaction with this nonce and era, without tip.
pub fn extension(nonce: Nonce, era: generic::Era) -> TxExtension {
	(
		frame_system::AuthorizeCall::new(),
		frame_system::CheckNonZeroSender::new(),
		frame_system::CheckSpecVersion::new(),
		frame_system::CheckTxVersion::new(),
		frame_system::CheckGenesis::new(),
		frame_system::CheckEra::from(era),
		frame_system::CheckNonce::from(nonce),
		frame_system::CheckWeight::new(),
		pallet_transaction_payment::ChargeTransactionPayment::from(0),
		frame_metadata_hash_extension::CheckMetadataHash::new(false),
		frame_system::WeightReclaim::new(),
	)
}

/// This runtime's version.
#[sp_version::runtime_version]
pub const VERSION: RuntimeVersion = RuntimeVersion {
	spec_name: Cow::Borrowed("pacer"),
	impl_name: Cow::Borrowed("pacer"),
	authoring_version: 1,
	spec_version: 3,
	impl_version: 1,
	apis: apis::RUNTIME_API_VERSIONS,
	transaction_version: 3,
	system_version: 1,
};

/// The order matters: BABE knows the slot before anyone asks the clock; the pallet that holds the weights comes before
/// Session, whose handlers read them, at genesis too; Randomness comes after Session, so that a late value is there in
/// the first block of the next phase.
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
		RuntimeTask,
		RuntimeViewFunction
	)]
	pub struct Runtime;

	#[runtime::pallet_index(0)]
	pub type System = frame_system;
	#[runtime::pallet_index(1)]
	pub type Babe = pallet_babe;
	#[runtime::pallet_index(2)]
	pub type Timestamp = pallet_timestamp;
	#[runtime::pallet_index(3)]
	pub type Balances = pallet_balances;
	#[runtime::pallet_index(4)]
	pub type TransactionPayment = pallet_transaction_payment;
	#[runtime::pallet_index(5)]
	pub type Authorship = pallet_authorship;
	#[runtime::pallet_index(6)]
	pub type Offences = pallet_offences;
	#[runtime::pallet_index(7)]
	pub type Historical = pallet_session::historical;
	#[runtime::pallet_index(8)]
	pub type Hosts = pallet_hosts;
	#[runtime::pallet_index(9)]
	pub type Sprint = pallet_sprint;
	#[runtime::pallet_index(10)]
	pub type Session = pallet_session;
	#[runtime::pallet_index(11)]
	pub type Randomness = pallet_randomness;
	#[runtime::pallet_index(12)]
	pub type Grandpa = pallet_grandpa;
	#[runtime::pallet_index(13)]
	pub type Reputation = pallet_reputation;
	#[runtime::pallet_index(14)]
	pub type Rewards = pallet_rewards;
	#[runtime::pallet_index(15)]
	pub type InferenceLedger = pallet_inference_ledger;
	#[runtime::pallet_index(16)]
	pub type Sudo = pallet_sudo;
	#[runtime::pallet_index(17)]
	pub type Utility = pallet_utility;
	#[runtime::pallet_index(18)]
	pub type Multisig = pallet_multisig;
	#[runtime::pallet_index(19)]
	pub type Proxy = pallet_proxy;
}
