//! Makes this Host's moves in disputes.
//!
//! - As the *subject*: a position of the own list is in doubt. The committed list is read from disk, the position is
//!   opened, and the states of its nonce are hashed by the reference. After a demand the sampled positions are posted.
//! - As the *challenger*: the Host has answered. Its nonce is evaluated by the reference, and the first step that
//!   differs from the answer is named.
//!
//! Silence loses, so every move is made anew until the chain shows it, and the evaluations, which take seconds for the
//! large networks, run beside the loop, several at a time. What is to be done follows from the chain and the list on
//! disk alone: an agent that restarts goes on where it was.

use std::{
	collections::{BTreeMap, BTreeSet},
	sync::Arc,
};

use pacer_sprint::{first_false_step, Opening, RangeTree, Trace};
use pacer_types::{
	duty::MAX_POSTED,
	views::{CommitView, DemandView, DisputeView, SprintView},
	AccountId, DisputeId, DutyCall, EpochIndex, Hash, Phase,
};
use tokio::task::JoinSet;

use crate::{
	chain::{
		once::{OneShots, Told},
		Api, View,
	},
	error::Result,
	sprint::{
		check::{public_sample, Rules},
		list,
	},
	store::DataDir,
};

/// Evaluations at a time: half of the cores, since serving goes on beside it, and two at least.
fn concurrent() -> usize {
	std::thread::available_parallelism().map_or(2, |cores| cores.get() / 2).max(2)
}

/// A nonce whose states are wanted.
type Wanted = (EpochIndex, AccountId, u64);

/// A dispute this Host is a party of.
#[derive(Clone, Debug)]
struct Seen {
	subject: AccountId,
	position: u32,
	is_mine: bool,
}

/// Makes the moves of one Host.
pub struct Disputer {
	api: Api,
	data: Arc<DataDir>,
	once: OneShots,
	/// States of nonces; `None` while they are computed.
	traces: BTreeMap<Wanted, Option<Arc<Trace>>>,
	/// What this block asks for.
	wanted: BTreeSet<Wanted>,
	running: JoinSet<(Wanted, Result<Trace>)>,
	/// The own list of a race, and the root it was built for.
	tree: Option<(EpochIndex, Hash, Arc<RangeTree>)>,
	seen: BTreeMap<(EpochIndex, DisputeId), Seen>,
	/// What was said and need not be repeated.
	said: BTreeSet<(EpochIndex, String)>,
}

impl Disputer {
	/// No dispute is known yet.
	pub fn new(api: Api, data: Arc<DataDir>, once: OneShots) -> Self {
		let (traces, wanted, seen, said) = Default::default();
		Self { api, data, once, traces, wanted, running: JoinSet::new(), tree: None, seen, said }
	}

	/// Waits for an evaluation to end; for ever if none runs.
	pub async fn finished(&mut self) {
		match self.running.join_next().await {
			Some(Ok((wanted, Ok(trace)))) => {
				self.traces.insert(wanted, Some(Arc::new(trace)));
			},
			Some(Ok((wanted, Err(e)))) => {
				tracing::error!("nonce {} could not be evaluated: {e}", wanted.2);
				self.traces.remove(&wanted);
			},
			Some(Err(e)) => {
				tracing::error!("an evaluation failed: {e}");
				self.traces.retain(|_, trace| trace.is_some());
			},
			None => std::future::pending().await,
		}
	}

	/// Whether nothing is being evaluated.
	pub fn is_idle(&self) -> bool {
		self.running.is_empty()
	}

	/// Makes the moves that are due.
	pub async fn step(&mut self, view: &View) -> Result<()> {
		let Some(me) = view.me.clone() else { return Ok(()) };
		// Disputes are about the race of this epoch in Audit, and about the one before in Inference; what they came to
		// shows in the phase after.
		let race = match view.phase() {
			Phase::Audit | Phase::Switch => view.epoch(),
			Phase::Inference | Phase::Deal if view.epoch() > 0 => view.epoch() - 1,
			_ => return Ok(()),
		};
		self.said.retain(|(e, _)| *e >= race);
		let sprint = self.api.at(view.hash).sprint(race).await?;
		let Some(rules) = Rules::of(&sprint) else { return Ok(()) };
		self.wanted.clear();
		let mut disputes: Vec<&DisputeView> = sprint.disputes.iter().filter(|d| d.race == race).collect();
		disputes.sort_by_key(|d| d.deadline);
		for dispute in disputes {
			let is_open = view.slot_now() <= dispute.deadline;
			match &dispute.answer {
				None if dispute.subject == me && is_open => self.answer(view, &sprint, &rules, &me, dispute).await,
				Some(answer) if dispute.challenger == me && is_open => self.refute(view, &rules, dispute, answer).await,
				_ => {},
			}
		}
		if let Some(demand) = sprint.demands.iter().find(|d| d.subject == me) {
			self.post(view, &sprint, &me, demand).await;
		}
		let wanted = &self.wanted;
		self.traces.retain(|key, trace| trace.is_none() || wanted.contains(key));
		self.note(&sprint, &me);
		Ok(())
	}

	/// The states of a nonce, once they are there. Begins to compute them if nobody did.
	fn trace(&mut self, rules: &Rules, race: EpochIndex, host: &AccountId, nonce: u64) -> Option<Arc<Trace>> {
		let wanted = (race, host.clone(), nonce);
		self.wanted.insert(wanted.clone());
		if let Some(trace) = self.traces.get(&wanted) {
			return trace.clone();
		}
		if self.running.len() < concurrent() {
			self.traces.insert(wanted.clone(), None);
			let rules = *rules;
			self.running.spawn_blocking(move || {
				let trace = rules.trace(&wanted.1, wanted.2);
				(wanted, trace)
			});
		}
		None
	}

	/// The own committed list of a race as a tree; `None`, and said once, if it cannot be made.
	async fn tree(&mut self, sprint: &SprintView, me: &AccountId) -> Option<Arc<RangeTree>> {
		let commit = sprint.commits.iter().find(|c| c.host == *me)?;
		let (epoch, seed, CommitView { count, root, .. }) = (sprint.epoch, sprint.seed?, commit.clone());
		if let Some((_, _, tree)) = self.tree.as_ref().filter(|(e, r, _)| *e == epoch && *r == root) {
			return Some(tree.clone());
		}
		let data = self.data.clone();
		let build = move || RangeTree::build(&list::committed(&data, epoch, &seed, count, &root)?).ok();
		match tokio::task::spawn_blocking(build).await {
			Ok(Some(tree)) => {
				let tree = Arc::new(tree);
				self.tree = Some((epoch, root, tree.clone()));
				return Some(tree);
			},
			Ok(None) if !self.said.insert((epoch, "no list".into())) => {},
			Ok(None) => {
				tracing::error!("the list committed to in epoch {epoch} is not on disk: this Host cannot answer for it");
			},
			Err(e) => tracing::error!("the own list could not be read: {e}"),
		}
		None
	}

	/// Opens a position of the own list and claims the states of its nonce.
	async fn answer(&mut self, view: &View, sprint: &SprintView, rules: &Rules, me: &AccountId, dispute: &DisputeView) {
		let Some(opening) = self.tree(sprint, me).await.and_then(|tree| tree.open(dispute.position)) else { return };
		let nonce = opening.nonce;
		let Some(trace) = self.trace(rules, dispute.race, me, nonce) else { return };
		let hashes: Vec<Hash> = trace.hashes().into_iter().map(Hash::from).collect();
		let call = DutyCall::Answer { race: dispute.race, dispute: dispute.id, opening, hashes };
		if self.once.ensure(view, call).await == Told::First {
			let DisputeView { id, position, challenger, .. } = dispute;
			tracing::info!("answered dispute {id}: {challenger} doubts position {position}, where nonce {nonce} is");
			metrics::counter!("pacer_agent_sprint_answers_total").increment(1);
			if !trace.appropriate {
				tracing::error!("nonce {nonce} of the own list is not appropriate: the engine that found it is broken");
			}
		}
	}

	/// Names the first false step of an answer.
	async fn refute(&mut self, view: &View, rules: &Rules, dispute: &DisputeView, answer: &(u64, Vec<Hash>)) {
		let (nonce, claimed) = answer;
		let DisputeView { race, id, subject, .. } = dispute;
		let Some(trace) = self.trace(rules, *race, subject, *nonce) else { return };
		let claimed: Vec<[u8; 32]> = claimed.iter().map(|hash| hash.0).collect();
		let Some(step) = first_false_step(&trace, &claimed) else {
			if self.said.insert((*race, format!("dispute {id} is lost"))) {
				tracing::error!(
					"dispute {id}: the answer of {subject} holds, nonce {nonce} is appropriate. The challenge was wrong, its \
					 deposit is lost; check the engine that judged it"
				);
			}
			return;
		};
		let name = step.name();
		let call = DutyCall::Refute { race: *race, dispute: *id, step };
		if self.once.ensure(view, call).await == Told::First {
			tracing::info!("refuted the answer of {subject} in dispute {id}: step {name} of nonce {nonce} is false");
			metrics::counter!("pacer_agent_sprint_refutations_total").increment(1);
		}
	}

	/// Posts what a demand asks for. Batches are cut from the whole sample, so that each stays the same transaction.
	async fn post(&mut self, view: &View, sprint: &SprintView, me: &AccountId, demand: &DemandView) {
		let Some(deadline) = demand.deadline else {
			if self.said.insert((sprint.epoch, "weak demand".into())) {
				tracing::warn!("some Hosts say that they cannot get this Host's list; can its address be reached?");
			}
			return;
		};
		let commit = sprint.commits.iter().find(|c| c.host == *me && !c.struck);
		let Some(sample) = commit.and_then(|commit| public_sample(sprint, commit)) else { return };
		let is_missing = |position: &u32| !demand.posted.iter().any(|(p, _)| p == position);
		if view.slot_now() > deadline || !sample.iter().any(is_missing) {
			return;
		}
		let Some(tree) = self.tree(sprint, me).await else { return };
		for batch in sample.chunks(MAX_POSTED as usize) {
			let openings: Vec<Opening> = batch.iter().copied().filter(|p| is_missing(p)).filter_map(|p| tree.open(p)).collect();
			let count = openings.len();
			if count > 0 && self.once.ensure(view, DutyCall::PostOpenings { openings }).await == Told::First {
				tracing::info!("posted {count} openings of the own list, which was demanded");
				metrics::counter!("pacer_agent_sprint_posted_total").increment(count as u64);
			}
		}
	}

	/// Says what became of disputes that are over.
	fn note(&mut self, sprint: &SprintView, me: &AccountId) {
		let race = sprint.epoch;
		let open: BTreeMap<_, _> = sprint
			.disputes
			.iter()
			.filter(|d| d.race == race && (d.subject == *me || d.challenger == *me))
			.map(|d| ((race, d.id), Seen { subject: d.subject.clone(), position: d.position, is_mine: d.challenger == *me }))
			.collect();
		self.seen.retain(|(e, _), _| *e >= race);
		for ((_, id), Seen { subject, position, is_mine }) in self.seen.iter().filter(|(key, _)| !open.contains_key(key)) {
			let is_struck = sprint.commits.iter().any(|c| c.host == *subject && c.struck);
			let is_won = is_struck == *is_mine;
			let about = if *is_mine { format!("position {position} of {subject}") } else { format!("own position {position}") };
			match (is_won, is_mine) {
				(true, _) => tracing::info!("won dispute {id} about {about}"),
				(false, true) => tracing::warn!("lost dispute {id} about {about}: the count stands, the deposit is gone"),
				(false, false) => tracing::error!("lost dispute {id} about {about}: this Host's count is zero"),
			}
			metrics::counter!("pacer_agent_sprint_disputes_total", "outcome" => if is_won { "won" } else { "lost" }).increment(1);
		}
		self.seen = open;
	}
}
