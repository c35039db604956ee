//! Identifiers and units.

use sp_core::sr25519;
use sp_runtime::{
	traits::{IdentifyAccount, Verify},
	MultiSignature,
};

/// A signature of a wallet.
pub type Signature = MultiSignature;
/// An account: of a Host, a Developer or anyone.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// An amount in the smallest unit; [`PCR`] of them are one token.
pub type Balance = u128;
/// A block's height.
pub type BlockNumber = u32;
/// A 32-byte hash. BLAKE2b-256 wherever nothing else is said.
pub type Hash = sp_core::H256;
/// Index of an epoch: `session / sessions_per_epoch`.
pub type EpochIndex = u32;
/// Index of a session, the unit in which phases are measured.
pub type SessionIndex = u32;
/// A BABE slot.
pub type Slot = u64;
/// Index of a registered model.
pub type ModelId = u32;
/// Number of a dispute within a race.
pub type DisputeId = u32;
/// The hot key with which an agent signs what it tells the chain.
pub type DutyKey = sr25519::Public;
/// A signature by a [`DutyKey`].
pub type DutySignature = sr25519::Signature;
/// Identifies an inference: see `design/inference.md`, step 2.
pub type InferenceId = Hash;

/// Decimals of the token.
pub const DECIMALS: u8 = 12;
/// One token.
pub const PCR: Balance = 1_000_000_000_000;
/// One millionth of a token: the unit prices are quoted in.
pub const MICRO_PCR: Balance = PCR / 1_000_000;
/// Prefix of addresses. 42 is the generic one, which every wallet knows.
pub const SS58_PREFIX: u16 = 42;
/// Symbol of the token.
pub const TOKEN_SYMBOL: &str = "PCR";

/// Most Hosts that can be registered at once; bounds every list of Hosts.
pub const MAX_HOSTS: u32 = 1_000;
/// Bytes of the base URL under which a Host's agent is reached.
pub const MAX_ENDPOINT_BYTES: u32 = 128;
/// Models one Host may serve.
pub const MAX_MODELS_PER_HOST: u32 = 16;
