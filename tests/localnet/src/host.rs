//! The three processes of a Host: node, engine, agent.

use std::{
	path::{Path, PathBuf},
	process::Command,
	time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use sp_core::{sr25519, Pair};

use crate::{
	chain::Chain,
	process::{free_ports, Process},
};

/// Ports of a Host, chosen free before the genesis is written.
#[derive(Clone, Debug)]
pub struct Ports {
	/// JSON-RPC of the node.
	pub rpc: u16,
	/// Peer-to-peer of the node.
	pub p2p: u16,
	/// Prometheus of the node.
	pub prometheus: u16,
	/// The engine.
	pub engine: u16,
	/// The agent: OpenAI API and what other Hosts ask.
	pub agent: u16,
}

impl Ports {
	/// Free ports for `hosts` Hosts, chosen together so that none gets another's.
	///
	/// # Errors
	/// If there are none.
	pub fn free(hosts: usize) -> anyhow::Result<Vec<Self>> {
		let ports = free_ports(5 * hosts)?;
		let of = |p: &[u16]| Self { rpc: p[0], p2p: p[1], prometheus: p[2], engine: p[3], agent: p[4] };
		Ok(ports.chunks_exact(5).map(of).collect())
	}
}

/// Who a Host is, in a network of development keys.
#[derive(Clone, Debug)]
pub struct Identity {
	/// Name, of which all keys are derived: `//Name`, `//Name//duty`.
	pub name: String,
}

impl Identity {
	/// The wallet.
	pub fn wallet(&self) -> sr25519::Pair {
		dev_pair(&format!("//{}", self.name))
	}

	/// The duty key.
	pub fn duty(&self) -> sr25519::Pair {
		dev_pair(&format!("//{}//duty", self.name))
	}

	/// Its account.
	pub fn account(&self) -> pacer_types::AccountId {
		self.wallet().public().into()
	}
}

/// A well-known development key. Never of value.
pub fn dev_pair(uri: &str) -> sr25519::Pair {
	sr25519::Pair::from_string(uri, None).unwrap_or_else(|_| unreachable!("a development URI is valid"))
}

/// What all Hosts of a network share.
#[derive(Clone, Debug)]
pub struct Shared {
	/// Folder of the binaries.
	pub binaries: PathBuf,
	/// The chain specification.
	pub spec: PathBuf,
	/// Folder of the model.
	pub model: PathBuf,
	/// Its name in the API.
	pub model_name: String,
	/// Addresses of nodes to connect to first.
	pub bootnodes: Vec<String>,
	/// API keys that every agent accepts: key and Developer account.
	pub api_keys: Vec<(String, String)>,
	/// Folder for data and logs.
	pub dir: PathBuf,
}

/// A Host.
pub struct Host {
	/// Who it is.
	pub identity: Identity,
	/// Its ports.
	pub ports: Ports,
	/// Its folder.
	pub dir: PathBuf,
	/// More options of the node, for its next start.
	pub node_args: Vec<String>,
	/// Variables of its environment.
	pub node_env: Vec<(String, String)>,
	shared: Shared,
	/// The node.
	pub node: Option<Process>,
	/// The engine.
	pub engine: Option<Process>,
	/// The agent.
	pub agent: Option<Process>,
}

impl Host {
	/// Prepares a Host; starts nothing.
	///
	/// # Errors
	/// If its folder cannot be written.
	pub fn new(identity: Identity, ports: Ports, shared: &Shared) -> anyhow::Result<Self> {
		let dir = shared.dir.join(identity.name.to_lowercase());
		std::fs::create_dir_all(&dir)?;
		write_secret(&dir.join("duty.key"), &hex::encode(duty_seed(&identity)))?;
		let keys: String = shared.api_keys.iter().map(|(key, developer)| format!("{key} {developer}\n")).collect();
		write_secret(&dir.join("api-keys"), &keys)?;
		let (node_args, node_env, shared) = (vec![], vec![], shared.clone());
		Ok(Self { identity, ports, dir, node_args, node_env, shared, node: None, engine: None, agent: None })
	}

	/// Starts the node; its keys are made of the Host's name if it is one of the genesis Hosts.
	///
	/// # Errors
	/// If it cannot be started.
	pub fn start_node(&mut self, node_key: &[u8; 32], dev_keys: bool) -> anyhow::Result<()> {
		let mut command = Command::new(self.shared.binaries.join("pacer-node"));
		command
			.args(["--validator", "--no-mdns", "--no-telemetry", "--allow-private-ip"])
			.args(["--rpc-methods", "unsafe", "--rpc-cors", "all", "--unsafe-force-node-key-generation"])
			.args(["--name", &self.identity.name])
			.arg("--chain")
			.arg(&self.shared.spec)
			.arg("--base-path")
			.arg(self.dir.join("node"))
			.args(["--rpc-port", &self.ports.rpc.to_string()])
			.args(["--listen-addr", &format!("/ip4/127.0.0.1/tcp/{}", self.ports.p2p)])
			.args(["--prometheus-port", &self.ports.prometheus.to_string()])
			.args(["--state-pruning", "2000", "--db", "paritydb"])
			.args(["--node-key", &hex::encode(node_key)])
			.args(["-l", "info,pacer=info"]);
		if dev_keys {
			command.arg(format!("--{}", self.identity.name.to_lowercase()));
		}
		for address in &self.shared.bootnodes {
			command.args(["--bootnodes", address]);
		}
		if !self.node_args.iter().any(|arg| arg == "--in-peers") {
			command.args(["--in-peers", "16", "--out-peers", "16"]);
		}
		command.args(&self.node_args).envs(self.node_env.iter().map(|(name, value)| (name, value)));
		self.node = Some(Process::spawn(&format!("{}'s node", self.identity.name), command, &self.dir.join("node.log"), 0)?);
		Ok(())
	}

	/// Starts the engine: one thread, at low priority, so that four fit on a small machine beside their nodes.
	///
	/// # Errors
	/// If it cannot be started.
	pub fn start_engine(&mut self) -> anyhow::Result<()> {
		self.start_engine_with(&self.shared.model.clone())
	}

	/// Starts the engine with another model than the network's, under its name.
	///
	/// # Errors
	/// If it cannot be started.
	pub fn start_engine_with(&mut self, model: &Path) -> anyhow::Result<()> {
		let mut command = Command::new(self.shared.binaries.join("pacer-engine"));
		command
			.arg("serve")
			.arg("--model")
			.arg(model)
			.args(["--served-model-name", &self.shared.model_name])
			.args(["--host", "127.0.0.1", "--port", &self.ports.engine.to_string()])
			.args(["--device", "cpu", "--threads", "1"]);
		self.engine =
			Some(Process::spawn(&format!("{}'s engine", self.identity.name), command, &self.dir.join("engine.log"), 15)?);
		Ok(())
	}

	/// Starts the agent.
	///
	/// # Errors
	/// If it cannot be started.
	pub fn start_agent(&mut self) -> anyhow::Result<()> {
		let mut command = Command::new(self.shared.binaries.join("pacer-agent"));
		command
			.arg("run")
			.args(["--node", &format!("ws://127.0.0.1:{}", self.ports.rpc)])
			.args(["--engine", &format!("http://127.0.0.1:{}", self.ports.engine)])
			.arg("--duty-key-file")
			.arg(self.dir.join("duty.key"))
			.args(["--listen", &format!("127.0.0.1:{}", self.ports.agent)])
			.arg("--data-dir")
			.arg(self.dir.join("agent"))
			.arg("--api-keys-file")
			.arg(self.dir.join("api-keys"))
			.arg("--allow-private-endpoints");
		self.agent = Some(Process::spawn(&format!("{}'s agent", self.identity.name), command, &self.dir.join("agent.log"), 5)?);
		Ok(())
	}

	/// Connects to the node as soon as it answers.
	///
	/// # Errors
	/// If it ends or does not answer in time; the message holds the end of its log.
	pub async fn connect(&mut self) -> anyhow::Result<Chain> {
		let node = self.node.as_mut().context("the node was not started")?;
		node.wait_for_line(Duration::from_secs(180), |line| line.contains("Running JSON-RPC server").then_some(())).await?;
		Chain::connect(self.ports.rpc).await
	}

	/// Waits until all processes that were started answer.
	///
	/// # Errors
	/// If one ends or does not answer in time; the message holds the end of its log.
	pub async fn ready(&mut self) -> anyhow::Result<()> {
		let limit = Duration::from_secs(120);
		for process in [&mut self.engine, &mut self.agent].into_iter().flatten() {
			process.wait_for_line(limit, listening).await.context("waiting for the line that says the address")?;
		}
		Ok(())
	}

	/// Base URL of the OpenAI API.
	pub fn api(&self) -> String {
		format!("http://127.0.0.1:{}/v1", self.ports.agent)
	}
}

/// The address in the line `{"listening": ".."}`.
fn listening(line: &str) -> Option<String> {
	let value: Value = serde_json::from_str(line).ok()?;
	value["listening"].as_str().map(Into::into)
}

fn duty_seed(identity: &Identity) -> [u8; 32] {
	let (_, seed) = sr25519::Pair::from_string_with_seed(&format!("//{}//duty", identity.name), None)
		.unwrap_or_else(|_| unreachable!("a development URI is valid"));
	seed.unwrap_or_default()
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// If it cannot be written.
pub fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
	use std::{io::Write, os::unix::fs::OpenOptionsExt};
	let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
	file.write_all(text.as_bytes())?;
	Ok(())
}
