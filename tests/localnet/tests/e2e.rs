//! One local network, from genesis through two epochs, with clients that no one here wrote and with faults.
//!
//! Everything shares one network, because starting one costs half a minute and an epoch three.

use std::{
	path::PathBuf,
	process::{Command, Stdio},
	time::Duration,
};

use anyhow::{ensure, Context};
use futures::StreamExt;
use pacer_localnet::{
	account::{Report, Scanner, Ttft},
	chain::number_of,
	host::Identity,
	load::{Client, QUESTIONS},
	network::{Network, Options, API_KEY},
};
use pacer_types::{views::ClockView, Phase, PCR};

/// Longest wait for anything on the chain: more than an epoch.
const PATIENCE: Duration = Duration::from_secs(260);

fn model() -> PathBuf {
	let cache = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/pacer/demo-model");
	std::env::var("PACER_DEMO_MODEL").map_or_else(|_| cache(), PathBuf::from)
}

/// Follows best blocks until `done` says so.
async fn until(network: &Network, what: &str, done: impl Fn(&ClockView) -> bool) -> anyhow::Result<u32> {
	let wait = async {
		let mut heads = network.chain.follow(false).await?;
		while let Some(head) = heads.next().await {
			let number = number_of(&head?)?;
			if done(&network.chain.clock().await?) {
				return Ok(number);
			}
		}
		anyhow::bail!("the node ended its reports")
	};
	tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("waiting for {what}"))?
}

/// Waits until the block is final; returns the height of the last final one.
async fn until_final(network: &Network, block: u32) -> anyhow::Result<u32> {
	let wait = async {
		let mut heads = network.chain.follow(true).await?;
		while let Some(head) = heads.next().await {
			let number = number_of(&head?)?;
			if number >= block {
				return Ok(number);
			}
		}
		anyhow::bail!("the node ended its reports")
	};
	tokio::time::timeout(Duration::from_secs(60), wait).await.with_context(|| format!("block {block} to become final"))?
}

fn reached(epoch: u32, phase: Phase) -> impl Fn(&ClockView) -> bool {
	move |clock| (clock.now.epoch, clock.now.phase) >= (epoch, phase)
}

/// Runs a client that no one here wrote; its output is one JSON line a check.
async fn client(name: &str, env: &[(&str, String)]) -> anyhow::Result<()> {
	let run = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/run");
	let mut command = Command::new(run);
	command.arg(name).stdin(Stdio::null()).envs(env.iter().map(|(k, v)| (k, v)));
	let out = tokio::task::spawn_blocking(move || command.output()).await??;
	let text = String::from_utf8_lossy(&out.stdout);
	println!("--- {name}\n{text}");
	ensure!(out.status.success(), "{name} failed:\n{text}\n{}", String::from_utf8_lossy(&out.stderr));
	Ok(())
}

/// Asks `n` questions through the transfer agents of these Hosts in turn; returns how many were answered.
async fn ask(network: &Network, names: &[&str], n: usize) -> anyhow::Result<usize> {
	let mut asked = futures::stream::iter((0..n).map(|i| {
		let name = names[i % names.len()];
		let host = network.hosts.iter().find(|h| h.identity.name == name);
		let client = host.map(|h| Client::new(&h.api(), Some(API_KEY), "pacer-demo"));
		async move {
			let client = client.context("no such Host")??;
			client.chat(QUESTIONS[i % QUESTIONS.len()], |_| ()).await
		}
	}))
	.buffer_unordered(2);
	let mut answered = 0;
	while let Some(result) = asked.next().await {
		match result {
			Ok(answer) => answered += usize::from(!answer.text.is_empty()),
			Err(error) => println!("no answer: {error:#}"),
		}
	}
	Ok(answered)
}

/// Clients and wallets in the first epoch.
async fn clients(network: &mut Network) -> anyhow::Result<()> {
	let (api, engine, ws, dave) = {
		let alice = network.host("Alice")?;
		let (api, ws) = (alice.api(), format!("ws://127.0.0.1:{}", alice.ports.rpc));
		let engine = format!("http://127.0.0.1:{}/v1", alice.ports.engine);
		(api, engine, ws, format!("ws://127.0.0.1:{}", network.host("Eve")?.ports.rpc))
	};
	let openai = [("PACER_API", api), ("PACER_API_KEY", API_KEY.into()), ("PACER_ENGINE_API", engine)];
	client("python/openai_client.py", &openai).await?;
	client("js/openai.mjs", &openai).await?;
	client("js/polkadot.mjs", &[("PACER_WS", ws.clone()), ("PACER_JOIN_WS", dave), ("PACER_NEW_HOST_NAME", "Polka".into())]).await?;
	client("js/unsigned.mjs", &[("PACER_WS", ws), ("PACER_IDLE_HOST_URI", "//Eve".into())]).await
}

/// A second agent with the same key and folder must not start.
fn second_agent_is_refused(network: &mut Network) -> anyhow::Result<()> {
	let host = network.host("Bob")?;
	let out = Command::new(pacer_localnet::binaries()?.join("pacer-agent"))
		.args(["run", "--node", &format!("ws://127.0.0.1:{}", host.ports.rpc), "--listen", "127.0.0.1:0"])
		.arg("--duty-key-file")
		.arg(host.dir.join("duty.key"))
		.arg("--data-dir")
		.arg(host.dir.join("agent"))
		.output()?;
	let said = String::from_utf8_lossy(&out.stderr);
	ensure!(!out.status.success() && said.contains("another agent"), "the second agent did not refuse to start: {said}");
	Ok(())
}

/// An executor dies while requests run; nobody waits for it, and what it left is refunded.
async fn executor_dies(network: &mut Network) -> anyhow::Result<()> {
	let bob = network.host("Bob")?;
	bob.agent.as_mut().context("no agent")?.kill();
	bob.engine.as_mut().context("no engine")?.kill();
	let answered = ask(network, &["Alice", "Charlie"], 10).await?;
	ensure!(answered >= 8, "only {answered} of 10 requests were answered while one Host of four was dead");
	let bob = network.host("Bob")?;
	bob.start_engine()?;
	bob.start_agent()?;
	bob.ready().await
}

/// Weight of a Host in an epoch.
async fn work_of(network: &Network, name: &str, epoch: u32) -> anyhow::Result<u64> {
	let account = Identity { name: name.into() }.account();
	let view = network.chain.epoch(epoch).await?;
	Ok(view.weights.iter().find(|(who, ..)| *who == account).map_or(0, |(_, work, _)| *work))
}

async fn first_epoch(network: &mut Network) -> anyhow::Result<()> {
	network.join("Eve").await.context("Eve joins")?;
	clients(network).await?;
	second_agent_is_refused(network)?;
	executor_dies(network).await?;

	// A node that restarts finds its chain again.
	let dave = network.host("Dave")?;
	dave.node.as_mut().context("no node")?.kill();
	dave.start_node(&sp_crypto_hashing::blake2_256(b"localnet/Dave"), true)?;
	dave.connect().await.context("Dave's node restarts")?;

	// An agent that restarts in the middle of a race goes on with what its engine found.
	until(network, "the race", reached(0, Phase::Race)).await?;
	let charlie = network.host("Charlie")?;
	charlie.agent.as_mut().context("no agent")?.kill();
	charlie.start_agent()?;
	charlie.ready().await?;

	until(network, "the second epoch", reached(1, Phase::Inference)).await?;
	for name in ["Alice", "Bob", "Charlie", "Dave", "Eve"] {
		let work = work_of(network, name, 1).await?;
		println!("{name} has weight {work} in epoch 1");
		ensure!(work > 0, "{name} has no weight after the race");
	}
	Ok(())
}

async fn second_epoch(network: &mut Network) -> anyhow::Result<()> {
	// Without an engine the agent keeps its other duties and says so.
	network.host("Dave")?.engine.as_mut().context("no engine")?.kill();
	// A Host that does not race loses its weight.
	network.host("Eve")?.agent.as_mut().context("no agent")?.kill();
	let answered = ask(network, &["Alice", "Bob", "Charlie"], 24).await?;
	ensure!(answered >= 20, "only {answered} of 24 requests were answered without Dave's engine and Eve");
	let dave = network.host("Dave")?;
	ensure!(dave.agent.as_mut().is_some_and(|agent| agent.is_alive()), "Dave's agent ended with its engine");
	let health: serde_json::Value =
		reqwest::get(format!("http://127.0.0.1:{}/pacer/status", dave.ports.agent)).await?.json().await?;
	ensure!(health["engines_healthy"] == 0, "the agent does not say that its engine is gone: {health}");
	dave.start_engine()?;

	until(network, "Switch", reached(1, Phase::Switch)).await?;
	let ws = format!("ws://127.0.0.1:{}", network.host("Alice")?.ports.rpc);
	client("js/claim.mjs", &[("PACER_WS", ws), ("PACER_CLAIM_WAIT_S", "30".into())]).await?;
	until(network, "the third epoch", reached(2, Phase::Inference)).await?;
	ensure!(work_of(network, "Eve", 2).await? == 0, "Eve has weight without having raced");
	for name in ["Alice", "Bob", "Charlie", "Dave"] {
		ensure!(work_of(network, name, 2).await? > 0, "{name} lost its weight");
	}
	Ok(())
}

/// Checks the whole against what a network must have done.
fn check(report: &Report) -> anyhow::Result<()> {
	println!("{}", serde_json::to_string_pretty(report)?);
	let i = &report.inferences;
	ensure!(report.conservation_ok, "money was made or lost");
	ensure!(i.finished >= 20, "only {} inferences finished", i.finished);
	ensure!(i.verified >= 5, "only {} inferences were verified", i.verified);
	ensure!(i.failed == 0, "{} honest answers failed", i.failed);
	ensure!(i.refunded >= i.expired + i.failed, "an expired inference was not refunded");
	ensure!(report.hosts.iter().any(|h| h.claimed > 0), "nothing was claimed");
	for epoch in report.epochs.iter().filter(|e| e.epoch < 2) {
		ensure!(epoch.seed.is_some(), "epoch {} had no race value", epoch.epoch);
		ensure!(epoch.counts.len() >= 4, "only {} Hosts raced in epoch {}", epoch.counts.len(), epoch.epoch);
	}
	ensure!(report.activations.iter().filter(|a| a.epoch <= 2).count() == 2, "two changes of weights should be seen");
	for change in report.activations.iter().filter(|a| a.epoch <= 2) {
		ensure!(change.frozen_at < change.babe_at, "BABE used weights before they were announced: {change:?}");
		ensure!(change.babe_at == change.grandpa_at, "GRANDPA's set does not change with BABE's: {change:?}");
	}
	Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e2e_network_should_race_serve_verify_and_pay_when_parts_of_it_fail() -> anyhow::Result<()> {
	let dir = tempfile::Builder::new().prefix("pacer-e2e-").tempdir()?;
	let options = Options { hosts: 4, model: model(), dir: dir.path().into(), workers: true };
	let mut network = Network::start(&options).await?;
	let outcome = async {
		network.fund_developer(1_000 * PCR, 500 * PCR).await?;
		first_epoch(&mut network).await?;
		second_epoch(&mut network).await?;
		let best = until(&network, "a block", |_| true).await?;
		let finalized = until_final(&network, best).await?;
		let names = network.hosts.iter().map(|h| (h.identity.account(), h.identity.name.clone()));
		let mut scanner = Scanner::new(names);
		scanner.scan(&network.chain, finalized).await?;
		check(&scanner.report(&network.chain, best, Ttft::default()).await?)
	}
	.await;
	if outcome.is_err() {
		// What happened is in the logs; keep them.
		let kept = dir.keep();
		println!("logs are kept in {}", kept.display());
	}
	outcome
}
