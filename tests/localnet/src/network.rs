//! N Hosts, started together; more may join while they run.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use codec::{Decode, Encode};
use pacer_runtime::{AccountId, RuntimeCall, SessionKeys};
use pacer_types::{Balance, Hash, PCR};
use serde_json::json;
use sp_core::{ed25519, Pair};
use sp_crypto_hashing::blake2_256;

use crate::{
	chain::Chain,
	host::{dev_pair, Host, Identity, Ports, Shared},
	spec::{self, Genesis, RaceRules},
};

/// Names of the Hosts at genesis, in the order of the preset.
pub const GENESIS_HOSTS: [&str; 4] = ["Alice", "Bob", "Charlie", "Dave"];
/// The Developer who pays in local networks.
pub const DEVELOPER: &str = "Ferdie";
/// The API key that the agents of a local network accept for the Developer.
pub const API_KEY: &str = "sk-pacer-local-development";
/// Another Developer, for whoever wants an account of its own to look at.
pub const SECOND_DEVELOPER: &str = "Ferdie//stash";
/// Its API key.
pub const SECOND_API_KEY: &str = "sk-pacer-local-second";

/// How to start a network.
#[derive(Clone, Debug)]
pub struct Options {
	/// Number of Hosts at genesis: 4, or 1 for the development preset.
	pub hosts: usize,
	/// Folder of the model.
	pub model: PathBuf,
	/// Folder for data and logs.
	pub dir: PathBuf,
	/// Whether engines and agents are started too.
	pub workers: bool,
}

/// A running network.
pub struct Network {
	/// The Hosts.
	pub hosts: Vec<Host>,
	/// A connection to the first Host's node.
	pub chain: Chain,
	/// The genesis hash.
	pub genesis: Hash,
	shared: Shared,
	workers: bool,
}

impl Network {
	/// Starts nodes, engines and agents and waits until blocks are made.
	///
	/// # Errors
	/// If a process ends or does not answer.
	pub async fn start(options: &Options) -> anyhow::Result<Self> {
		Self::start_with(options, RaceRules::default()).await
	}

	/// The same, where races have other rules than the preset's.
	///
	/// # Errors
	/// If a process ends or does not answer.
	pub async fn start_with(options: &Options, race: RaceRules) -> anyhow::Result<Self> {
		std::fs::create_dir_all(&options.dir)?;
		let binaries = crate::binaries()?;
		let model_name = "pacer-demo".to_string();
		let names = &GENESIS_HOSTS[..options.hosts.min(GENESIS_HOSTS.len())];
		let ports = Ports::free(names.len())?;
		let genesis = Genesis {
			preset: if options.hosts == 1 { "development" } else { "local" }.into(),
			endpoints: ports.iter().map(|p| format!("http://127.0.0.1:{}", p.agent)).collect(),
			model: model_name.clone(),
			weights_hash: if options.workers { weights_hash(&binaries.join("pacer-engine"), &options.model)? } else { [0; 32] },
			race,
		};
		let spec = options.dir.join("spec.json");
		spec::write(&binaries.join("pacer-node"), &genesis, &spec)?;
		let node_keys: Vec<[u8; 32]> = names.iter().map(|name| blake2_256(format!("localnet/{name}").as_bytes())).collect();
		let bootnodes = match (ports.first(), node_keys.first()) {
			(Some(ports), Some(key)) => vec![address(ports.p2p, key)?],
			_ => vec![],
		};
		let shared = Shared {
			binaries,
			spec,
			model: options.model.clone(),
			model_name,
			bootnodes,
			api_keys: [(API_KEY, DEVELOPER), (SECOND_API_KEY, SECOND_DEVELOPER)]
				.map(|(key, name)| (key.into(), developer(name).to_string()))
				.into(),
			dir: options.dir.clone(),
		};
		let mut hosts = Vec::new();
		for ((name, ports), key) in names.iter().zip(ports).zip(&node_keys) {
			let mut host = Host::new(Identity { name: (*name).into() }, ports, &shared)?;
			host.start_node(key, true)?;
			if options.workers {
				host.start_engine()?;
			}
			hosts.push(host);
		}
		let first = hosts.first_mut().context("a network needs a Host")?;
		let chain = first.connect().await?;
		let genesis = chain.genesis();
		let mut network = Self { hosts, chain, genesis, shared, workers: options.workers };
		if options.workers {
			for host in &mut network.hosts {
				host.start_agent()?;
			}
			for host in &mut network.hosts {
				host.ready().await?;
			}
		}
		Ok(network)
	}

	/// Gives the Developer a deposit and every agent an allowance from it.
	///
	/// # Errors
	/// If an extrinsic fails.
	pub async fn fund_developer(&self, deposit: Balance, cap: Balance) -> anyhow::Result<()> {
		self.fund(DEVELOPER, deposit, cap).await
	}

	/// Gives the Developer of that name a deposit and every agent an allowance from it.
	///
	/// # Errors
	/// If an extrinsic fails.
	pub async fn fund(&self, name: &str, deposit: Balance, cap: Balance) -> anyhow::Result<()> {
		let wallet = dev_pair(&format!("//{name}"));
		let mut calls: Vec<RuntimeCall> = vec![pallet_inference_ledger::Call::fund { amount: deposit }.into()];
		for host in &self.hosts {
			calls.push(pallet_inference_ledger::Call::allow { ta: host.identity.account(), cap_per_epoch: cap }.into());
		}
		self.chain.submit(&wallet, pallet_utility::Call::batch_all { calls }.into()).await?;
		Ok(())
	}

	/// Starts another Host and registers it with one signature of its wallet.
	///
	/// # Errors
	/// If a process or the registration fails.
	pub async fn join(&mut self, name: &str) -> anyhow::Result<()> {
		let ports = Ports::free(1)?.pop().context("no ports")?;
		let mut host = Host::new(Identity { name: name.into() }, ports.clone(), &self.shared)?;
		host.start_node(&blake2_256(format!("localnet/{name}").as_bytes()), false)?;
		if self.workers {
			host.start_engine()?;
		}
		let node = host.connect().await?;
		let wallet = host.identity.wallet();
		let owner = format!("0x{}", hex::encode(host.identity.account().encode()));
		let generated: serde_json::Value = node.request("author_rotateKeysWithOwner", vec![json!(owner)]).await?;
		let field = |name: &str| -> anyhow::Result<Vec<u8>> {
			let text = generated[name].as_str().with_context(|| format!("no {name} in {generated}"))?;
			Ok(hex::decode(text.trim_start_matches("0x"))?)
		};
		let keys = SessionKeys::decode(&mut &field("keys")?[..])?;
		let duty = host.identity.duty();
		let proof = duty.sign(&pallet_hosts::possession_hash(&self.genesis, &host.identity.account()));
		let endpoint = format!("http://127.0.0.1:{}", ports.agent).into_bytes();
		let endpoint = endpoint.try_into().map_err(|_| anyhow::anyhow!("the endpoint is too long"))?;
		let models = vec![0].try_into().map_err(|_| anyhow::anyhow!("too many models"))?;
		let calls: Vec<RuntimeCall> = vec![
			pallet_session::Call::set_keys { keys, proof: field("proof")? }.into(),
			pallet_hosts::Call::register { duty_key: duty.public(), endpoint, models, proof }.into(),
		];
		self.chain.submit(&wallet, pallet_utility::Call::batch_all { calls }.into()).await?;
		if self.workers {
			host.start_agent()?;
			host.ready().await?;
		}
		self.hosts.push(host);
		Ok(())
	}

	/// The Host of that name.
	///
	/// # Errors
	/// If there is none.
	pub fn host(&mut self, name: &str) -> anyhow::Result<&mut Host> {
		self.hosts.iter_mut().find(|h| h.identity.name == name).with_context(|| format!("no Host {name}"))
	}

	/// Name of an account, if it is a Host's.
	pub fn name_of(&self, account: &AccountId) -> String {
		let known = self.hosts.iter().find(|h| h.identity.account() == *account);
		known.map_or_else(|| account.to_string()[..8].to_string(), |h| h.identity.name.clone())
	}

	/// Claims all rewards of a Host with its wallet; returns the epochs and what they held.
	///
	/// # Errors
	/// If the extrinsic fails.
	pub async fn claim(&self, host: &Host) -> anyhow::Result<Vec<(u32, Balance)>> {
		let open = self.chain.claimable(&host.identity.account()).await?;
		if open.is_empty() {
			return Ok(open);
		}
		let epochs: Vec<u32> = open.iter().map(|(epoch, _)| *epoch).collect();
		let epochs = epochs.try_into().map_err(|_| anyhow::anyhow!("too many epochs for one claim"))?;
		self.chain.submit(&host.identity.wallet(), pallet_rewards::Call::claim { epochs }.into()).await?;
		Ok(open)
	}

	/// Whether every process still runs.
	///
	/// # Errors
	/// Names the one that does not, with the end of its log.
	pub fn check_alive(&mut self) -> anyhow::Result<()> {
		for host in &mut self.hosts {
			for process in [&mut host.node, &mut host.engine, &mut host.agent].into_iter().flatten() {
				ensure!(process.is_alive(), "a process of {} ended; {}", host.identity.name, process.tail());
			}
		}
		Ok(())
	}
}

/// The account of a Developer, of whose name its key is derived.
pub fn developer(name: &str) -> AccountId {
	dev_pair(&format!("//{name}")).public().into()
}

/// An amount in whole tokens, for people.
pub fn tokens(amount: Balance) -> String {
	let whole = amount / PCR;
	let milli = amount % PCR / (PCR / 1_000);
	format!("{whole}.{milli:03}")
}

/// Where a node with this key listens.
///
/// # Errors
/// Never: the key is always one.
pub fn address(port: u16, node_key: &[u8; 32]) -> anyhow::Result<String> {
	// A peer id is the multihash (identity) of the protobuf of an ed25519 public key.
	let public = ed25519::Pair::from_seed(node_key).public();
	let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
	bytes.extend_from_slice(&public.0);
	Ok(format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", bs58::encode(bytes).into_string()))
}

/// Hash of the model's weights, as its engine computes it.
///
/// # Errors
/// If the engine cannot read the model.
pub fn weights_hash(engine: &Path, model: &Path) -> anyhow::Result<[u8; 32]> {
	let out = std::process::Command::new(engine).arg("inspect").arg(model).output().context("cannot run pacer-engine")?;
	ensure!(out.status.success(), "the engine cannot read {}: {}", model.display(), String::from_utf8_lossy(&out.stderr));
	let text = String::from_utf8_lossy(&out.stdout);
	let line = text.lines().find_map(|line| line.strip_prefix("weights hash")).context("the engine names no weights hash")?;
	let mut hash = [0; 32];
	hex::decode_to_slice(line.trim().trim_start_matches("0x"), &mut hash)?;
	Ok(hash)
}
