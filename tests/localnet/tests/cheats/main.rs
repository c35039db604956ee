//! Every way to cheat in a race that `design/sprint.md` names, played against honest Hosts in one local network.
//!
//! Four Hosts run as always: node, agent, engine. Beside them rogues register, for which this test speaks by hand
//! ([`pacer_localnet::rogue`]): most claim lists they should not ([`table`]), the rest doubt Hosts that are honest
//! ([`play::Doubters`]). Nobody helps the honest agents: they must find, challenge, refute and answer by themselves.
//! When the race is decided, every cheat must have cost its rogue the weight, and the honest Hosts nothing ([`outcome`]).
//!
//! | what is tried | by | and what comes of it |
//! | --- | --- | --- |
//! | one invented nonce among many, right hashes | Inventor | output step |
//! | the same with wrong hashes | Bender, Feeder | layer step, input step |
//! | three invented in ten of a list that is only sampled | Gambler | output step |
//! | the list repeated twice | Echo | half of it cannot be opened: withheld |
//! | two lists interleaved out of order | Weaver | withheld |
//! | another Host's nonces | Thief | output step |
//! | nonces of another seed, as of the race before | Relic | output step |
//! | a count larger than the list | Boaster | withheld |
//! | a list withheld from all | Hermit | withheld |
//! | a list withheld from one | Snob | withheld, by that one's demand |
//! | a list that is posted instead of served | Scribe | nothing: it is no cheat |
//! | a false dispute: silent, or refuting what is right | Slanderer, Liar | deposit lost |
//! | silence in a dispute | Mute | silent |
//! | disputing oneself to shield a fake, by an accomplice | Shielded, Shield | output step all the same |
//! | disputing oneself directly | Shielded | refused |
//! | disputes against everyone at the last moment | Ambushers | deposits lost, all before Switch |
//! | a commit after the window | Latecomer | refused, no count |
//! | nothing but fakes, by a newcomer | Newcomer | output step, part of the bond lost |
//! | a fake that no sample hits | Sleepers | a proof after Switch: no earnings in that epoch |
//! | hardware rented for one race | Tenant | work weight as found, a fifth of it in consensus |
//!
//! The network differs from the local preset in three things. A nonce in 16 is appropriate, so that long lists are found
//! while a small machine also runs the network. Consensus weight is the mean over five races, as in production. And the
//! honest Hosts have raced before: their earlier counts are in the genesis.

mod late;
mod outcome;
mod play;
mod record;
mod table;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{ensure, Context};
use outcome::Outcome;
use pacer_localnet::{
	chain::Chain,
	host::{dev_pair, Identity},
	network::{Network, Options, GENESIS_HOSTS},
	rogue::{ListServer, Rogue},
	spec::RaceRules,
};
use pacer_runtime::{AccountId, RuntimeCall};
use pacer_types::{Balance, EpochIndex, Rejection, PCR};
use play::{Actor, Doubters, Stage};

/// What every rogue gets: the bond of a Host, and fees.
const PURSE: Balance = 1_010 * PCR;
/// The bond of a Host.
const BOND: Balance = 1_000 * PCR;
/// One nonce in so many is appropriate, for the `dev` network's outputs.
const ONE_IN: (u32, u32) = (16, 256);
/// Races over which consensus weight takes the mean.
const MEAN_OF: u32 = 5;
/// What each honest Host found in each of the races before: more than in this one on any machine, so that the mean takes nothing.
const HISTORY: u32 = 1_000_000;
/// How long blocks may take to become final.
const FINAL: Duration = Duration::from_secs(60);
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

/// Checks what the race came to; returns the rogues whose fakes nobody saw, and where one is.
async fn decided(stage: &Stage<'_>, first: u32, last: u32) -> anyhow::Result<BTreeMap<AccountId, u32>> {
	let outcome = Outcome::read(stage, first, last).await?;
	outcome.print();
	outcome.check_lists()?;
	outcome.check_sample()?;
	outcome.check_audiences()?;
	outcome.check_doubters()?;
	outcome.check_ambush(stage.last_challenge)?;
	outcome.check_honest()?;
	outcome.check_consensus()?;
	let late = stage.late_commit.as_ref().context("nobody was late")?;
	ensure!(late.is_refused_with(Rejection::WrongPhase), "a commit after the window: {late:?}");
	ensure!(!outcome.committed(&stage.doubters.latecomer), "a commit after the window counts");
	let own = stage.self_dispute.as_ref().context("nobody disputed itself")?;
	ensure!(own.is_refused_with(Rejection::NotEntitled), "a dispute with oneself: {own:?}");
	outcome.asleep()
}

async fn race(network: &mut Network) -> anyhow::Result<()> {
	let server = ListServer::start().await?;
	let doubters = Doubters::new();
	let actors: Vec<Actor> =
		table::cheats().into_iter().map(|cheat| Actor { rogue: Rogue::new(cheat.rogue), cheat, claim: None }).collect();
	let rogues: Vec<Rogue> = actors.iter().map(|actor| &actor.rogue).chain(doubters.all()).cloned().collect();
	let race = enter(&network.chain, &server, &rogues).await?;
	println!("{} rogues registered for the race of epoch {race}", rogues.len());
	let honest = GENESIS_HOSTS.iter().map(|name| {
		let host = network.hosts.iter().find(|host| host.identity.name == *name).context("a Host is missing")?;
		let agent = host.agent.as_ref().context("an agent is missing")?;
		Ok((*name, host.identity.account(), agent.id()))
	});
	let honest = honest.collect::<anyhow::Result<Vec<_>>>()?;
	let mut stage = Stage::new(&network.chain, &server, race, actors, doubters, honest);
	let (first, last) =
		tokio::time::timeout(Duration::from_secs(400), stage.play()).await.context("the race to be decided")??;
	let asleep = decided(&stage, first, last).await?;
	let exposing = late::expose(&mut stage, &asleep);
	let end = tokio::time::timeout(Duration::from_secs(60), exposing).await.context("the late proofs")??;
	Outcome::read(&stage, last + 1, end).await?.check_late(&asleep)?;
	ensure!(network.chain.conservation().await?.ok, "money was made or lost");
	network.check_alive()
}

#[tokio::test(flavor = "multi_thread")]
async fn e2e_cheats_should_lose_their_weight_when_honest_hosts_audit_the_race() -> anyhow::Result<()> {
	let dir = tempfile::Builder::new().prefix("pacer-cheats-").tempdir()?;
	let options = Options { hosts: 4, model: model(), dir: dir.path().into(), workers: true };
	let threshold = pacer_sprint::threshold_for_one_in(ONE_IN.0, ONE_IN.1);
	let earlier = vec![HISTORY; MEAN_OF as usize - 1];
	let history = GENESIS_HOSTS.map(|name| (Identity { name: name.into() }.account(), earlier.clone())).to_vec();
	let rules = RaceRules { threshold, mean_of: Some(MEAN_OF), history };
	let mut network = Network::start_with(&options, rules).await?;
	let outcome = race(&mut network).await;
	if outcome.is_err() {
		// What happened is in the logs; keep them.
		println!("logs are kept in {}", dir.keep().display());
	}
	outcome
}
