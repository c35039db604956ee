//! Plays the rogues through one race, from the heartbeat to Switch. What it does follows from the chain's best block
//! alone, so what gets lost on the way is said again.

use std::{
	collections::{BTreeSet, VecDeque},
	sync::{Arc, Mutex},
};

use anyhow::{ensure, Context};
use pacer_localnet::{
	chain::{number_of, Chain},
	rogue::{
		conduct::{false_refutation, unanswered, Repeats},
		Audience, Claim, ListServer, RaceOf, Rogue, Said,
	},
};
use pacer_sprint::{positions, sample::SAMPLES};
use pacer_types::{
	views::{ClockView, DisputeView, SprintView},
	AccountId, DutyCall, EpochIndex, Phase, Slot,
};
use tokio::sync::mpsc;

use crate::{
	table::{Cheat, To},
	FINAL,
};

/// Threads that look for the rogues' nonces: the machine also runs a network.
const SEARCHERS: usize = 2;
/// Slots before the last one for challenges at which each ambusher strikes: early enough that a stall of some seconds
/// does not keep all of them from it.
pub const AMBUSH: [Slot; 3] = [12, 8, 4];

/// Slots of Audit after which somebody commits too late.
const LATE: Slot = 6;

/// A rogue with a list.
pub struct Actor {
	/// Who it is.
	pub rogue: Rogue,
	/// What it tries.
	pub cheat: Cheat,
	/// Its list, once it has one.
	pub claim: Option<Claim>,
}

/// Rogues without a list: they doubt others.
pub struct Doubters {
	/// Challenges `Shielded`, its accomplice, and gives in.
	pub shield: Rogue,
	/// Challenges an honest Host and is silent.
	pub slanderer: Rogue,
	/// Challenges an honest Host and refutes what is right.
	pub liar: Rogue,
	/// Challenge every honest Host when it is almost too late.
	pub ambushers: Vec<Rogue>,
	/// Commits when the race is over.
	pub latecomer: Rogue,
}

impl Doubters {
	/// All of them, by names.
	pub fn new() -> Self {
		let ambushers = (1..=AMBUSH.len()).map(|i| Rogue::new(&format!("Ambusher{i}"))).collect();
		let [shield, slanderer, liar, latecomer] = ["Shield", "Slanderer", "Liar", "Latecomer"].map(Rogue::new);
		Self { shield, slanderer, liar, ambushers, latecomer }
	}

	/// All of them.
	pub fn all(&self) -> impl Iterator<Item = &Rogue> {
		[&self.shield, &self.slanderer, &self.liar, &self.latecomer].into_iter().chain(&self.ambushers)
	}
}

/// Everything that the play needs.
pub struct Stage<'a> {
	/// A node.
	pub chain: &'a Chain,
	/// Serves the rogues' lists.
	pub server: &'a ListServer,
	/// The race.
	pub race: EpochIndex,
	/// Rogues with lists.
	pub actors: Vec<Actor>,
	/// Rogues without.
	pub doubters: Doubters,
	/// The honest Hosts: account, and process id of the agent.
	pub honest: Vec<(&'static str, AccountId, u32)>,
	/// Last slot for challenges, once it is known.
	pub last_challenge: Slot,
	/// What the node said to the commit after the window.
	pub late_commit: Option<Said>,
	/// What it said to a Host that challenged itself.
	pub self_dispute: Option<Said>,
	repeats: Repeats,
	/// Challenges that were seen on chain: who, and whom.
	challenged: BTreeSet<(AccountId, AccountId)>,
}

/// One best block, as the play sees it.
pub struct Scene {
	/// Where the chain is.
	pub clock: ClockView,
	/// The race.
	pub view: SprintView,
	/// What decides about its nonces, once there is a seed.
	pub rules: Option<RaceOf>,
}

impl Scene {
	/// Slot of the block.
	pub fn slot(&self) -> Slot {
		self.clock.now.slot
	}

	fn phase(&self) -> Phase {
		self.clock.now.phase
	}
}

impl<'a> Stage<'a> {
	/// Sets the stage; nobody has said anything yet.
	pub fn new(
		chain: &'a Chain,
		server: &'a ListServer,
		race: EpochIndex,
		actors: Vec<Actor>,
		doubters: Doubters,
		honest: Vec<(&'static str, AccountId, u32)>,
	) -> Self {
		Self {
			chain,
			server,
			race,
			actors,
			doubters,
			honest,
			last_challenge: 0,
			late_commit: None,
			self_dispute: None,
			repeats: Repeats::default(),
			challenged: BTreeSet::new(),
		}
	}

	/// Plays until the race is decided; returns the heights of the first block that was seen, and of a final one in which
	/// it is.
	pub async fn play(&mut self) -> anyhow::Result<(u32, u32)> {
		let mut first = None;
		let (send, mut claims) = mpsc::unbounded_channel();
		let mut searching = false;
		let mut heads = self.chain.follow(false).await?;
		while let Some(head) = heads.next().await {
			let height = number_of(&head?)?;
			first.get_or_insert(height);
			let scene = self.look().await?;
			if self.is_decided(&scene.clock) {
				let is_decided = async |height| {
					let hash = self.chain.head_at(height).await?.hash;
					Ok(self.is_decided(&self.chain.call("clock", (), Some(hash)).await?))
				};
				let last = self.chain.wait(true, FINAL, "the race's last blocks to become final", is_decided).await?;
				return Ok((first.unwrap_or(height), last));
			}
			if scene.clock.now.epoch < self.race {
				continue;
			}
			if let (false, Some(rules)) = (searching, scene.rules) {
				self.search(rules, &send);
				searching = true;
			}
			while let Ok((index, claim)) = claims.try_recv() {
				let claim: anyhow::Result<Claim> = claim;
				self.actors[index].claim = Some(claim?);
			}
			self.act(&scene).await?;
		}
		anyhow::bail!("the node ended its reports")
	}

	fn is_decided(&self, clock: &ClockView) -> bool {
		clock.now.epoch > self.race || (clock.now.epoch == self.race && clock.now.phase == Phase::Switch)
	}

	/// The race as of the best block.
	pub async fn look(&self) -> anyhow::Result<Scene> {
		let (clock, view) = (self.chain.clock().await?, self.chain.sprint(self.race).await?);
		let rules = RaceOf::of(&view);
		Ok(Scene { clock, view, rules })
	}

	/// Whether it is time that `who` says `what` (again); notes that it is said.
	pub fn is_due(&mut self, who: &AccountId, what: String, scene: &Scene) -> bool {
		self.repeats.is_due(who, what, scene.slot())
	}

	async fn act(&mut self, scene: &Scene) -> anyhow::Result<()> {
		match scene.phase() {
			Phase::Race => self.commit(scene).await,
			Phase::Audit => {
				self.publish();
				self.commit_late(scene).await?;
				self.answer(scene).await?;
				self.post(scene).await?;
				self.doubt(scene).await
			}
			_ => self.beat(scene).await,
		}
	}

	/// Says `call` for a rogue unless it did a moment ago; what the node refuses is shown, and tried again later.
	async fn say(&mut self, rogue: &Rogue, scene: &Scene, what: String, call: DutyCall) -> anyhow::Result<()> {
		if !self.repeats.is_due(&rogue.account(), what.clone(), scene.slot()) {
			return Ok(());
		}
		if let Said::Refused(why) = rogue.say(self.chain, &scene.clock.now, call).await? {
			println!("slot {}: {} says {what}: refused: {why}", scene.slot(), rogue.name());
		}
		Ok(())
	}

	/// Heartbeats, without which nobody may commit.
	async fn beat(&mut self, scene: &Scene) -> anyhow::Result<()> {
		let hosts = self.chain.hosts().await?;
		let silent = |account: &AccountId| hosts.iter().any(|h| h.account == *account && !h.heartbeat);
		let rogues: Vec<Rogue> = self.actors.iter().map(|a| &a.rogue).chain(self.doubters.all()).cloned().collect();
		for rogue in rogues.iter().filter(|rogue| silent(&rogue.account())) {
			if self.repeats.is_due(&rogue.account(), "heartbeat", scene.slot()) {
				let said = rogue.heartbeat(self.chain, &scene.clock.now).await?;
				ensure!(said == Said::Taken, "the heartbeat of {} was refused: {said:?}", rogue.name());
			}
		}
		Ok(())
	}

	/// Looks for everyone's nonces, on threads of their own.
	fn search(&self, rules: RaceOf, send: &mpsc::UnboundedSender<(usize, anyhow::Result<Claim>)>) {
		let jobs: VecDeque<_> =
			self.actors.iter().enumerate().map(|(i, actor)| (i, actor.cheat.list, actor.rogue.raw())).collect();
		let jobs = Arc::new(Mutex::new(jobs));
		for _ in 0..SEARCHERS {
			let (jobs, send) = (jobs.clone(), send.clone());
			std::thread::spawn(move || loop {
				let next = jobs.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
				let Some((index, list, host)) = next else { return };
				if send.send((index, list(&rules, &host))).is_err() {
					return;
				}
			});
		}
	}

	async fn commit(&mut self, scene: &Scene) -> anyhow::Result<()> {
		for i in 0..self.actors.len() {
			let (rogue, account) = (self.actors[i].rogue.clone(), self.actors[i].rogue.account());
			let Some(claim) = &self.actors[i].claim else { continue };
			if !scene.view.commits.iter().any(|commit| commit.host == account) {
				let call = claim.commit();
				self.say(&rogue, scene, "commit".into(), call).await?;
			}
		}
		Ok(())
	}

	/// Serves the lists to those who shall have them, once.
	fn publish(&mut self) {
		for actor in &self.actors {
			let Some(claim) = actor.claim.as_ref().filter(|_| !self.server.serves(actor.rogue.name())) else { continue };
			let process = |name| self.honest.iter().find(|(honest, ..)| *honest == name).map(|(_, _, process)| *process);
			let audience = match actor.cheat.to {
				To::All => Audience::All,
				To::Nobody => Audience::Nobody,
				To::AllBut(name) => process(name).map_or(Audience::Nobody, Audience::AllBut),
			};
			self.server.publish(actor.rogue.name(), self.race, claim.served.clone(), audience);
		}
	}

	/// Commits after the window until the node refuses it. Not at once: a pool may judge by a block before the border
	/// and take what no block can hold any more.
	async fn commit_late(&mut self, scene: &Scene) -> anyhow::Result<()> {
		let is_refused = matches!(self.late_commit, Some(Said::Refused(_)));
		if !is_refused && scene.slot() >= scene.clock.now.phase_start.saturating_add(LATE) {
			let call = Claim::of(vec![1, 2, 3]).commit();
			self.late_commit = Some(self.doubters.latecomer.say(self.chain, &scene.clock.now, call).await?);
		}
		Ok(())
	}

	/// Answers what is asked of the rogues, each in its way.
	pub async fn answer(&mut self, scene: &Scene) -> anyhow::Result<()> {
		let Some(rules) = scene.rules else { return Ok(()) };
		for i in 0..self.actors.len() {
			let rogue = self.actors[i].rogue.clone();
			let account = rogue.account();
			for dispute in unanswered(&scene.view, &account) {
				let actor = &self.actors[i];
				let claim = actor.claim.as_ref().context("a dispute about a list that nobody made")?;
				if let Some(call) = claim.answer(actor.cheat.answering, &rules, &rogue.raw(), dispute)? {
					self.say(&rogue, scene, format!("its answer to dispute {}", dispute.id), call).await?;
				}
			}
		}
		Ok(())
	}

	/// Posts what is demanded of the rogues, each in its way.
	async fn post(&mut self, scene: &Scene) -> anyhow::Result<()> {
		for demand in scene.view.demands.iter().filter(|demand| demand.deadline.is_some_and(|last| scene.slot() < last)) {
			let Some(i) = self.actors.iter().position(|actor| actor.rogue.account() == demand.subject) else { continue };
			let commit = scene.view.commits.iter().find(|commit| commit.host == demand.subject);
			let (Some(commit), Some(audit)) = (commit.filter(|commit| !commit.struck), scene.view.audit) else { continue };
			let rogue = self.actors[i].rogue.clone();
			let sampled = positions(&audit, &scene.view.salt, &rogue.raw(), &commit.root.0, commit.count, SAMPLES);
			let claim = self.actors[i].claim.as_ref().context("a demand for a list that nobody made")?;
			if let Some(call) = claim.post(self.actors[i].cheat.posting, &sampled, demand) {
				self.say(&rogue, scene, format!("openings after {}", demand.posted.len()), call).await?;
			}
		}
		Ok(())
	}

	/// The rogues that doubt others do so.
	async fn doubt(&mut self, scene: &Scene) -> anyhow::Result<()> {
		let Some(rules) = scene.rules.filter(|_| scene.view.audit.is_some()) else { return Ok(()) };
		let (shield, slanderer, liar) =
			(self.doubters.shield.clone(), self.doubters.slanderer.clone(), self.doubters.liar.clone());
		if let Some((accomplice, position)) = self.shielded() {
			self.challenge(&shield, scene, &accomplice.account(), position).await?;
			if self.self_dispute.is_none() {
				let call = DutyCall::Challenge { race: self.race, subject: accomplice.account(), position };
				self.self_dispute = Some(accomplice.say(self.chain, &scene.clock.now, call).await?);
			}
		}
		let (first, second) = (self.honest[0].1.clone(), self.honest[1].1.clone());
		self.challenge(&slanderer, scene, &first, 0).await?;
		self.challenge(&liar, scene, &second, 0).await?;
		for dispute in scene.view.disputes.iter().filter(|dispute| dispute.challenger == liar.account()) {
			if let Some(call) = false_refutation(&rules, dispute)? {
				self.say(&liar, scene, "a false refutation".into(), call).await?;
			}
		}
		let last = scene.view.deadlines.challenge;
		self.last_challenge = last;
		for (ambusher, before) in self.doubters.ambushers.clone().iter().zip(AMBUSH) {
			if scene.slot().saturating_add(before) < last || scene.slot() >= last {
				continue;
			}
			for (_, account, _) in self.honest.clone() {
				self.challenge(ambusher, scene, &account, before as u32).await?;
			}
		}
		Ok(())
	}

	/// The accomplice that is to be shielded, and where its fake is.
	fn shielded(&self) -> Option<(Rogue, u32)> {
		let actor = self.actors.iter().find(|actor| actor.rogue.name() == "Shielded")?;
		let position = actor.claim.as_ref()?.fakes.first()?;
		Some((actor.rogue.clone(), *position))
	}

	/// Challenges a position, unless it was done or it is too late.
	async fn challenge(&mut self, rogue: &Rogue, scene: &Scene, subject: &AccountId, position: u32) -> anyhow::Result<()> {
		let pair = (rogue.account(), subject.clone());
		let open = |dispute: &DisputeView| dispute.challenger == pair.0 && dispute.subject == pair.1;
		if scene.view.disputes.iter().any(open) {
			self.challenged.insert(pair.clone());
		}
		let commit = scene.view.commits.iter().find(|commit| commit.host == *subject);
		let possible = commit.is_some_and(|commit| !commit.struck && position < commit.count);
		if self.challenged.contains(&pair) || !possible || scene.slot() >= scene.view.deadlines.challenge {
			return Ok(());
		}
		let call = DutyCall::Challenge { race: self.race, subject: subject.clone(), position };
		self.say(rogue, scene, format!("a challenge of {subject} at {position}"), call).await
	}
}
