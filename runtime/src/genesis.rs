//! Presets of the genesis state.
//!
//! `development` is a network of one Host that may be transfer agent, executor and validator at once; `local` one of
//! four. Keys are the well-known development ones and must never hold value.

use alloc::{format, string::String, vec, vec::Vec};
use frame_support::build_struct_json_patch;
use pacer_types::{node_key, AccountId, Balance, ClockParams, DutyKey, ModelId, MICRO_PCR, PCR};
use pallet_hosts::GenesisHost;
use pallet_inference_ledger::GenesisModel;
use serde_json::Value;
use sp_consensus_babe::{AllowedSlots, AuthorityId as BabeId, BabeEpochConfiguration};
use sp_consensus_grandpa::AuthorityId as GrandpaId;
use sp_core::crypto::ByteArray;
use sp_genesis_builder::PresetId;
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};

use crate::*;

/// Name of the preset with one Host.
pub const DEVELOPMENT: &str = "development";
/// Name of the preset with four Hosts.
pub const LOCAL: &str = "local";

/// Primary slots only, for secondary ones would be uniform whatever the weights; on average every second slot has a
/// block.
pub const BABE_GENESIS_EPOCH_CONFIG: BabeEpochConfiguration =
	BabeEpochConfiguration { c: (1, 2), allowed_slots: AllowedSlots::PrimarySlots };

/// Weight of every Host before the first race. Small, so that no first race is below a third of it.
const FIRST_WEIGHT: u64 = 10;
/// What every development account owns.
const ENDOWMENT: Balance = 1_000_000 * PCR;
/// First port of the agents in the presets; `pacer-localnet` writes the real ones.
const FIRST_AGENT_PORT: u16 = 8_100;

/// A Host of a development network.
pub struct DevHost {
	/// Wallet.
	pub account: AccountId,
	/// Keys of its node.
	pub keys: SessionKeys,
	/// Key of its agent.
	pub duty_key: DutyKey,
	/// Base URL of its agent.
	pub endpoint: String,
	/// Models it serves.
	pub models: Vec<ModelId>,
}

/// What distinguishes one network from another at genesis.
pub struct Network {
	/// The Hosts.
	pub hosts: Vec<DevHost>,
	/// The clock.
	pub clock: ClockParams,
	/// Fewest Hosts for a race to count.
	pub min_hosts: u32,
	/// Races over which the mean is taken.
	pub mean_of: u32,
	/// Preset of the race's network.
	pub sprint: pacer_sprint::Preset,
	/// Squared cosine in Q32 above which a vector is appropriate.
	pub threshold: u64,
	/// The models served; their ids are their positions.
	pub models: Vec<GenesisModel>,
}

fn dev_host(index: usize, wallet: Sr25519Keyring, grandpa: Ed25519Keyring, duty_key: DutyKey) -> DevHost {
	let raw: [u8; 32] = wallet.public().0;
	DevHost {
		account: wallet.to_account_id(),
		keys: SessionKeys {
			babe: BabeId::from_slice(&raw).expect("a public key has 32 bytes"),
			grandpa: GrandpaId::from_slice(&grandpa.public().0).expect("a public key has 32 bytes"),
			node: node_key::Public::from_slice(&raw).expect("a public key has 32 bytes"),
		},
		duty_key,
		endpoint: format!("http://127.0.0.1:{}", FIRST_AGENT_PORT.saturating_add(index as u16)),
		models: vec![0],
	}
}

/// The Hosts of the presets: Alice, Bob, Charlie, Dave.
pub fn dev_hosts(count: usize) -> Vec<DevHost> {
	let all = [
		(Sr25519Keyring::Alice, Ed25519Keyring::Alice, DutyKey::from_raw(DUTY_KEYS[0])),
		(Sr25519Keyring::Bob, Ed25519Keyring::Bob, DutyKey::from_raw(DUTY_KEYS[1])),
		(Sr25519Keyring::Charlie, Ed25519Keyring::Charlie, DutyKey::from_raw(DUTY_KEYS[2])),
		(Sr25519Keyring::Dave, Ed25519Keyring::Dave, DutyKey::from_raw(DUTY_KEYS[3])),
	];
	all.into_iter().take(count).enumerate().map(|(i, (w, g, d))| dev_host(i, w, g, d)).collect()
}

/// Public keys of `//Alice//duty`, `//Bob//duty`, `//Charlie//duty` and `//Dave//duty`; a test derives them again.
pub const DUTY_KEYS: [[u8; 32]; 4] = [
	[
		0x92, 0x4d, 0x17, 0x15, 0x7b, 0xfd, 0xeb, 0xe0, 0xe0, 0xd5, 0x75, 0x9a, 0x26, 0xb3, 0x2a, 0x72,
		0x6d, 0x89, 0xe6, 0xf2, 0xef, 0x56, 0x8c, 0x93, 0xb6, 0x35, 0x16, 0xc4, 0x2c, 0xda, 0x4a, 0x43,
	],
	[
		0x7c, 0x6c, 0x1e, 0xfa, 0xc2, 0x13, 0x94, 0x12, 0xd5, 0x94, 0xa6, 0xb2, 0x8e, 0xdc, 0x27, 0x0a,
		0xdf, 0x5e, 0x49, 0x0b, 0x07, 0x32, 0x4f, 0x94, 0xe1, 0xc7, 0x3c, 0x78, 0xff, 0x63, 0xc0, 0x38,
	],
	[
		0xa6, 0x87, 0x5f, 0x69, 0xde, 0xc8, 0xf0, 0xa8, 0xaf, 0xbf, 0x0c, 0x91, 0x69, 0x8f, 0xb5, 0x46,
		0xc0, 0x2c, 0xf0, 0xc1, 0x9c, 0x2a, 0x3b, 0x88, 0x77, 0x30, 0xb5, 0xc2, 0x9d, 0x55, 0x79, 0x58,
	],
	[
		0xba, 0xc6, 0xad, 0x8a, 0x35, 0x42, 0x7d, 0xf7, 0x08, 0x0b, 0xac, 0x65, 0xe8, 0x54, 0x85, 0x92,
		0xef, 0x85, 0x9d, 0x16, 0x18, 0xd0, 0x95, 0x3c, 0xfd, 0x31, 0x75, 0x24, 0x1d, 0x81, 0x65, 0x29,
	],
];

/// The demo model. `pacer-localnet` writes the hash of the weights it trained.
fn demo_model() -> GenesisModel {
	GenesisModel {
		name: "pacer-demo".into(),
		weights_hash: Default::default(),
		prompt_price: 100 * MICRO_PCR,
		completion_price: 400 * MICRO_PCR,
		thresholds: Vec::new(),
	}
}

/// The patch that makes a network of the default genesis.
pub fn patch(network: Network) -> Value {
	let accounts = Sr25519Keyring::well_known().map(|k| k.to_account_id());
	let balances: Vec<_> = accounts.map(|account| (account, ENDOWMENT)).collect();
	let weights: Vec<_> = network.hosts.iter().map(|h| (h.account.clone(), FIRST_WEIGHT)).collect();
	let keys: Vec<_> = network.hosts.iter().map(|h| (h.account.clone(), h.account.clone(), h.keys.clone())).collect();
	let hosts: Vec<_> = network
		.hosts
		.into_iter()
		.map(|h| GenesisHost { account: h.account, duty_key: h.duty_key, endpoint: h.endpoint, models: h.models })
		.collect();
	build_struct_json_patch!(RuntimeGenesisConfig {
		balances: BalancesConfig { balances },
		babe: BabeConfig { epoch_config: BABE_GENESIS_EPOCH_CONFIG },
		hosts: HostsConfig { hosts },
		sprint: SprintConfig {
			clock: network.clock,
			preset: network.sprint.index(),
			threshold: network.threshold,
			min_hosts: network.min_hosts,
			mean_of: network.mean_of,
			weights,
		},
		session: SessionConfig { keys },
		inference_ledger: InferenceLedgerConfig { models: network.models },
		sudo: SudoConfig { key: Some(Sr25519Keyring::Alice.to_account_id()) },
	})
}

/// The preset of that name.
pub fn get_preset(id: &PresetId) -> Option<Vec<u8>> {
	let (hosts, min_hosts) = match id.as_ref() {
		DEVELOPMENT => (dev_hosts(1), 1),
		LOCAL => (dev_hosts(4), 3),
		_ => return None,
	};
	let network = Network {
		hosts,
		clock: ClockParams::LOCAL,
		min_hosts,
		mean_of: 1,
		sprint: pacer_sprint::Preset::Dev,
		// A small race has to tell Hosts apart in 16 s.
		threshold: pacer_sprint::threshold_for_one_in(64, 256)?,
		models: vec![demo_model()],
	};
	serde_json::to_string(&patch(network)).ok().map(String::into_bytes)
}

/// Names of all presets.
pub fn preset_names() -> Vec<PresetId> {
	vec![PresetId::from(DEVELOPMENT), PresetId::from(LOCAL)]
}
