//! Every way to cheat in a race that `design/sprint.md` names, played against honest Hosts in one local network.
//!
//! Four Hosts run as always: node, agent, engine. Beside them rogues register, for which this test speaks by hand
//! ([`pacer_localnet::rogue`]): most claim lists they should not ([`table`]), the rest doubt Hosts that are honest
//! ([`play::Doubters`]). Nobody helps the honest agents: they must find, challenge, refute and answer by themselves.
//! When the race is decided, every cheat must have cost its rogue the weight, and the honest Hosts nothing.
//!
//! That hardware rented for one race buys no consensus weight needs several races and a mean over more than one; it is
//! shown in `pallet-sprint`: `consensus_weight_should_grow_slowly_when_the_mean_is_over_five_races`.

mod play;
mod record;
mod table;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{ensure, Context};
use pacer_localnet::{
	chain::{number_of, Chain},
	host::dev_pair,
	network::{Network, Options},
	rogue::{ListServer, Rogue},
};
use pacer_runtime::{AccountId, RuntimeCall};
use pacer_types::{views::HostView, Balance, EpochIndex, Rejection, PCR};
use play::{Actor, Doubters, Stage, AMBUSH};
use record::{End, Record};

/// What every rogue gets: the bond of a Host, and fees.
const PURSE: Balance = 1_010 * PCR;
/// The bond of a Host.
const BOND: Balance = 1_000 * PCR;
/// Who pays for the rogues.
const BANK: &str = "//Alice//stash";

fn model() -> PathBuf {
	let cache = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/pacer/demo-model");
	std::env::var("PACER_DEMO_MODEL").map_or_else(|_| cache(), PathBuf::from)
}

/// Gives every rogue its purse and registers it; returns the first race that all of them may take part in.
async fn enter(chain: &Chain, server: &ListServer, rogues: &[Rogue]) -> anyhow::Result<EpochIndex> {
	let purse = |rogue: &Rogue| -> RuntimeCall {
		pallet_balances::Call::transfer_allow_death { dest: rogue.account().into(), value: PURSE }.into()
	};
	let calls = rogues.iter().map(purse).collect();
	chain.submit(&dev_pair(BANK), pallet_utility::Call::batch_all { calls }.into()).await.context("the rogues' purses")?;
	let register = |rogue: Rogue| async move {
		let endpoint = server.endpoint(rogue.name());
		rogue.register(chain, &endpoint).await.with_context(|| format!("registering {}", rogue.name()))
	};
	let races = futures::future::try_join_all(rogues.iter().cloned().map(register)).await?;
	races.into_iter().max().context("there are no rogues")
}

/// Waits until a block is final.
async fn until_final(chain: &Chain, block: u32) -> anyhow::Result<()> {
	let wait = async {
		let mut heads = chain.follow(true).await?;
		while let Some(head) = heads.next().await {
			if number_of(&head?)? >= block {
				return Ok(());
			}
		}
		anyhow::bail!("the node ended its reports")
	};
	tokio::time::timeout(Duration::from_secs(60), wait).await.with_context(|| format!("block {block} to become final"))?
}

/// What is left when the race is decided.
struct Outcome<'a> {
	stage: &'a Stage<'a>,
	record: Record,
	/// Counts and whether they were struck, by Host.
	commits: BTreeMap<AccountId, (u32, bool)>,
	/// Work weights of the next epoch.
	weights: BTreeMap<AccountId, u64>,
	hosts: Vec<HostView>,
}

impl Outcome<'_> {
	async fn read<'a>(stage: &'a Stage<'a>, first: u32, last: u32) -> anyhow::Result<Outcome<'a>> {
		let chain = stage.chain;
		let record = Record::read(chain, stage.race, first, last).await?;
		let at = Some(chain.head_at(last).await?.hash);
		let view: pacer_types::views::SprintView = chain.call("sprint", stage.race, at).await?;
		let next: pacer_types::views::EpochView = chain.call("epoch", stage.race + 1, at).await?;
		ensure!(!view.skipped, "the race was skipped");
		Ok(Outcome {
			stage,
			record,
			commits: view.commits.into_iter().map(|c| (c.host, (c.count, c.struck))).collect(),
			weights: next.weights.into_iter().map(|(host, work, _)| (host, work)).collect(),
			hosts: chain.call("hosts", (), at).await?,
		})
	}

	fn name(&self, account: &AccountId) -> String {
		let honest = self.stage.honest.iter().find(|(_, who, _)| who == account).map(|(name, ..)| *name);
		let rogues = self.stage.actors.iter().map(|actor| &actor.rogue).chain(self.stage.doubters.all());
		let mut rogues = rogues.filter(|rogue| rogue.account() == *account);
		honest.map(String::from).or_else(|| rogues.next().map(|r| r.name().into())).unwrap_or_else(|| account.to_string())
	}

	fn bond(&self, account: &AccountId) -> Balance {
		self.hosts.iter().find(|host| host.account == *account).map_or(0, |host| host.bond)
	}

	fn weight(&self, account: &AccountId) -> u64 {
		self.weights.get(account).copied().unwrap_or(0)
	}

	/// One line a rogue, for people.
	fn print(&self) {
		println!("{:<11} {:<52} {:<9} {:<10} {:>6}", "rogue", "what it tried", "caught", "by", "block");
		for actor in &self.stage.actors {
			let fall = self.record.falls.get(&actor.rogue.account());
			let asked = self.record.demanded.get(&actor.rogue.account()).map_or("-".into(), |by| format!("({})", self.name(by)));
			let (how, by, block) = fall.map_or(("-".into(), asked, "-".into()), |fall| {
				let by = fall.by.as_ref().map_or("all".into(), |by| self.name(by));
				(format!("{:?}", fall.reason), by, fall.block.to_string())
			});
			println!("{:<11} {:<52} {how:<9} {by:<10} {block:>6}", actor.rogue.name(), actor.cheat.what);
		}
		for rogue in self.stage.doubters.all() {
			for dispute in self.record.by(&rogue.account()) {
				let (end, block) = dispute.ended.as_ref().map_or((None, 0), |(block, _, end)| (Some(*end), *block));
				let what = format!("disputes {} in slot {}", self.name(&dispute.subject), dispute.opened.1.slot);
				println!("{:<11} {what:<52} {:<20} {block:>6}", rogue.name(), end.map_or("open".into(), |e| format!("{e:?}")));
			}
		}
		println!("{:<11} {:<52} {:?}", self.stage.doubters.latecomer.name(), "commits after the window", self.stage.late_commit);
		for (name, account, _) in &self.stage.honest {
			println!("{name:<11} count {:?}, weight {}", self.commits.get(account), self.weight(account));
		}
	}

	/// Every rogue with a list must have what its cheat deserves.
	fn check_lists(&self) -> anyhow::Result<()> {
		for actor in &self.stage.actors {
			let (name, account) = (actor.rogue.name(), actor.rogue.account());
			let (count, struck) = self.commits.get(&account).with_context(|| format!("{name} did not commit"))?;
			let Some(reason) = actor.cheat.struck else {
				ensure!(!struck && self.weight(&account) == u64::from(*count), "{name} did nothing wrong and lost its weight");
				ensure!(self.bond(&account) == BOND, "{name} did nothing wrong and lost of its bond");
				continue;
			};
			let fall = self.record.falls.get(&account).with_context(|| format!("{name} was not caught"))?;
			ensure!(fall.reason == reason, "{name} fell for another reason: {:?}", fall.reason);
			ensure!(*struck && self.weight(&account) == 0, "{name} was caught and has weight {}", self.weight(&account));
			ensure!(self.bond(&account) < BOND, "{name} was caught and kept its bond");
			let honest = |who: &AccountId| self.stage.honest.iter().any(|(_, account, _)| account == who);
			ensure!(fall.by.as_ref().is_some_and(honest), "{name} was not caught by an honest Host: {:?}", fall.by);
		}
		Ok(())
	}

	/// The list that was kept from one agent was served to others, and refused to that one.
	fn check_audiences(&self) -> anyhow::Result<()> {
		let (served, refused) = self.stage.server.answers("Snob");
		ensure!(served > 0 && refused > 0, "Snob served {served} and refused {refused} times");
		let by = self.record.falls.get(&Rogue::new("Snob").account()).and_then(|fall| fall.by.clone());
		ensure!(by.is_some_and(|by| self.name(&by) == "Dave"), "not Dave demanded the list that was kept from Dave");
		Ok(())
	}

	/// Doubts of rogues must have cost them their deposits and the honest Hosts nothing, in time.
	fn check_doubters(&self) -> anyhow::Result<()> {
		let doubters = &self.stage.doubters;
		for rogue in [&doubters.slanderer, &doubters.liar] {
			ensure!(self.record.by(&rogue.account()).count() == 1, "{} did not dispute", rogue.name());
		}
		let shield = doubters.shield.account();
		let shielded = self.record.by(&shield).next().context("Shield did not dispute")?;
		ensure!(shielded.ended.is_some(), "Shield's dispute did not end");
		let last = self.record.audit.iter().map(|(_, now)| now.slot).max().context("no blocks in Audit")?;
		for rogue in doubters.all().filter(|rogue| rogue.name() != "Shield") {
			for dispute in self.record.by(&rogue.account()) {
				let whom = self.name(&dispute.subject);
				let (_, at, end) = dispute.ended.as_ref().with_context(|| format!("a dispute with {whom} is open"))?;
				ensure!(dispute.is_answered, "{whom} did not answer {}", rogue.name());
				ensure!(*end == End::DepositLost, "the dispute of {} with {whom} ended so: {end:?}", rogue.name());
				ensure!(at.slot <= last, "the dispute of {} with {whom} went on beyond Audit", rogue.name());
				ensure!(self.bond(&rogue.account()) < BOND, "{} kept its deposit", rogue.name());
			}
		}
		Ok(())
	}

	/// Everyone was disputed when it was almost too late: in the last blocks that allowed it.
	fn check_ambush(&self, last_challenge: u64) -> anyhow::Result<()> {
		let ambushers: Vec<AccountId> = self.stage.doubters.ambushers.iter().map(Rogue::account).collect();
		let disputes: Vec<_> = ambushers.iter().flat_map(|who| self.record.by(who)).collect();
		for (name, account, _) in &self.stage.honest {
			let mut late = disputes.iter().filter(|d| d.subject == *account && d.opened.1.slot + AMBUSH[0] >= last_challenge);
			ensure!(late.next().is_some(), "{name} was not disputed at the last moment");
		}
		let latest = disputes.iter().map(|d| d.opened.0).max().context("no ambush")?;
		let after = self.record.audit.iter().filter(|(block, now)| *block > latest && now.slot <= last_challenge).count();
		println!("blocks between the last ambush and the last slot for challenges: {after}");
		Ok(())
	}

	/// Counts of honest Hosts are their weights, and nothing of their bonds is gone.
	fn check_honest(&self) -> anyhow::Result<()> {
		for (name, account, _) in &self.stage.honest {
			let (count, struck) = self.commits.get(account).with_context(|| format!("{name} did not race"))?;
			ensure!(!struck && !self.record.falls.contains_key(account), "{name} is honest and was struck");
			ensure!(self.weight(account) == u64::from(*count), "{name} found {count} and weighs {}", self.weight(account));
			ensure!(self.bond(account) >= BOND, "{name} is honest and lost of its bond");
		}
		Ok(())
	}
}

async fn race(network: &mut Network) -> anyhow::Result<()> {
	let server = ListServer::start().await?;
	let doubters = Doubters::new();
	let actors: Vec<Actor> =
		table::cheats().into_iter().map(|cheat| Actor { rogue: Rogue::new(cheat.rogue), cheat, claim: None }).collect();
	let rogues: Vec<Rogue> = actors.iter().map(|actor| &actor.rogue).chain(doubters.all()).cloned().collect();
	let race = enter(&network.chain, &server, &rogues).await?;
	println!("{} rogues registered for the race of epoch {race}", rogues.len());
	let honest = pacer_localnet::network::GENESIS_HOSTS.iter().map(|name| {
		let host = network.hosts.iter().find(|host| host.identity.name == *name).context("a Host is missing")?;
		let agent = host.agent.as_ref().context("an agent is missing")?;
		Ok((*name, host.identity.account(), agent.id()))
	});
	let honest = honest.collect::<anyhow::Result<Vec<_>>>()?;
	let mut stage = Stage::new(&network.chain, &server, race, actors, doubters, honest);
	let limit = Duration::from_secs(400);
	let (first, last) = tokio::time::timeout(limit, stage.play()).await.context("the race to be decided")??;
	until_final(&network.chain, last).await?;
	let outcome = Outcome::read(&stage, first, last).await?;
	outcome.print();
	outcome.check_lists()?;
	outcome.check_audiences()?;
	outcome.check_doubters()?;
	outcome.check_ambush(stage.last_challenge)?;
	outcome.check_honest()?;
	let late = stage.late_commit.as_ref().context("nobody was late")?;
	ensure!(late.is_refused_with(Rejection::WrongPhase), "a commit after the window: {late:?}");
	ensure!(!outcome.commits.contains_key(&stage.doubters.latecomer.account()), "a commit after the window counts");
	ensure!(network.chain.conservation().await?.ok, "money was made or lost");
	network.check_alive()
}

#[tokio::test(flavor = "multi_thread")]
async fn e2e_cheats_should_lose_their_weight_when_honest_hosts_audit_the_race() -> anyhow::Result<()> {
	let dir = tempfile::Builder::new().prefix("pacer-cheats-").tempdir()?;
	let options = Options { hosts: 4, model: model(), dir: dir.path().into(), workers: true };
	let mut network = Network::start(&options).await?;
	let outcome = race(&mut network).await;
	if outcome.is_err() {
		// What happened is in the logs; keep them.
		println!("logs are kept in {}", dir.keep().display());
	}
	outcome
}
