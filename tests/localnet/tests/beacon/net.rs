//! Four nodes with off-chain workers, and 49 Hosts of weight 1 without: the least that makes every attack possible, and
//! small and fast enough for three epochs in four minutes.
//!
//! The crowd has a third of the weight, as much as it may. GRANDPA needs Alice, Bob and Dave: whoever of them is stopped
//! stops finality. Charlie is so light that it can be killed without that. Dave and the crowd's seats are more than half of
//! the committee's weight. The nodes have no peers but each other, so that cutting them in two cuts everything.

use std::{
	path::{Path, PathBuf},
	process::Command,
	time::Duration,
};

use anyhow::{bail, ensure, Context};
use pacer_localnet::{
	chain::Chain,
	host::{Host, Identity, Ports, Shared},
	network::{address, GENESIS_HOSTS},
	rogue::Rogue,
	spec::{self, Genesis},
};
use pacer_runtime::genesis::{dev_hosts, patch, Network};
use pacer_types::{ClockParams, PCR};
use serde_json::{json, Value};
use sp_crypto_hashing::blake2_256;

/// Weights of the nodes.
const NODE_WEIGHTS: [u64; 4] = [30, 29, 2, 46];
/// Hosts without a node, each of weight 1.
pub const CROWD: usize = 49;
/// An epoch of 84 s. There is no race, so the phases around it are as short as the others.
const CLOCK: ClockParams =
	ClockParams { slot_ms: 500, session_slots: 24, inference_sessions: 1, step_sessions: 1, audit_sessions: 1 };
/// Who makes blocks in which share of the slots. More than usual, for a third of the weight never makes any, and an opening
/// window has 12 slots.
const AUTHORS: [u64; 2] = [4, 5];
/// What a Host needs: its bond and a little more.
const PURSE: u128 = 1_010 * PCR;
/// Says when a worker waits for finality.
const LOG_LEVEL: &str = "pacer::randomness=debug";

/// A network.
pub struct Net {
	/// Alice, Bob, Charlie and Dave.
	pub hosts: Vec<Host>,
	/// A connection to each one's node.
	pub chains: Vec<Chain>,
	/// The others.
	pub crowd: Vec<Rogue>,
	skew: PathBuf,
}

fn key(name: &str) -> [u8; 32] {
	blake2_256(format!("localnet/{name}").as_bytes())
}

/// The specification of the preset, with this network's genesis.
fn write_spec(node: &Path, crowd: &[Rogue], path: &Path) -> anyhow::Result<()> {
	let (model, race) = ("none".into(), Default::default());
	let genesis = Genesis { preset: "local".into(), endpoints: vec![], model, weights_hash: [0; 32], race };
	spec::write(node, &genesis, path)?;
	let mut hosts = dev_hosts(GENESIS_HOSTS.len());
	let mut weights: Vec<_> = hosts.iter().map(|host| host.account.clone()).zip(NODE_WEIGHTS).collect();
	weights.extend(crowd.iter().map(|rogue| (rogue.account(), 1)));
	hosts.extend(crowd.iter().map(Rogue::at_genesis).collect::<anyhow::Result<Vec<_>>>()?);
	let mut own = patch(Network {
		hosts,
		clock: CLOCK,
		min_hosts: 3,
		mean_of: 1,
		sprint: pacer_sprint::Preset::Dev,
		threshold: 1,
		models: vec![],
	});
	own["sprint"]["weights"] = json!(weights);
	let purses = own["balances"]["balances"].as_array_mut().context("a genesis without balances")?;
	purses.extend(crowd.iter().map(|rogue| json!((rogue.account(), PURSE))));
	let config = own["babe"]["epochConfig"].as_object_mut().context("a genesis without BABE's configuration")?;
	config.insert("c".into(), json!(AUTHORS));
	let mut whole: Value = serde_json::from_slice(&std::fs::read(path)?)?;
	*whole.pointer_mut("/genesis/runtimeGenesis/patch").context("the specification holds no patch")? = own;
	std::fs::write(path, serde_json::to_vec(&whole)?)?;
	Ok(())
}

/// Builds the library that moves a clock.
fn build_skew(dir: &Path) -> anyhow::Result<PathBuf> {
	let library = dir.join("skew.so");
	let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/beacon/skew.c");
	let built =
		Command::new("cc").args(["-O2", "-shared", "-fPIC", source, "-o"]).arg(&library).output().context("running cc")?;
	ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
	Ok(library)
}

impl Net {
	/// Starts all nodes, those named in `idle` without off-chain workers.
	pub async fn start(dir: &Path, idle: &[&str]) -> anyhow::Result<Self> {
		let binaries = pacer_localnet::binaries()?;
		let crowd: Vec<Rogue> = (1..=CROWD).map(|i| Rogue::new(&format!("Crowd{i:02}"))).collect();
		let (spec, skew) = (dir.join("spec.json"), build_skew(dir)?);
		write_spec(&binaries.join("pacer-node"), &crowd, &spec)?;
		let shared = Shared {
			binaries,
			spec,
			model: PathBuf::new(),
			model_name: String::new(),
			bootnodes: vec![],
			api_keys: vec![],
			dir: dir.into(),
		};
		let ports = Ports::free(GENESIS_HOSTS.len())?;
		let mut hosts = Vec::new();
		for (name, ports) in GENESIS_HOSTS.into_iter().zip(ports) {
			hosts.push(Host::new(Identity { name: name.into() }, ports, &shared)?);
		}
		let mut net = Self { hosts, chains: vec![], crowd, skew };
		for at in 0..net.hosts.len() {
			let name = GENESIS_HOSTS[at];
			net.launch(at, !idle.contains(&name), 0)?;
		}
		for host in &mut net.hosts {
			net.chains.push(host.connect().await?);
		}
		Ok(net)
	}

	/// Starts a node.
	fn launch(&mut self, at: usize, works: bool, skew_ms: i64) -> anyhow::Result<()> {
		// With no room for others, a node that is no longer reserved is disconnected.
		let alone = ["--reserved-only", "--in-peers", "0", "--out-peers", "0", "-l", LOG_LEVEL, "--reserved-nodes"];
		let mut args: Vec<String> = alone.map(Into::into).into();
		args.extend(self.others(at).map(|other| self.address(other)).collect::<anyhow::Result<Vec<_>>>()?);
		if !works {
			args.extend(["--offchain-worker".into(), "never".into()]);
		}
		let preload = self.skew.display().to_string();
		let host = &mut self.hosts[at];
		host.node_args = args;
		host.node_env = match skew_ms {
			0 => vec![],
			ms => vec![("LD_PRELOAD".into(), preload), ("PACER_SKEW_MS".into(), ms.to_string())],
		};
		host.start_node(&key(GENESIS_HOSTS[at]), true)
	}

	fn others(&self, at: usize) -> impl Iterator<Item = usize> {
		(0..self.hosts.len()).filter(move |other| *other != at)
	}

	fn address(&self, at: usize) -> anyhow::Result<String> {
		address(self.hosts[at].ports.p2p, &key(GENESIS_HOSTS[at]))
	}

	/// The first node.
	pub fn chain(&self) -> &Chain {
		&self.chains[0]
	}

	/// Kills a node as a power cut would, and starts it again at once, with its worker and with a clock that is off by
	/// `skew_ms`. It is back after [`Net::reconnect`].
	pub fn restart(&mut self, at: usize, skew_ms: i64) -> anyhow::Result<()> {
		self.hosts[at].node.as_mut().context("no node")?.kill();
		self.launch(at, true, skew_ms)
	}

	/// Waits until a node that was restarted answers.
	pub async fn reconnect(&mut self, at: usize) -> anyhow::Result<()> {
		self.chains[at] = self.hosts[at].connect().await.with_context(|| format!("{} restarts", GENESIS_HOSTS[at]))?;
		Ok(())
	}

	/// Stops a node where it is, or lets it go on.
	pub fn freeze(&self, at: usize, frozen: bool) -> anyhow::Result<()> {
		let process = self.hosts[at].node.as_ref().context("no node")?;
		let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
		// SAFETY: a signal to a child that lives as long as its handle.
		ensure!(unsafe { libc::kill(i32::try_from(process.id())?, signal) } == 0, "the node took no signal");
		Ok(())
	}

	/// Cuts Alice and Bob off from Charlie and Dave.
	pub async fn cut(&self) -> anyhow::Result<()> {
		self.each_across(async |chain, address| {
			let id = address.rsplit('/').next().unwrap_or_default();
			let _: Value = chain.request("system_removeReservedPeer", vec![json!(id)]).await?;
			Ok(())
		})
		.await?;
		for chain in &self.chains {
			chain.wait(false, Duration::from_secs(30), "the cut", async |_| Ok(peers(chain).await? == 1)).await?;
		}
		Ok(())
	}

	/// Joins them again.
	pub async fn heal(&self) -> anyhow::Result<()> {
		self.each_across(async |chain, address| {
			let _: Value = chain.request("system_addReservedPeer", vec![json!(address)]).await?;
			Ok(())
		})
		.await
	}

	/// Does something at every node for every node of the other side.
	async fn each_across(&self, what: impl AsyncFn(&Chain, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
		for (at, chain) in self.chains.iter().enumerate() {
			for other in self.others(at).filter(|other| (other / 2) != (at / 2)) {
				what(chain, &self.address(other)?).await?;
			}
		}
		Ok(())
	}

	/// Waits until a node has said this in its log since it started.
	pub async fn heard(&mut self, at: usize, words: &str, limit: Duration) -> anyhow::Result<()> {
		let node = self.hosts[at].node.as_mut().context("no node")?;
		let found = node.wait_for_line(limit, |line| line.contains(words).then_some(())).await;
		found.with_context(|| format!("waiting for {:?} to say {words:?}", GENESIS_HOSTS[at]))
	}

	/// Whether every node still runs.
	pub fn check_alive(&mut self) -> anyhow::Result<()> {
		for host in &mut self.hosts {
			let node = host.node.as_mut().context("no node")?;
			if !node.is_alive() {
				bail!("a node ended; {}", node.tail());
			}
		}
		Ok(())
	}
}

/// Nodes that a node is connected to.
pub async fn peers(chain: &Chain) -> anyhow::Result<u64> {
	let health: Value = chain.request("system_health", vec![]).await?;
	health["peers"].as_u64().context("a node does not say how many peers it has")
}
