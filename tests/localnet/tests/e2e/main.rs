//! One local network, from genesis through two epochs, with clients that no one here wrote and with faults.
//!
//! Everything shares one network, because starting one costs half a minute and an epoch three.

mod faults;

use std::{
	path::PathBuf,
	process::{Command, Stdio},
	time::{Duration, Instant},
};

use anyhow::{ensure, Context};
use futures::StreamExt;
use pacer_localnet::{
	account::{Report, Scanner, Ttft},
	host::Identity,
	load::{Client, QUESTIONS},
	network::{Network, Options, API_KEY, SECOND_DEVELOPER},
};
use pacer_types::{views::ClockView, Phase, PCR};

use faults::Bill;

/// Name of the model that the network serves.
const MODEL: &str = "pacer-demo";

/// Longest wait for anything on the chain: more than an epoch.
const PATIENCE: Duration = Duration::from_secs(260);

fn model() -> PathBuf {
	let cache = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/pacer/demo-model");
	std::env::var("PACER_DEMO_MODEL").map_or_else(|_| cache(), PathBuf::from)
}

/// Follows best blocks until `done` says so of the clock.
async fn until(network: &Network, what: &str, done: impl Fn(&ClockView) -> bool) -> anyhow::Result<u32> {
	let start = Instant::now();
	let done = async |_| Ok(done(&network.chain.clock().await?));
	let block = network.chain.wait(false, PATIENCE, what, done).await?;
	println!("{what}: after {:.0} s, in block {block}", start.elapsed().as_secs_f64());
	Ok(block)
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
		let client = host.map(|h| Client::new(&h.api(), Some(API_KEY), MODEL));
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

/// The official OpenAI clients, through the network and straight at an engine.
async fn openai_clients(network: &mut Network) -> anyhow::Result<()> {
	let alice = network.host("Alice")?;
	let engine = format!("http://127.0.0.1:{}/v1", alice.ports.engine);
	let env = [("PACER_API", alice.api()), ("PACER_API_KEY", API_KEY.into()), ("PACER_ENGINE_API", engine)];
	client("python/openai_client.py", &env).await?;
	client("js/openai.mjs", &env).await
}

/// Wallets, and what duty keys sign, made by a library that no one here wrote.
async fn chain_clients(network: &mut Network) -> anyhow::Result<()> {
	let ws = |port: u16| format!("ws://127.0.0.1:{port}");
	let (alice, eve) = (ws(network.host("Alice")?.ports.rpc), ws(network.host("Eve")?.ports.rpc));
	let join = [("PACER_WS", alice.clone()), ("PACER_JOIN_WS", eve), ("PACER_NEW_HOST_NAME", "Polka".into())];
	client("js/polkadot.mjs", &join).await?;
	client("js/unsigned.mjs", &[("PACER_WS", alice), ("PACER_IDLE_HOST_URI", "//Eve".into())]).await
}

/// Weight of a Host in an epoch.
async fn work_of(network: &Network, name: &str, epoch: u32) -> anyhow::Result<u64> {
	let account = Identity { name: name.into() }.account();
	let view = network.chain.epoch(epoch).await?;
	Ok(view.weights.iter().find(|(who, ..)| *who == account).map_or(0, |(_, work, _)| *work))
}

async fn first_epoch(network: &mut Network) -> anyhow::Result<Bill> {
	network.join("Eve").await.context("Eve joins")?;
	let bill = faults::executors_die(network).await?;
	faults::node_catches_up(network).await?;
	faults::agent_resumes(network).await?;
	bill.refunded(network).await?;
	chain_clients(network).await?;
	faults::second_agent_is_refused(network)?;

	until(network, "the second epoch", reached(1, Phase::Inference)).await?;
	for name in ["Alice", "Bob", "Charlie", "Dave", "Eve"] {
		let work = work_of(network, name, 1).await?;
		println!("{name} has weight {work} in epoch 1");
		ensure!(work > 0, "{name} has no weight after the race");
	}
	Ok(bill)
}

async fn second_epoch(network: &mut Network) -> anyhow::Result<()> {
	openai_clients(network).await?;
	faults::cheaper_model_is_found_out(network, &model()).await?;
	// Without an engine the agent keeps its other duties and says so.
	network.host("Dave")?.engine.as_mut().context("no engine")?.kill();
	// A Host that does not race loses its weight.
	network.host("Eve")?.agent.as_mut().context("no agent")?.kill();
	let answered = ask(network, &["Alice", "Bob", "Charlie"], 8).await?;
	ensure!(answered >= 7, "only {answered} of 8 requests were answered without Dave's engine and Eve");
	faults::missing_engine_is_noticed(network, "Dave").await?;
	network.host("Dave")?.start_engine()?;

	until(network, "Switch", reached(1, Phase::Switch)).await?;
	let ws = format!("ws://127.0.0.1:{}", network.host("Alice")?.ports.rpc);
	client("js/claim.mjs", &[("PACER_WS", ws), ("PACER_CLAIM_WAIT_S", "30".into())]).await?;
	until(network, "the third epoch", reached(2, Phase::Inference)).await?;
	let race = network.chain.sprint(1).await?;
	// A race with less than a third of the work of the one before does not count: a sign of a machine that is too busy.
	ensure!(!race.skipped, "the race of epoch 1 did not count: {:?}", race.commits);
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
	// Whose they are is checked when they fail.
	ensure!(i.failed > 0, "no answer of a model that is not the promised one failed");
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
		network.fund(SECOND_DEVELOPER, faults::DEPOSIT, faults::DEPOSIT).await?;
		let bill = first_epoch(&mut network).await?;
		second_epoch(&mut network).await?;
		let best = network.chain.best_number().await?;
		let finalized = network.chain.wait(true, PATIENCE, "the last block's finality", async |n| Ok(n >= best)).await?;
		let names = network.hosts.iter().map(|h| (h.identity.account(), h.identity.name.clone()));
		let mut scanner = Scanner::new(names);
		scanner.scan(&network.chain, finalized).await?;
		let report = scanner.report(&network.chain, best, Ttft::default()).await?;
		check(&report)?;
		bill.settled(&network, &report).await
	}
	.await;
	if outcome.is_err() {
		// What happened is in the logs; keep them.
		let kept = dir.keep();
		println!("logs are kept in {}", kept.display());
	}
	outcome
}
