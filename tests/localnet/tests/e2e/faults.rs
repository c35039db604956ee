//! What is done to a running network, and what it must do about it.
//!
//! Nothing here waits for time to pass: a process is killed when something is seen of it, and what follows is awaited
//! where it shows, in a client's answer, on chain or in a log.

use std::{
	cell::Cell,
	path::{Path, PathBuf},
	process::Command,
	time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context};
use futures::{future::join_all, stream::FuturesUnordered, StreamExt};
use pacer_localnet::{
	account::Report,
	host::Identity,
	load::{Client, Record, QUESTIONS},
	network::{developer, Network, SECOND_API_KEY, SECOND_DEVELOPER},
	process::Process,
};
use pacer_types::{
	ledger::{InferenceStatus, InferenceView},
	AccountId, Balance, InferenceId, Phase, PCR,
};
use serde_json::json;

use crate::{ask, reached, until, MODEL, PATIENCE};

/// What the second Developer deposits. Only the requests of [`executors_die`] are paid from it.
pub const DEPOSIT: Balance = 100 * PCR;
/// Tokens of an answer that takes an engine long enough for somebody to look who writes it, and short enough to be recorded
/// before it expires on a machine that is busy with other things.
const LONG: u64 = 900;
/// Longest wait for what follows within a few blocks.
const SOON: Duration = Duration::from_secs(60);

/// What lost executors leave behind: for the payer, and for themselves.
pub struct Bill {
	/// What the second Developer pays in the end: its answered requests, nothing else.
	paid: Balance,
	/// Hosts that broke off, by name, once for each inference that is known.
	lost: Vec<String>,
}

fn account(name: &str) -> AccountId {
	Identity { name: name.into() }.account()
}

/// Name of the Host with this account.
fn host_of(network: &Network, account: &str) -> anyhow::Result<String> {
	let host = network.hosts.iter().find(|host| host.identity.account().to_string() == account);
	Ok(host.with_context(|| format!("no Host has the account {account:?}"))?.identity.name.clone())
}

/// The inference of an answer, as the chain has it.
async fn recorded(network: &Network, record: &Record) -> anyhow::Result<Option<InferenceView>> {
	let mut id = InferenceId::default();
	hex::decode_to_slice(record.inference.trim_start_matches("0x"), id.as_bytes_mut()).context("no id of an inference")?;
	network.chain.inference(id).await
}

/// How many requests the agent at this port has taken for its engine.
async fn taken(port: u16) -> anyhow::Result<u64> {
	let text = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?.error_for_status()?.text().await?;
	let line = text.lines().find_map(|line| line.strip_prefix("pacer_agent_executions_total "));
	// A counter appears when it first counts.
	Ok(line.map_or(Ok(0), |count| count.trim().parse())?)
}

/// Looks at the agents until one has taken more requests than `before`; returns its Host's name.
async fn taker(agents: &[(String, u16)], before: &[u64]) -> anyhow::Result<String> {
	let look = async {
		loop {
			for ((name, port), before) in agents.iter().zip(before) {
				if taken(*port).await? > *before {
					return Ok(name.clone());
				}
			}
			tokio::time::sleep(Duration::from_millis(20)).await;
		}
	};
	tokio::time::timeout(SOON, look).await.context("waiting for an agent to take a request")?
}

/// Does something to the engines of all Hosts but Alice, which only passes requests on.
fn for_engines(network: &mut Network, act: fn(&mut Process)) {
	let others = network.hosts.iter_mut().filter(|host| host.identity.name != "Alice");
	others.filter_map(|host| host.engine.as_mut()).for_each(act);
}

/// Executors die while they answer: one as a whole in the middle of streams, one without its agent before it said
/// anything. Streams that had begun end with an error object, what had not begun is answered by another Host, and the
/// network goes on.
pub async fn executors_die(network: &mut Network) -> anyhow::Result<Bill> {
	let client = Client::new(&network.host("Alice")?.api(), Some(SECOND_API_KEY), MODEL)?;
	let long = json!({"max_tokens": LONG, "ignore_eos": true, "temperature": 0});
	let mut answered = Vec::new();
	let mut lost = Vec::new();

	// The first answer that begins names its executor, which dies at once.
	let mut opening: FuturesUnordered<_> = QUESTIONS[..3].iter().map(|question| client.open(question, &long)).collect();
	let mut streams = vec![opening.next().await.context("nothing was asked")??];
	let dead = streams[0].record.executor.clone();
	let name = host_of(network, &dead)?;
	let host = network.host(&name)?;
	host.agent.as_mut().context("no agent")?.kill();
	host.engine.as_mut().context("no engine")?.kill();
	while let Some(stream) = opening.next().await {
		streams.push(stream.context("a request whose answer had not begun when its executor died")?);
	}
	let start = Instant::now();
	let records: Vec<Record> = streams.iter().map(|stream| stream.record.clone()).collect();
	let answers = join_all(streams.into_iter().map(|stream| stream.read(start, |_| ()))).await;
	for (record, answer) in records.into_iter().zip(answers) {
		match answer {
			Err(e) if record.executor == dead => {
				ensure!(e.code() == Some("executor_lost"), "the client was told something else: {e}");
				ensure!(recorded(network, &record).await?.is_none_or(|i| i.finish.is_none()), "a broken answer has a result");
				lost.push(name.clone());
			}
			Ok(answer) if record.executor != dead => {
				ensure!(answer.completion_tokens == LONG, "only {} tokens were answered", answer.completion_tokens);
				answered.push(record);
			}
			Err(e) => return Err(e).context("a stream of a living executor broke off"),
			Ok(_) => bail!("{name} answered to the end although it was killed"),
		}
	}
	println!("{name} died in {} of 3 streams", lost.len());

	// Nobody waits for it.
	let others: Vec<&str> = ["Alice", "Bob", "Charlie"].into_iter().filter(|other| *other != name).collect();
	let n = ask(network, &others, 10).await?;
	ensure!(n >= 8, "only {n} of 10 requests were answered while one Host of four was dead");
	let host = network.host(&name)?;
	host.start_engine()?;
	host.start_agent()?;
	host.ready().await?;

	// An answer in one piece: when the engine behind it dies, the client has not seen anything of it yet.
	let agents = network.hosts.iter().map(|host| (host.identity.name.clone(), host.ports.agent));
	let agents: Vec<_> = agents.filter(|(name, _)| name != "Alice").collect();
	let before = join_all(agents.iter().map(|(_, port)| taken(*port))).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
	// Engines stand still until it is seen which of them was asked: they write faster than anybody looks.
	for_engines(network, Process::hold);
	let mut asking = Box::pin(client.whole(QUESTIONS[3], &long));
	let name = tokio::select! {
		early = &mut asking => bail!("it ended before anybody was seen to answer it: {early:?}"),
		name = taker(&agents, &before) => name?,
	};
	network.host(&name)?.engine.as_mut().context("no engine")?.kill();
	for_engines(network, Process::go_on);
	let (record, body) = asking.await.context("a request whose executor lost its engine")?;
	ensure!(record.executor != account(&name).to_string(), "{name} answered without an engine");
	ensure!(body["usage"]["completion_tokens"] == LONG, "the answer is not whole: {}", body["usage"]);
	println!("{name} lost its engine; {} answered instead", host_of(network, &record.executor)?);
	answered.push(record);
	lost.push(name.clone());
	let host = network.host(&name)?;
	host.start_engine()?;
	host.ready().await?;

	Ok(Bill { paid: price(network, &answered).await?, lost })
}

/// What these answers cost, as soon as the chain has their results. One that took longer than the chain waits costs nothing.
async fn price(network: &Network, records: &[Record]) -> anyhow::Result<Balance> {
	let look = || async {
		let views = join_all(records.iter().map(|record| recorded(network, record))).await;
		let costs = views.into_iter().map(|view| Ok(view?.filter(|i| i.status != InferenceStatus::Started).map(|i| i.cost)));
		costs.collect::<anyhow::Result<Option<Vec<Balance>>>>()
	};
	let seen = Cell::new(None);
	let done = async |_| {
		let costs = look().await?;
		let found = costs.is_some();
		seen.set(costs);
		Ok(found)
	};
	network.chain.wait(false, SOON, "results of what was answered", done).await?;
	let costs = seen.take().unwrap_or_default();
	println!("{} answers cost {costs:?}", records.len());
	Ok(costs.into_iter().sum())
}

impl Bill {
	/// Waits until what was lost has expired, and its money is where it came from, to the last unit.
	pub async fn refunded(&self, network: &Network) -> anyhow::Result<()> {
		let due = DEPOSIT - self.paid;
		let seen = async || {
			let (free, _) = deposit(network).await?;
			let totals = network.chain.epoch(0).await?.totals;
			anyhow::Ok((free, totals.expired as usize, totals.refunded as usize))
		};
		let done = async |_| {
			let (free, expired, refunded) = seen().await?;
			Ok(free == due && expired >= self.lost.len() && refunded >= expired)
		};
		let waited = network.chain.wait(false, PATIENCE, "refunds of what was lost", done).await;
		let (free, expired, refunded) = seen().await?;
		waited.with_context(|| format!("{free} of {due} are free, {expired} expired, {refunded} refunded"))?;
		ensure!(network.chain.conservation().await?.ok, "money was made or lost by refunds");
		Ok(())
	}

	/// Once everything is paid for: nothing is reserved, and nobody but those who answered got anything.
	pub async fn settled(&self, network: &Network, report: &Report) -> anyhow::Result<()> {
		ensure!(deposit(network).await? == (DEPOSIT - self.paid, 0), "the deposit is not what was not spent");
		let i = &report.inferences;
		ensure!(i.expired as usize >= self.lost.len(), "{} were lost, but only {} expired", self.lost.len(), i.expired);
		for name in &self.lost {
			let times = self.lost.iter().filter(|other| *other == name).count();
			let missed = report.hosts.iter().find(|host| host.name == *name).map_or(0, |host| host.missed);
			ensure!(missed as usize >= times, "{name} broke off {times} times, but {missed} are counted");
		}
		Ok(())
	}
}

/// The second Developer's deposit: what is free and what is reserved.
async fn deposit(network: &Network) -> anyhow::Result<(Balance, Balance)> {
	let payer = network.chain.payer_of(&developer(SECOND_DEVELOPER), &account("Alice")).await?;
	payer.map(|payer| (payer.free, payer.reserved)).context("the second Developer has no deposit")
}

/// The agent of a Host whose engine is gone stays, and says so once it looked.
pub async fn missing_engine_is_noticed(network: &mut Network, name: &str) -> anyhow::Result<()> {
	let host = network.host(name)?;
	ensure!(host.agent.as_mut().is_some_and(|agent| agent.is_alive()), "{name}'s agent ended with its engine");
	let status = format!("http://127.0.0.1:{}/pacer/status", host.ports.agent);
	let noticed = async |_| {
		let status: serde_json::Value = reqwest::get(&status).await?.json().await?;
		Ok(status["engines_healthy"] == 0)
	};
	network.chain.wait(false, SOON, "the agent to say that its engine is gone", noticed).await?;
	Ok(())
}

/// A second agent with the same key and folder must not start.
pub fn second_agent_is_refused(network: &mut Network) -> anyhow::Result<()> {
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

/// A node that was away finds its chain again, and what the others made meanwhile.
pub async fn node_catches_up(network: &mut Network) -> anyhow::Result<()> {
	network.host("Dave")?.node.as_mut().context("no node")?.kill();
	let missed = network.chain.best_number().await? + 5;
	network.chain.wait(false, SOON, "blocks without Dave", async |n| Ok(n >= missed)).await?;
	let dave = network.host("Dave")?;
	dave.start_node(&sp_crypto_hashing::blake2_256(b"localnet/Dave"), true)?;
	let own = dave.connect().await.context("Dave's node restarts")?;
	let (best, finalized) = (network.chain.best_number().await?, network.chain.finalized_number().await?);
	own.wait(false, SOON, "Dave's best block", async |n| Ok(n >= best)).await?;
	own.wait(true, SOON, "Dave's final block", async |n| Ok(n >= finalized)).await?;
	let (here, there) = (own.head_at(finalized).await?.hash, network.chain.head_at(finalized).await?.hash);
	ensure!(here == there, "Dave's block {finalized} is another than Alice's");
	println!("Dave's node caught up to block {best}, final {finalized}");
	Ok(())
}

/// What Charlie has committed to in the first race.
async fn committed(network: &Network) -> anyhow::Result<u32> {
	let (sprint, charlie) = (network.chain.sprint(0).await?, account("Charlie"));
	Ok(sprint.commits.iter().find(|commit| commit.host == charlie).map_or(0, |commit| commit.count))
}

/// An agent that is killed in the middle of a race goes on with what it had found.
pub async fn agent_resumes(network: &mut Network) -> anyhow::Result<()> {
	let begun = async |_| Ok(committed(network).await? > 0);
	network.chain.wait(false, PATIENCE, "Charlie's first commitment", begun).await?;
	let charlie = network.host("Charlie")?;
	charlie.agent.as_mut().context("no agent")?.kill();
	// What it sent before it died may be in one more block.
	let before = committed(network).await?;
	let now = network.chain.clock().await?.now;
	ensure!((now.epoch, now.phase) == (0, Phase::Race), "the race was over before the agent could be restarted in it");
	let charlie = network.host("Charlie")?;
	charlie.start_agent()?;
	charlie.ready().await?;
	let found = |line: &str| line.split_once("race of epoch 0 goes on with ")?.1.split(' ').next()?.parse::<u32>().ok();
	let resumed = charlie.agent.as_mut().context("no agent")?.wait_for_line(SOON, found).await?;
	ensure!(resumed > 0 && resumed >= before, "{resumed} nonces on disk, but {before} were committed");
	until(network, "the end of the race", reached(0, Phase::Audit)).await?;
	let after = committed(network).await?;
	ensure!(before > 0 && after >= before, "{before} nonces were committed before the restart, {after} after it");
	println!("Charlie committed {before} nonces, was killed, found {resumed} on disk and ended with {after}");
	Ok(())
}

/// Copies a model with weights that were made coarser: what a Host serves that saves on its machine.
fn coarser(model: &Path, to: PathBuf) -> anyhow::Result<PathBuf> {
	std::fs::create_dir_all(&to)?;
	for entry in std::fs::read_dir(model)? {
		let entry = entry?;
		std::fs::copy(entry.path(), to.join(entry.file_name()))?;
	}
	let weights = to.join("model.safetensors");
	let mut bytes = std::fs::read(&weights)?;
	let header = bytes.first_chunk().map(|length| u64::from_le_bytes(*length)).context("no weights")?;
	// Numbers of 16 bits, whose lower bytes hold the mantissa: two of its seven bits are left.
	let numbers = bytes.get_mut(8 + usize::try_from(header)?..).context("weights without numbers")?;
	numbers.iter_mut().step_by(2).for_each(|low| *low &= 0b1110_0000);
	std::fs::write(&weights, bytes)?;
	Ok(to)
}

/// A Host that serves another model than it says is found out by those who verify it, voted on, and excluded; nobody else
/// is. What it answered is refunded.
pub async fn cheaper_model_is_found_out(network: &mut Network, model: &Path) -> anyhow::Result<()> {
	let epoch = network.chain.clock().await?.now.epoch;
	let eve = network.host("Eve")?;
	let model = coarser(model, eve.dir.join("model"))?;
	eve.engine.as_mut().context("no engine")?.kill();
	eve.start_engine_with(&model)?;
	eve.ready().await?;
	let excluded = async |network: &Network| {
		let hosts = network.chain.hosts().await?;
		let excluded: Vec<_> = hosts.into_iter().filter(|host| host.excluded).map(|host| host.account).collect();
		anyhow::Ok(excluded)
	};
	let start = Instant::now();
	let mut asked = 0;
	// Who answers is drawn, and who verifies it too.
	while excluded(network).await?.is_empty() {
		ensure!(start.elapsed() < SOON, "Eve was not excluded; {asked} requests were asked");
		ask(network, &["Alice", "Bob", "Charlie"], 6).await?;
		asked += 6;
	}
	ensure!(excluded(network).await? == [account("Eve")], "others than Eve were excluded");
	let totals = network.chain.epoch(epoch).await?.totals;
	ensure!(totals.failed > 0 && totals.refunded >= totals.failed, "no answer of Eve's was refunded: {totals:?}");
	println!("Eve was excluded after {asked} requests, {:.0} s", start.elapsed().as_secs_f64());
	// Until every agent knows of it, they draw from different Hosts and refuse each other's requests.
	let block = network.chain.best_number().await?;
	network.chain.wait(true, SOON, "everybody to know that Eve is excluded", async |n| Ok(n >= block)).await?;
	Ok(())
}
