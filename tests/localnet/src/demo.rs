//! The demo: a network races, serves, verifies and pays while a person watches.

use std::collections::HashSet;

use anyhow::Context;
use pacer_localnet::{
	account::{Report, Scanner, Ttft},
	chain::number_of,
	load::{Client, QUESTIONS},
	network::{tokens, Network, Options, API_KEY},
};
use pacer_types::{EpochIndex, Phase, PCR};

use crate::{screen::Screen, DemoArgs};

/// Blocks between two questions.
const QUESTION_EVERY: u32 = 6;

/// Runs the demo to its end, or until the future is dropped.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
	let temporary = tempfile::Builder::new().prefix("pacer-demo-").tempdir()?;
	let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_path_buf());
	println!("starting 4 Hosts (node, engine, agent each); data and logs in {}", dir.display());
	let options = Options { hosts: 4, model: args.model.clone(), dir: dir.clone(), workers: true };
	let mut network = Network::start(&options).await?;
	network.fund_developer(1_000 * PCR, 500 * PCR).await.context("funding the Developer")?;
	println!("the network is up");
	print_addresses(&network);
	let mut show = Show::new(&network)?;
	let result = show.watch(&mut network, &args).await;
	show.screen.finish();
	if result.is_err() && args.dir.is_none() {
		println!("logs are kept in {}", temporary.keep().display());
		return result;
	}
	result?;
	let report = show.report(&network).await?;
	print!("{}", table(&report));
	if let Some(path) = &args.json {
		std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
		println!("written to {}", path.display());
	}
	if !args.exit {
		println!("\nThe network stays up; Ctrl-C ends it.");
		print_addresses(&network);
		std::future::pending::<()>().await;
	}
	Ok(())
}

fn print_addresses(network: &Network) {
	let Some(host) = network.hosts.first() else { return };
	println!("  OpenAI API   {}   key {API_KEY}   model pacer-demo", host.api());
	println!("  polkadot-js  ws://127.0.0.1:{}", host.ports.rpc);
	println!(
		"  metrics      http://127.0.0.1:{}/metrics (agent), :{}/metrics (engine), :{}/metrics (node)",
		host.ports.agent, host.ports.engine, host.ports.prometheus
	);
	println!("  one screen   pacer-agent status --agent http://127.0.0.1:{}", host.ports.agent);
}

/// What a request tells while it runs.
enum Told {
	/// A piece of the answer.
	Piece(String),
	/// The answer is complete, or failed.
	End(anyhow::Result<pacer_localnet::load::Answer>),
}

struct Show {
	screen: Screen,
	scanner: Scanner,
	network_ttft: Vec<f64>,
	direct_ttft: Vec<f64>,
	claimed: HashSet<(String, EpochIndex)>,
	asked: usize,
	best: u32,
}

impl Show {
	fn new(network: &Network) -> anyhow::Result<Self> {
		let names = network.hosts.iter().map(|h| (h.identity.account(), h.identity.name.clone()));
		Ok(Self {
			screen: Screen::new(network.hosts.len()),
			scanner: Scanner::new(names),
			network_ttft: vec![],
			direct_ttft: vec![],
			claimed: HashSet::new(),
			asked: 0,
			best: 0,
		})
	}

	/// Follows the chain until the epochs are over: asks, shows, claims.
	async fn watch(&mut self, network: &mut Network, args: &DemoArgs) -> anyhow::Result<()> {
		let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<Told>();
		let mut heads = network.chain.follow(false).await?;
		let mut asking = false;
		let mut joined = !args.join;
		self.measure_direct(network).await;
		loop {
			tokio::select! {
				head = heads.next() => {
					let header = head.context("the node ended its reports")??;
					self.best = number_of(&header)?;
					network.check_alive()?;
					let clock = network.chain.clock().await?;
					let finalized = network.chain.finalized_number().await?;
					// Reports may be read late; what is final is never ahead of the best block.
					self.best = self.best.max(finalized);
					let hosts = network.chain.hosts().await?;
					let sprint = network.chain.sprint(clock.now.epoch).await?;
					self.screen.update(network, &clock, &hosts, &sprint, self.best, finalized);
					self.scanner.scan(&network.chain, finalized).await?;
					if !joined && clock.now.epoch == 0 && clock.now.session_in_phase >= 1 {
						joined = true;
						self.screen.line("            a fifth Host joins: Eve signs set_keys and register in one transaction");
						network.join("Eve").await.context("Eve joining")?;
						self.scanner.add_name(network.host("Eve")?.identity.account(), "Eve".into());
					}
					// One at a time, so that a person can read it as it streams; the machine also makes blocks.
					if self.best % QUESTION_EVERY == 0 && !asking {
						asking = true;
						self.ask(network, tell.clone())?;
					}
					self.claim_once(network).await?;
					// One session into the epoch after the last: its first rewards are settled and claimed by then.
					if clock.now.epoch >= args.epochs && (clock.now.session_in_phase >= 1 || clock.now.phase != Phase::Inference) {
						return Ok(());
					}
				},
				news = told.recv() => match news {
					Some(Told::Piece(text)) => self.screen.piece(&text),
					Some(Told::End(result)) => {
						asking = false;
						self.show_end(result);
					},
					None => {},
				},
			}
		}
	}

	fn ask(&mut self, network: &Network, tell: tokio::sync::mpsc::UnboundedSender<Told>) -> anyhow::Result<()> {
		let question = QUESTIONS[self.asked % QUESTIONS.len()];
		let host = &network.hosts[self.asked % 4];
		self.asked += 1;
		let client = Client::new(&host.api(), Some(API_KEY), "pacer-demo")?;
		self.screen.line(format!("  Q via {}: {question}", host.identity.name));
		tokio::spawn(async move {
			let result = client
				.chat(question, |text| {
					let _ = tell.send(Told::Piece(text.into()));
				})
				.await;
			let _ = tell.send(Told::End(result));
		});
		Ok(())
	}

	fn show_end(&mut self, result: anyhow::Result<pacer_localnet::load::Answer>) {
		match result {
			Ok(answer) => {
				self.network_ttft.push(answer.ttft_ms);
				self.screen.end_answer(&format!("({:.0} ms to the first token)", answer.ttft_ms));
			}
			Err(error) => self.screen.end_answer(&format!("! {error:#}")),
		}
	}

	/// Time to first token straight at an engine, for comparison.
	async fn measure_direct(&mut self, network: &Network) {
		let Some(host) = network.hosts.first() else { return };
		let base = format!("http://127.0.0.1:{}/v1", host.ports.engine);
		let Ok(client) = Client::new(&base, None, "pacer-demo") else { return };
		for question in &QUESTIONS[..5] {
			if let Ok(answer) = client.chat(question, |_| ()).await {
				self.direct_ttft.push(answer.ttft_ms);
			}
		}
	}

	/// Claims what is settled, a Host at a time.
	async fn claim_once(&mut self, network: &Network) -> anyhow::Result<()> {
		for host in &network.hosts {
			let open = network.chain.claimable(&host.identity.account()).await?;
			let new = open.iter().any(|(epoch, _)| !self.claimed.contains(&(host.identity.name.clone(), *epoch)));
			if !new {
				continue;
			}
			// A claim may meet a fork on which nothing is settled yet; the next block tries again.
			let claimed = match network.claim(host).await {
				Ok(claimed) => claimed,
				Err(error) => {
					self.screen.line(format!("            {} could not claim yet: {error:#}", host.identity.name));
					return Ok(());
				}
			};
			for (epoch, amount) in claimed {
				self.claimed.insert((host.identity.name.clone(), epoch));
				self.screen.line(format!("            {} claims {} PCR of epoch {epoch}", host.identity.name, tokens(amount)));
			}
			return Ok(());
		}
		Ok(())
	}

	async fn report(self, network: &Network) -> anyhow::Result<Report> {
		let ttft = Ttft { direct: median(self.direct_ttft), network: median(self.network_ttft) };
		self.scanner.report(&network.chain, self.best, ttft).await
	}
}

fn median(mut values: Vec<f64>) -> f64 {
	values.sort_by(f64::total_cmp);
	values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The final table.
fn table(report: &Report) -> String {
	let epochs: Vec<EpochIndex> = report.epochs.iter().map(|e| e.epoch).collect();
	let mut text = format!(
		"\n{} blocks, {} final; conservation {}\n",
		report.blocks,
		report.finalized,
		if report.conservation_ok { "holds" } else { "BROKEN" }
	);
	text += &format!("{:<9}", "Host");
	for epoch in &epochs {
		text += &format!(" {:>8}", format!("w[{epoch}]"));
	}
	text += "   blocks executed verified missed       earned      claimed\n";
	for host in &report.hosts {
		text += &format!("{:<9}", host.name);
		for epoch in &epochs {
			text += &format!(" {:>8}", host.weights.get(epoch).map_or("-".into(), u64::to_string));
		}
		text += &format!(
			" {:>8} {:>8} {:>8} {:>6} {:>12} {:>12}\n",
			host.blocks_authored,
			host.executed,
			host.verified,
			host.missed,
			tokens(host.earned),
			tokens(host.claimed)
		);
	}
	let i = &report.inferences;
	text += &format!(
		"inferences: {} started, {} finished, {} verified, {} failed, {} expired, {} refunded\n",
		i.started, i.finished, i.verified, i.failed, i.expired, i.refunded
	);
	text += &format!(
		"time to first token: {:.0} ms at the engine, {:.0} ms through the network (medians)\n",
		report.ttft_ms.direct, report.ttft_ms.network
	);
	let s = &report.block_shares;
	text += &format!(
		"block shares against 1-(1-c)^(w/W): {} blocks, chi-square {:.2}, p = {:.3}\n",
		s.blocks, s.chi_square, s.p_value
	);
	for a in report.activations.iter().filter(|a| a.babe_at > 0) {
		text += &format!(
			"weights of epoch {}: frozen in block {}, BABE from block {}, GRANDPA set in block {}\n",
			a.epoch, a.frozen_at, a.babe_at, a.grandpa_at
		);
	}
	text
}
