//! The chain specification of a network.

use std::{path::Path, process::Command};

use anyhow::{ensure, Context};
use serde_json::{json, Value};

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
	std::fs::write(path, serde_json::to_vec(&spec)?)?;
	Ok(())
}
