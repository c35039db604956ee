//! What is left when the race is decided, and what must be.

use std::collections::BTreeMap;

use anyhow::{ensure, Context};
use pacer_localnet::rogue::Rogue;
use pacer_runtime::AccountId;
use pacer_sprint::{positions, sample::SAMPLES};
use pacer_types::{
	views::{EpochView, HostView, SprintView},
	weights::{water_fill, MAX_WEIGHT_SHARE},
	Balance,
};
use pallet_sprint::Strike;

use crate::{
	late::witness,
	play::{Actor, Stage, AMBUSH},
	record::{End, Record},
	table::{Fate, GAMBLER, TENANT},
	BOND, HISTORY, MEAN_OF,
};

/// What is left when the race is decided.
pub struct Outcome<'a> {
	stage: &'a Stage<'a>,
	record: Record,
	view: SprintView,
	/// Counts and whether they were struck, by Host.
	commits: BTreeMap<AccountId, (u32, bool)>,
	/// Work and consensus weights of the next epoch.
	weights: BTreeMap<AccountId, (u64, u64)>,
	hosts: Vec<HostView>,
}

impl Outcome<'_> {
	/// Reads the blocks `first ..= last`, which must be final, and the state after them.
	pub async fn read<'a>(stage: &'a Stage<'a>, first: u32, last: u32) -> anyhow::Result<Outcome<'a>> {
		let chain = stage.chain;
		let record = Record::read(chain, stage.race, first, last).await?;
		let at = Some(chain.head_at(last).await?.hash);
		let view: SprintView = chain.call("sprint", stage.race, at).await?;
		let next: EpochView = chain.call("epoch", stage.race + 1, at).await?;
		ensure!(!view.skipped, "the race was skipped");
		Ok(Outcome {
			stage,
			record,
			commits: view.commits.iter().map(|c| (c.host.clone(), (c.count, c.struck))).collect(),
			weights: next.weights.into_iter().map(|(host, work, consensus)| (host, (work, consensus))).collect(),
			view,
			hosts: chain.call("hosts", (), at).await?,
		})
	}

	fn name(&self, account: &AccountId) -> String {
		let honest = self.stage.honest.iter().find(|(_, who, _)| who == account).map(|(name, ..)| *name);
		let rogues = self.stage.actors.iter().map(|actor| &actor.rogue).chain(self.stage.doubters.all());
		let mut rogues = rogues.filter(|rogue| rogue.account() == *account);
		honest.map(String::from).or_else(|| rogues.next().map(|r| r.name().into())).unwrap_or_else(|| account.to_string())
	}

	/// Whether a rogue's commitment counts.
	pub fn committed(&self, rogue: &Rogue) -> bool {
		self.commits.contains_key(&rogue.account())
	}

	fn bond(&self, account: &AccountId) -> Balance {
		self.hosts.iter().find(|host| host.account == *account).map_or(0, |host| host.bond)
	}

	fn weight(&self, account: &AccountId) -> u64 {
		self.weights.get(account).map_or(0, |(work, _)| *work)
	}

	fn is_honest(&self, account: &AccountId) -> bool {
		self.stage.honest.iter().any(|(_, who, _)| who == account)
	}

	/// The positions of a rogue's list that everyone checked.
	fn sample(&self, rogue: &Rogue) -> anyhow::Result<Vec<u32>> {
		let commit = self.view.commits.iter().find(|c| c.host == rogue.account()).context("it did not commit")?;
		let audit = self.view.audit.context("no audit value")?;
		Ok(positions(&audit, &self.view.salt, &rogue.raw(), &commit.root.0, commit.count, SAMPLES))
	}

	/// How many of a rogue's invented nonces the sample hit.
	fn hits(&self, actor: &Actor) -> anyhow::Result<usize> {
		let fakes = &actor.claim.as_ref().context("it has no list")?.fakes;
		Ok(self.sample(&actor.rogue)?.iter().filter(|position| fakes.contains(position)).count())
	}

	/// What must have struck a rogue's count before Switch, if anything.
	fn due(&self, actor: &Actor) -> anyhow::Result<Option<Strike>> {
		Ok(match actor.cheat.fate {
			Fate::Stands => None,
			Fate::Falls(reason) => Some(reason),
			Fate::Sleeps => (self.hits(actor)? > 0).then_some(Strike::Output),
		})
	}

	/// Rogues whose fakes nobody saw, and where one is.
	pub fn asleep(&self) -> anyhow::Result<BTreeMap<AccountId, u32>> {
		let mut asleep = BTreeMap::new();
		for actor in self.stage.actors.iter().filter(|actor| actor.cheat.fate == Fate::Sleeps) {
			let fake = actor.claim.as_ref().and_then(|claim| claim.fakes.first()).context("a sleeper without a fake")?;
			if self.due(actor)?.is_none() {
				asleep.insert(actor.rogue.account(), *fake);
			}
		}
		Ok(asleep)
	}

	/// One line a rogue, for people.
	pub fn print(&self) {
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
	pub fn check_lists(&self) -> anyhow::Result<()> {
		for actor in &self.stage.actors {
			let (name, account) = (actor.rogue.name(), actor.rogue.account());
			let (count, struck) = self.commits.get(&account).with_context(|| format!("{name} did not commit"))?;
			let Some(reason) = self.due(actor).context(name.to_owned())? else {
				ensure!(
					!struck && self.weight(&account) == u64::from(*count),
					"nobody saw a fault of {name}, and it lost its weight"
				);
				ensure!(self.bond(&account) == BOND, "nobody saw a fault of {name}, and it lost of its bond");
				continue;
			};
			let fall = self.record.falls.get(&account).with_context(|| format!("{name} was not caught"))?;
			ensure!(fall.reason == reason, "{name} fell for another reason: {:?}", fall.reason);
			ensure!(*struck && self.weight(&account) == 0, "{name} was caught and has weight {}", self.weight(&account));
			ensure!(self.bond(&account) < BOND, "{name} was caught and kept its bond");
			ensure!(
				fall.by.as_ref().is_some_and(|who| self.is_honest(who)),
				"{name} was not caught by an honest Host: {:?}",
				fall.by
			);
		}
		Ok(())
	}

	/// The list that was kept from one agent was served to others, and refused to that one.
	pub fn check_audiences(&self) -> anyhow::Result<()> {
		let (served, refused) = self.stage.server.answers("Snob");
		ensure!(served > 0 && refused > 0, "Snob served {served} and refused {refused} times");
		let by = self.record.falls.get(&Rogue::new("Snob").account()).and_then(|fall| fall.by.clone());
		ensure!(by.is_some_and(|by| self.name(&by) == "Dave"), "not Dave demanded the list that was kept from Dave");
		Ok(())
	}

	/// Doubts of rogues must have cost them their deposits and the honest Hosts nothing, in time.
	pub fn check_doubters(&self) -> anyhow::Result<()> {
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
	pub fn check_ambush(&self, last_challenge: u64) -> anyhow::Result<()> {
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
	pub fn check_honest(&self) -> anyhow::Result<()> {
		for (name, account, _) in &self.stage.honest {
			let (count, struck) = self.commits.get(account).with_context(|| format!("{name} did not race"))?;
			ensure!(!struck && !self.record.falls.contains_key(account), "{name} is honest and was struck");
			ensure!(self.weight(account) == u64::from(*count), "{name} found {count} and weighs {}", self.weight(account));
			ensure!(self.bond(account) >= BOND, "{name} is honest and lost of its bond");
		}
		Ok(())
	}

	/// A long list was looked at in a few places, and that was enough.
	pub fn check_sample(&self) -> anyhow::Result<()> {
		for actor in &self.stage.actors {
			let claim = actor.claim.as_ref().context("a rogue without a list")?;
			let (count, sampled) = (claim.tree.count(), self.sample(&actor.rogue)?.len() as u32);
			if sampled < count {
				let (fakes, hits) = (claim.fakes.len(), self.hits(actor)?);
				println!("{}: {sampled} of {count} positions are sampled, and {hits} of {fakes} fakes", actor.rogue.name());
				ensure!(sampled <= SAMPLES as u32, "more positions than there are draws");
			}
			if actor.rogue.name() == GAMBLER {
				ensure!(sampled * 4 < count && claim.fakes.len() * 10 == count as usize * 3, "{GAMBLER} did not gamble");
			}
		}
		Ok(())
	}

	/// Consensus weight is what the mean over the last races leaves of a count, so that one good race buys little.
	pub fn check_consensus(&self) -> anyhow::Result<()> {
		let before = |who: &AccountId| if self.is_honest(who) { u64::from(HISTORY) * u64::from(MEAN_OF - 1) } else { 0 };
		let mean = |(who, (work, _)): (&AccountId, &(u64, u64))| (*work).min((work + before(who)).div_ceil(u64::from(MEAN_OF)));
		let expected = water_fill(&self.weights.iter().map(mean).collect::<Vec<_>>(), MAX_WEIGHT_SHARE);
		for ((who, (work, consensus)), expected) in self.weights.iter().zip(expected) {
			let name = self.name(who);
			ensure!(*consensus == expected, "{name} found {work}: its consensus weight is {consensus} and not {expected}");
		}
		let tenant = Rogue::new(TENANT).account();
		let (work, consensus) = *self.weights.get(&tenant).context("the tenant has no weight")?;
		let (all_work, all_consensus) = self.weights.values().fold((0, 0), |(w, c), (work, cons)| (w + work, c + cons));
		println!("{TENANT}: {work} of {all_work} in work, {consensus} of {all_consensus} in consensus");
		ensure!(consensus == work.div_ceil(u64::from(MEAN_OF)), "the first race counted for more than its part of the mean");
		ensure!(consensus * all_work * 3 < work * all_consensus, "one race bought consensus weight like many");
		Ok(())
	}

	/// What was found after Switch costs the earnings of the epoch that runs; its weights stay, and the bond is free.
	/// Only where these are the blocks of the proofs.
	pub fn check_late(&self, asleep: &BTreeMap<AccountId, u32>) -> anyhow::Result<()> {
		for who in asleep.keys() {
			let name = self.name(who);
			let fall = self.record.falls.get(who).with_context(|| format!("{name} was not caught"))?;
			println!("{name:<11} caught after Switch: {:?} in block {}", fall.reason, fall.block);
			ensure!(fall.reason == Strike::Output && fall.by == Some(witness()), "{name} fell so: {fall:?}");
			let host = self.hosts.iter().find(|host| host.account == *who).context("a Host is gone")?;
			ensure!(host.excluded, "{name} was caught and goes on earning");
			ensure!(host.bond == BOND, "{name} lost of a bond that was free since Switch");
			let (count, struck) = self.commits.get(who).context("a commitment is gone")?;
			ensure!(*struck && self.weight(who) == u64::from(*count), "weights changed after they were frozen");
		}
		let excluded = self.hosts.iter().filter(|host| host.excluded).count();
		ensure!(excluded == asleep.len() && self.record.falls.len() == excluded, "others fell too: {:?}", self.record.falls);
		Ok(())
	}
}
