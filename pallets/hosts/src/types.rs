//! What is stored of a Host, and what its duty key signs to prove possession.

use alloc::{string::String, vec::Vec};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use pacer_types::{
	duty::blake2_256, AccountId, Balance, DutyKey, EpochIndex, Hash, ModelId, MAX_ENDPOINT_BYTES, MAX_MODELS_PER_HOST,
};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

/// Base URL of an agent.
pub type Endpoint = BoundedVec<u8, ConstU32<MAX_ENDPOINT_BYTES>>;
/// Models a Host serves.
pub type Models = BoundedVec<ModelId, ConstU32<MAX_MODELS_PER_HOST>>;

/// Epochs between leaving and getting the bond back: one in which the last weight is used, one in which what was done
/// in it can still be disputed.
pub const BOND_EPOCHS: EpochIndex = 2;

/// A Host.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct HostInfo {
	/// Signs for the agent.
	pub duty_key: DutyKey,
	/// The key before, which decides duties until `seed_from`.
	pub previous_duty_key: Option<DutyKey>,
	/// First epoch whose duties `duty_key` decides.
	pub seed_from: EpochIndex,
	/// Where the agent is reached.
	pub endpoint: Endpoint,
	/// What it serves.
	pub models: Models,
	/// What is held on its account.
	pub bond: Balance,
	/// First epoch in which it may race.
	pub races_from: EpochIndex,
	/// When it may withdraw, once it left.
	pub withdraw_from: Option<EpochIndex>,
}

/// A Host at genesis.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenesisHost {
	/// Its wallet.
	pub account: AccountId,
	/// Its duty key.
	pub duty_key: DutyKey,
	/// Base URL of its agent.
	pub endpoint: String,
	/// Models it serves.
	pub models: Vec<ModelId>,
}

/// What a duty key signs when `who` registers it.
pub fn possession_hash(genesis: &Hash, who: &AccountId) -> [u8; 32] {
	(b"pacer/duty-key/v1", genesis, who).using_encoded(blake2_256)
}
