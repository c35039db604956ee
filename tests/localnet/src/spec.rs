//! The chain specification of a network.

use std::{path::Path, process::Command};

use anyhow::{ensure, Context};
use codec::Encode;
use pacer_runtime::AccountId;
use serde_json::{json, Value};
use sp_crypto_hashing::{blake2_128, twox_128};

/// Where a network races by other rules than its preset says.
#[derive(Clone, Debug, Default)]
pub struct RaceRules {
	/// Squared cosine in Q32 that makes a vector appropriate.
	pub threshold: Option<u64>,
	/// Races over which consensus weight takes the mean.
	pub mean_of: Option<u32>,
	/// Counts of Hosts in the races before the first one, newest first: as in a network that has raced for a while.
	pub history: Vec<(AccountId, Vec<u32>)>,
}

/// What a network needs to be told at genesis.
pub struct Genesis {
	/// Preset of the runtime: `local` or `development`.
	pub preset: String,
	/// Base URLs of the agents, in the order of the preset's Hosts.
	pub endpoints: Vec<String>,
	/// Name of the model that is served.
	pub model: String,
	/// Hash of its weights.
	pub weights_hash: [u8; 32],
	/// How it races.
	pub race: RaceRules,
}

/// Writes the specification to `path`, starting from the node's preset.
///
/// # Errors
/// If the node cannot print its preset or the file not be written.
pub fn write(node: &Path, genesis: &Genesis, path: &Path) -> anyhow::Result<()> {
	let out = Command::new(node).args(["export-chain-spec", "--chain", &genesis.preset]).output()?;
	ensure!(out.status.success(), "the node printed no chain specification: {}", String::from_utf8_lossy(&out.stderr));
	let mut spec: Value = serde_json::from_slice(&out.stdout)?;
	let patch = spec.pointer_mut("/genesis/runtimeGenesis/patch").context("the specification holds no patch")?;
	let hosts = patch.pointer_mut("/hosts/hosts").and_then(Value::as_array_mut).context("the preset has no Hosts")?;
	for (host, endpoint) in hosts.iter_mut().zip(&genesis.endpoints) {
		host["endpoint"] = json!(endpoint);
	}
	if let Some(model) = patch.pointer_mut("/inferenceLedger/models/0") {
		model["name"] = json!(genesis.model);
		model["weightsHash"] = json!(format!("0x{}", hex::encode(genesis.weights_hash)));
	}
	if let Some(threshold) = genesis.race.threshold {
		patch["sprint"]["threshold"] = json!(threshold);
	}
	if let Some(mean_of) = genesis.race.mean_of {
		patch["sprint"]["meanOf"] = json!(mean_of);
	}
	std::fs::write(path, serde_json::to_vec(&spec)?)?;
	if genesis.race.history.is_empty() {
		return Ok(());
	}
	write_history(node, &genesis.race.history, path)
}

/// Adds counts of earlier races to the specification at `path`. No preset knows them, so they go into the raw state.
fn write_history(node: &Path, history: &[(AccountId, Vec<u32>)], path: &Path) -> anyhow::Result<()> {
	let out = Command::new(node).args(["export-chain-spec", "--raw", "--chain"]).arg(path).output()?;
	ensure!(out.status.success(), "the node made no raw specification: {}", String::from_utf8_lossy(&out.stderr));
	let mut spec: Value = serde_json::from_slice(&out.stdout)?;
	let top = spec.pointer_mut("/genesis/raw/top").and_then(Value::as_object_mut).context("the specification is not raw")?;
	for (host, counts) in history {
		let account = host.encode();
		let key = [&twox_128(b"Sprint")[..], &twox_128(b"Recents"), &blake2_128(&account), &account].concat();
		top.insert(format!("0x{}", hex::encode(key)), json!(format!("0x{}", hex::encode(counts.encode()))));
	}
	std::fs::write(path, serde_json::to_vec(&spec)?)?;
	Ok(())
}
