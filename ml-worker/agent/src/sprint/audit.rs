//! Checks what other Hosts claim to have found, and challenges what is wrong.
//!
//! Once the chain has named the sample, each other Host's list is fetched. A list that is proven has its sample and
//! some positions of this agent's own choosing recomputed; a nonce that is not appropriate is challenged. A list that
//! is not proven cannot be judged: after some patience its openings are demanded, and those that are posted are
//! judged in its place. Further private positions wait until the epoch is over and the engines are idle: a fake that
//! is found then still costs its Host the earnings.
//!
//! Checks run beside the loop, so that one slow Host holds up nobody else's. Everything but the doubts can be found
//! out again: an agent that restarts begins anew. What [`super::dispute`] does goes on from what the chain says.

use std::{
	collections::{BTreeMap, BTreeSet},
	sync::Arc,
	time::{Duration, Instant},
};

use pacer_types::{
	views::{CommitView, DemandView, SprintView},
	AccountId, DutyCall, EpochIndex, Hash, Phase, Slot,
};
use tokio::task::JoinSet;

use crate::{
	chain::{
		once::{OneShots, Told},
		Api, View,
	},
	engine::Engines,
	error::Result,
	peers::Peers,
	sprint::{
		case::{Case, Demand, Voice},
		check::{add_private, doubts, places, public_sample, Place, Recompute, Rules, PRIVATE_SAMPLES},
		fetch::{fetch, Listing, Room},
	},
};

/// Checks at a time.
const CONCURRENT: usize = 8;
/// Positions of the agent's own choosing that are checked when the epoch is over.
const LATE_SAMPLES: usize = 64;
/// Least and longest time to fetch a list.
const FETCH_LIMITS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

type Key = (EpochIndex, AccountId);

/// What a check found.
enum Found {
	/// The list is proven and its sample was judged.
	Checked { sampled: usize, doubts: Vec<Place>, spare: Vec<Place> },
	/// Places of a list that is proven, or that were posted, were judged.
	Judged { places: Vec<Place>, doubts: Vec<Place> },
	/// The list is not proven, and why.
	Unproven(String),
	/// This agent could not judge `places`, if it had any, and why.
	Unable { places: Vec<Place>, why: String },
}

struct Finished {
	key: Key,
	root: Hash,
	found: Found,
}

/// Audits the races of others.
pub struct Auditor {
	api: Api,
	engines: Engines,
	peers: Peers,
	once: OneShots,
	/// For the lists of others.
	room: Room,
	cases: BTreeMap<Key, Case>,
	/// Open challenges of this agent.
	challenged: BTreeSet<(EpochIndex, AccountId, u32)>,
	running: JoinSet<Finished>,
}

/// A race that is looked at, as of one block.
struct Race<'a> {
	view: &'a View,
	me: &'a AccountId,
	sprint: Arc<SprintView>,
	rules: Rules,
	/// Its epoch is over.
	is_late: bool,
}

impl Race<'_> {
	fn demand(&self, host: &AccountId) -> Option<&DemandView> {
		self.sprint.demands.iter().find(|d| d.subject == *host)
	}

	/// Last slot in which a position can be challenged.
	fn last_challenge(&self, is_posted: bool) -> Slot {
		let deadlines = &self.sprint.deadlines;
		if is_posted {
			deadlines.challenge_posted
		} else {
			deadlines.challenge
		}
	}

	/// How long something can still be challenged.
	fn left(&self, is_posted: bool) -> Duration {
		let slots = self.last_challenge(is_posted).saturating_sub(self.view.slot_now());
		Duration::from_millis(slots.saturating_mul(self.view.clock.params.slot_ms))
	}

	/// Whether there is time for checks: as long as something can be challenged, but only the first half of Inference.
	fn has_time(&self) -> bool {
		let now = &self.view.clock.now;
		let half = now.phase_start.midpoint(now.phase_end);
		let last = self.last_challenge(false);
		self.view.slot_now() <= if self.is_late { last.min(half) } else { last }
	}

	/// What this Host can put behind a demand. The bond counts only if somebody's list can be had: else the fault is
	/// rather here, and the deposit would be lost.
	fn voice(&self, is_served: bool) -> Voice {
		let own = self.view.my_host();
		Voice {
			weight: own.map_or(0, |h| h.consensus),
			total: self.view.hosts.iter().fold(0, |sum, h| sum.saturating_add(h.consensus)),
			has_bond: is_served && own.is_some_and(|h| h.bond > 0),
		}
	}
}

impl Auditor {
	/// Nothing checked yet.
	pub fn new(api: Api, engines: Engines, peers: Peers, once: OneShots) -> Self {
		let (cases, challenged) = Default::default();
		Self { api, engines, peers, once, room: Room::default(), cases, challenged, running: JoinSet::new() }
	}

	/// Waits for a check to end and takes over what it found; for ever if none runs.
	pub async fn finished(&mut self) {
		match self.running.join_next().await {
			Some(Ok(finished)) => self.take(finished),
			Some(Err(e)) => {
				tracing::error!("a check of a list failed: {e}");
				// Which one is not known; to check one twice costs little.
				self.cases.values_mut().for_each(|case| case.is_busy = false);
			}
			None => std::future::pending().await,
		}
	}

	/// Whether no check runs.
	pub fn is_idle(&self) -> bool {
		self.running.is_empty()
	}

	/// Does what is due now.
	pub async fn step(&mut self, view: &View) -> Result<()> {
		let Some(me) = view.me.as_ref() else { return Ok(()) };
		let (epoch, is_late) = match view.phase() {
			Phase::Audit => (view.epoch(), false),
			Phase::Inference if view.epoch() > 0 => (view.epoch() - 1, true),
			_ => return Ok(()),
		};
		self.cases.retain(|(e, _), _| *e >= epoch);
		self.challenged.retain(|(e, _, _)| *e >= epoch);
		// Without weight and without a bond nothing this Host says is heard.
		if !view.my_host().is_some_and(|h| h.consensus > 0 || h.bond > 0) {
			return Ok(());
		}
		let sprint = Arc::new(self.api.at(view.hash).sprint(epoch).await?);
		let Some(rules) = Rules::of(&sprint).filter(|_| !sprint.skipped) else { return Ok(()) };
		let race = Race { view, me, sprint: sprint.clone(), rules, is_late };
		self.watch(&race);
		let mut commits: Vec<_> = sprint.commits.iter().filter(|c| c.host != *me && !c.struck && c.count > 0).collect();
		commits.sort_by_key(|c| distance(&c.host, me));
		for commit in &commits {
			let Some(sample) = public_sample(&sprint, commit) else { return Ok(()) };
			self.check(&race, commit, sample);
			if !is_late {
				self.demand(&race, commit).await;
			}
		}
		self.challenge(&race, &commits).await;
		Ok(())
	}

	/// Takes over what a check found.
	fn take(&mut self, finished: Finished) {
		let Finished { key, root, found } = finished;
		let host = key.1.clone();
		let Some(case) = self.cases.get_mut(&key).filter(|c| c.commit.root == root) else { return };
		case.is_busy = false;
		match found {
			Found::Checked { sampled, doubts, spare } => {
				case.is_checked = true;
				case.spare = spare;
				metrics::counter!("pacer_agent_sprint_lists_checked_total").increment(1);
				match doubts.first() {
					None => tracing::info!("the list of {host} holds at {sampled} positions"),
					Some((at, nonce)) => {
						tracing::warn!("the list of {host} is false: nonce {nonce} at position {at} is not appropriate");
					}
				}
				case.doubt(doubts);
			}
			Found::Judged { places, doubts } => {
				case.judged.extend(places.iter().map(|(p, _)| *p));
				for (at, nonce) in &doubts {
					tracing::warn!("the list of {host} is false: nonce {nonce} at position {at} is not appropriate");
				}
				case.doubt(doubts);
			}
			Found::Unproven(why) => {
				case.attempts = case.attempts.saturating_add(1);
				tracing::debug!("the list of {host} is not to be had ({}): {why}", case.attempts);
				case.why = why;
			}
			Found::Unable { places, why } => {
				case.spare = if case.is_checked { places } else { Vec::new() };
				if case.why != why {
					tracing::warn!("the list of {host} could not be judged: {why}");
				}
				case.why = why;
			}
		}
	}

	/// Notes which challenges of this agent are open, and which are over.
	fn watch(&mut self, race: &Race<'_>) {
		let epoch = race.sprint.epoch;
		let mine = race.sprint.disputes.iter().filter(|d| d.challenger == *race.me && d.race == epoch);
		let open: BTreeSet<_> = mine.map(|d| (epoch, d.subject.clone(), d.position)).collect();
		let over: Vec<_> = self.challenged.iter().filter(|c| c.0 == epoch && !open.contains(c)).cloned().collect();
		for challenge in over {
			self.challenged.remove(&challenge);
			let (epoch, subject, position) = challenge;
			if let Some(case) = self.cases.get_mut(&(epoch, subject)) {
				case.end(position);
			}
		}
		self.challenged.extend(open);
	}

	/// Begins the check that is due for a commitment, if one is.
	fn check(&mut self, race: &Race<'_>, commit: &CommitView, sample: Vec<u32>) {
		let key = (race.sprint.epoch, commit.host.clone());
		let case = self.cases.entry(key.clone()).or_insert_with(|| Case::new(commit.clone()));
		if case.commit.root != commit.root || case.commit.count != commit.count {
			*case = Case::new(commit.clone());
		}
		let posted = race.demand(&commit.host).map_or(&[][..], |d| &d.posted);
		let (rules, host) = (race.rules, commit.host.clone());
		let recompute = match race.is_late {
			true => Recompute::WhenIdle(self.engines.clone()),
			false => Recompute::Now(self.engines.clone()),
		};
		if case.is_busy || self.running.len() >= CONCURRENT || !recompute.is_ready(&rules) {
			return;
		}
		let root = commit.root;
		let mut new: Vec<Place> = Vec::new();
		if !case.is_checked && !race.is_late {
			new.extend(posted.iter().filter(|(p, _)| !case.judged.contains(p)));
		}
		if race.is_late && case.is_checked && race.has_time() {
			new = std::mem::take(&mut case.spare);
		}
		if !new.is_empty() {
			case.is_busy = true;
			let left = race.left(!race.is_late);
			self.running.spawn(async move {
				let found = match doubts(&recompute, &rules, &host, &new, left).await {
					Ok(judged) => Found::Judged { places: judged.places, doubts: judged.doubts },
					Err(e) => Found::Unable { places: new, why: e.to_string() },
				};
				Finished { key, root, found }
			});
			return;
		}
		if !race.has_time() || (race.is_late && case.is_hopeless()) || !case.ask(race.view.slot_now()) {
			return;
		}
		case.is_busy = true;
		let (peers, room, endpoint) = (self.peers.clone(), self.room.clone(), race.view.endpoint(&host));
		let until = Instant::now() + race.left(false);
		let (commit, epoch, limit) = (commit.clone(), race.sprint.epoch, fetch_limit(race));
		self.running.spawn(async move {
			let found = match fetch(&peers, endpoint.as_deref(), epoch, &commit, limit, &room).await {
				Listing::Proven(list) => judge(&recompute, &rules, &commit, &list, sample, until).await,
				Listing::Another(fault) => Found::Unproven(fault.to_string()),
				Listing::Silent(why) => Found::Unproven(why),
				Listing::NoRoom => Found::Unable { places: Vec::new(), why: "other lists leave no room for it now".into() },
			};
			Finished { key, root, found }
		});
	}

	/// Demands the openings of a list that cannot be had.
	async fn demand(&mut self, race: &Race<'_>, commit: &CommitView) {
		let Some(case) = self.cases.get(&(race.sprint.epoch, commit.host.clone())) else { return };
		let others = self.cases.iter().filter(|((e, host), _)| *e == race.sprint.epoch && *host != commit.host);
		let is_served = others.clone().count() == 0 || others.clone().any(|(_, case)| case.is_checked);
		let voice = race.voice(is_served);
		let (now, last) = (race.view.slot_now(), race.sprint.deadlines.demand);
		let Some(demand) = case.demand(now, last, voice, race.demand(&commit.host)) else { return };
		let with_deposit = demand == Demand::WithDeposit;
		let call = DutyCall::DemandList { subject: commit.host.clone(), with_deposit };
		if self.once.ensure(race.view, call).await == Told::First {
			let how = if with_deposit { " with a deposit" } else { "" };
			tracing::info!("demanded the list of {}{how}: {}", commit.host, case.why);
			metrics::counter!("pacer_agent_sprint_demands_total").increment(1);
		}
	}

	/// Challenges what is wrong. The chain lets one challenger have few disputes open, and a false Host may keep its
	/// own open to the last slot: so each Host is challenged once before any is twice, and first those nobody disputes.
	async fn challenge(&mut self, race: &Race<'_>, commits: &[&CommitView]) {
		let (epoch, now, disputes) = (race.sprint.epoch, race.view.slot_now(), &race.sprint.disputes);
		let mut due: Vec<((usize, usize), &AccountId, Place)> = Vec::new();
		for host in commits.iter().map(|c| &c.host) {
			let case = self.cases.get_mut(&(epoch, host.clone()));
			let Some(case) = case.filter(|c| c.is_doubted()) else { continue };
			let against = disputes.iter().filter(|d| d.subject == *host);
			let (mine, others): (Vec<_>, Vec<_>) = against.partition(|d| d.challenger == *race.me);
			let may = |is_posted| now <= race.last_challenge(is_posted);
			let places = case.challenges(race.me, disputes, race.demand(host), may);
			due.extend(places.into_iter().enumerate().map(|(i, place)| ((mine.len() + i, others.len()), host, place)));
		}
		// Hosts of the same rank stay in this agent's own order.
		due.sort_by_key(|(rank, _, _)| *rank);
		for (_, host, (position, nonce)) in due {
			let call = DutyCall::Challenge { race: epoch, subject: host.clone(), position };
			if self.once.ensure(race.view, call).await == Told::First {
				tracing::info!("challenged position {position} of {host}: nonce {nonce} is not appropriate");
				metrics::counter!("pacer_agent_sprint_challenges_total").increment(1);
			}
		}
	}
}

/// Every agent begins with other Hosts, so that not all ask the same one first.
fn distance(host: &AccountId, me: &AccountId) -> [u8; 32] {
	let (host, me): (&[u8; 32], &[u8; 32]) = (host.as_ref(), me.as_ref());
	std::array::from_fn(|i| host[i] ^ me[i])
}

/// How long fetching a list may take: a third of what is left of the time for demands.
fn fetch_limit(race: &Race<'_>) -> Duration {
	let left = race.sprint.deadlines.demand.saturating_sub(race.view.slot_now());
	let left = Duration::from_millis(left.saturating_mul(race.view.clock.params.slot_ms));
	if race.is_late {
		FETCH_LIMITS.1
	} else {
		(left / 3).clamp(FETCH_LIMITS.0, FETCH_LIMITS.1)
	}
}

/// Judges a proven list at the positions everyone looks at and at private ones; others are put aside, as are those
/// that could not be judged `until` challenges are closed.
async fn judge(
	recompute: &Recompute,
	rules: &Rules,
	commit: &CommitView,
	nonces: &[u64],
	sample: Vec<u32>,
	until: Instant,
) -> Found {
	let mut now: BTreeSet<u32> = sample.into_iter().collect();
	add_private(&mut now, commit.count, PRIVATE_SAMPLES);
	let mut all = now.clone();
	add_private(&mut all, commit.count, LATE_SAMPLES);
	let sample = places(nonces, now);
	let left = until.saturating_duration_since(Instant::now());
	match doubts(recompute, rules, &commit.host, &sample, left).await {
		Ok(judged) => {
			judged.places.iter().for_each(|(position, _)| {
				all.remove(position);
			});
			Found::Checked { sampled: judged.places.len(), doubts: judged.doubts, spare: places(nonces, all) }
		}
		Err(e) => Found::Unable { places: Vec::new(), why: e.to_string() },
	}
}
