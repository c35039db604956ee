//! Drives the engines through a race and commits what they find.
//!
//! Life cycle: from the block with the race value engines search disjoint ranges; their nonces are merged into the list
//! on disk; during Race a commitment goes out every couple of seconds and more often near the end; after Race engines
//! stop. An agent that restarts finds its list on disk and its engines still searching.

use std::{
	collections::VecDeque,
	sync::Arc,
	time::{Duration, Instant},
};

use pacer_types::{views::SprintView, AccountId, DutyCall, DutyHeader, EpochIndex, Hash, Lane, Phase, Slot};

use crate::{
	chain::{Api, View, VALIDITY_SLOTS},
	engine::{Engine, Engines, Need, RaceStart},
	error::{Error, Refusal, Result},
	keys::KeyPair,
	sprint::{check::Rules, list::NonceList},
	store::DataDir,
};

/// Nonces of each engine: 2^56 from its own start.
const RANGE_BITS: u32 = 56;
/// Time between two commitments.
const COMMIT_PERIOD: Duration = Duration::from_secs(2);
/// Slots before the end in which every improvement is committed at once.
const FINAL_SLOTS: u64 = 8;
/// Most commitments under way.
const MAX_IN_FLIGHT: usize = 6;
/// Slots after which a commitment that is not on chain is given up.
const LOST_SLOTS: u64 = 8;

/// A race under way.
struct Race {
	epoch: EpochIndex,
	start: RaceStart,
	list: NonceList,
	/// How much of each engine's finds is in the list.
	cursors: Vec<u64>,
	/// Commitments sent: nonce of the lane, and slot.
	in_flight: VecDeque<(u64, Slot)>,
	committed: usize,
	last_commit: Option<Instant>,
}

/// Races for one Host.
pub struct Driver {
	api: Api,
	key: KeyPair,
	engines: Engines,
	data: Arc<DataDir>,
	race: Option<Race>,
}

impl Driver {
	/// Not racing yet.
	pub fn new(api: Api, key: KeyPair, engines: Engines, data: Arc<DataDir>) -> Self {
		Self { api, key, engines, data, race: None }
	}

	/// Whether a race is under way: then steps should come more often than blocks.
	pub fn is_racing(&self) -> bool {
		self.race.is_some()
	}

	/// Nonces found in the race under way.
	pub fn found(&self) -> usize {
		self.race.as_ref().map_or(0, |r| r.list.len())
	}

	/// Does what is to be done now.
	pub async fn step(&mut self, view: &View) -> Result<()> {
		let Some(me) = view.me.clone() else { return Ok(()) };
		if !matches!(view.phase(), Phase::Open | Phase::Race) {
			return self.finish(view).await;
		}
		let sprint = self.api.at(view.hash).sprint(view.epoch()).await?;
		if sprint.skipped {
			return self.finish(view).await;
		}
		// Without the value there is no race yet, or a short fork took it back: what is found until it returns counts.
		let Some(start) = Rules::of(&sprint).map(|rules| rules.race(&me)) else { return Ok(()) };
		if self.race.as_ref().is_none_or(|r| r.epoch != view.epoch() || r.start != start) {
			self.open(view, &sprint, start)?;
		}
		self.collect().await?;
		if view.phase() == Phase::Race {
			self.commit(view, &me).await?;
		}
		Ok(())
	}

	fn open(&mut self, view: &View, sprint: &SprintView, start: RaceStart) -> Result<()> {
		let epoch = view.epoch();
		let list = NonceList::open(&self.data, epoch, &sprint.seed.unwrap_or_default())?;
		if list.is_empty() {
			tracing::info!(preset = start.preset, "race of epoch {epoch} begins");
		} else {
			tracing::info!(preset = start.preset, "race of epoch {epoch} goes on with {} nonces from disk", list.len());
		}
		self.data.prune_files("sprint-", ".nonces", epoch.saturating_sub(2))?;
		let cursors = vec![0; self.engines.all().len()];
		self.race = Some(Race { epoch, start, list, cursors, in_flight: VecDeque::new(), committed: 0, last_commit: None });
		Ok(())
	}

	/// Sees that engines search, and takes over what they found.
	async fn collect(&mut self) -> Result<()> {
		let Some(race) = self.race.as_mut() else { return Ok(()) };
		let slots = self.engines.all();
		let visits = slots.iter().enumerate().filter(|(_, s)| s.can(Need::Race)).map(|(i, slot)| {
			let base = (i as u64) << RANGE_BITS;
			let resume = race.list.largest_in(base..base.saturating_add(1 << RANGE_BITS)).map_or(base, |n| n + 1);
			let start = RaceStart { first_nonce: resume, ..race.start.clone() };
			let cursor = race.cursors.get(i).copied().unwrap_or(0);
			async move { (i, visit(&slot.engine, &start, cursor).await) }
		});
		let mut speed = 0.0;
		for (i, visited) in futures::future::join_all(visits).await {
			match visited {
				Ok(Visited { nonces, cursor, nonces_per_s }) => {
					race.list.extend(&nonces)?;
					race.cursors[i] = cursor;
					speed += nonces_per_s;
				},
				Err(e) => tracing::debug!("engine {i} in the race: {e}"),
			}
		}
		metrics::gauge!("pacer_agent_sprint_found").set(race.list.len() as f64);
		metrics::gauge!("pacer_agent_sprint_nonces_per_second").set(speed);
		Ok(())
	}

	/// Commits if there is something new and it is time.
	async fn commit(&mut self, view: &View, me: &AccountId) -> Result<()> {
		let Some(race) = self.race.as_mut() else { return Ok(()) };
		let (slot, end) = (view.slot_now(), view.clock.now.phase_end);
		if slot >= end || !view.my_host().is_some_and(|h| h.may_race) {
			return Ok(());
		}
		let next = self.api.lane_nonce(me, Lane::Consensus).await?;
		race.in_flight.retain(|(nonce, _)| *nonce >= next);
		if race.in_flight.front().is_some_and(|(_, sent)| slot >= sent.saturating_add(LOST_SLOTS)) {
			race.in_flight.clear();
		}
		let period = if slot.saturating_add(FINAL_SLOTS) >= end {
			Duration::from_millis(view.clock.params.slot_ms)
		} else {
			COMMIT_PERIOD
		};
		let due = race.last_commit.is_none_or(|at| at.elapsed() >= period);
		// With nothing under way and nothing on chain a lost commitment is repeated.
		let lost = race.in_flight.is_empty() && !self.on_chain(view, me).await?;
		let race = self.race.as_mut().expect("checked above");
		if race.list.is_empty() || !due || race.in_flight.len() >= MAX_IN_FLIGHT || (race.list.len() <= race.committed && !lost) {
			return Ok(());
		}
		let nonces = race.list.sorted();
		let count = u32::try_from(nonces.len()).map_err(Error::engine)?;
		let file = race.list.file()?;
		let safe_root = move || -> Result<_> {
			file.sync_data()?;
			pacer_sprint::tree::root_of(&nonces).map_err(Error::engine)
		};
		let root = Hash::from(tokio::task::spawn_blocking(safe_root).await.map_err(Error::engine)??);
		let nonce = race.in_flight.back().map_or(next, |(n, _)| n + 1).max(next);
		let valid_until = end.saturating_sub(1).min(view.slot().saturating_add(VALIDITY_SLOTS));
		let header = DutyHeader { host: me.clone(), epoch: race.epoch, nonce, valid_until };
		let call = self.key.sign_call(&self.api.genesis, header, DutyCall::Commit { count, root });
		match self.api.submit(call).await {
			Ok(()) | Err(Error::Refused(Refusal::Waiting)) => {
				tracing::debug!(count, nonce, "committed");
				metrics::counter!("pacer_agent_sprint_commits_total").increment(1);
				race.in_flight.push_back((nonce, slot));
				race.committed = count as usize;
			},
			Err(Error::Refused(why)) => tracing::warn!("the commitment of {count} nonces was refused: {}", why.in_words()),
			Err(e) => return Err(e),
		}
		race.last_commit = Some(Instant::now());
		Ok(())
	}

	async fn on_chain(&self, view: &View, me: &AccountId) -> Result<bool> {
		Ok(self.api.sprint(view.epoch()).await?.commits.iter().any(|c| c.host == *me))
	}

	/// Ends the race: engines stop, the list stays on disk.
	async fn finish(&mut self, view: &View) -> Result<()> {
		let Some(race) = self.race.take() else { return Ok(()) };
		for slot in self.engines.all().iter().filter(|s| s.can(Need::Race)) {
			if let Err(e) = slot.engine.race_stop().await {
				tracing::debug!("engine {}: {e}", slot.engine.url());
			}
		}
		let (me, epoch, found) = (view.me.as_ref(), race.epoch, race.list.len());
		let sprint = self.api.sprint(race.epoch).await?;
		match sprint.commits.iter().find(|c| Some(&c.host) == me) {
			Some(c) => tracing::info!("race of epoch {epoch} is over: {found} nonces found, {} committed", c.count),
			None => tracing::warn!("race of epoch {epoch} is over: {found} nonces found, none committed"),
		}
		Ok(())
	}
}

struct Visited {
	nonces: Vec<u64>,
	cursor: u64,
	nonces_per_s: f64,
}

/// Starts the engine's search if need be and fetches what is new.
async fn visit(engine: &Engine, start: &RaceStart, mut cursor: u64) -> Result<Visited> {
	let mut status = engine.race_status().await?;
	if !status.is_racing(start) {
		if let Some(why) = status.error.as_ref().filter(|_| status.state == "failed") {
			return Err(Error::Engine(format!("it cannot race: {why}")));
		}
		engine.race_start(start).await?;
		status = engine.race_status().await?;
	}
	if status.found < cursor {
		// It was restarted and knows nothing of what it found before; that is in the list.
		cursor = 0;
	}
	let mut all = Vec::new();
	while cursor < status.found {
		let (nonces, next) = engine.race_nonces(cursor).await?;
		if nonces.is_empty() || next <= cursor {
			break;
		}
		all.extend(nonces);
		cursor = next;
	}
	Ok(Visited { nonces: all, cursor, nonces_per_s: status.nonces_per_s })
}

#[cfg(test)]
mod tests {
	use super::*;
	use crate::testing::{FakeChain, FakeEngine};

	async fn driver(chain: &FakeChain, engines: &[&FakeEngine], data: &Arc<DataDir>) -> Driver {
		let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
		let engines = Engines::new(&urls, &reqwest::Client::new());
		engines.check().await;
		Driver::new(chain.api(), chain.key(0), engines, data.clone())
	}

	#[tokio::test]
	async fn driver_should_commit_the_merged_list_when_two_engines_race() {
		let dir = tempfile::tempdir().unwrap();
		let chain = FakeChain::four_hosts();
		let data = Arc::new(DataDir::open(dir.path(), &chain.key(0).public()).unwrap());
		let (first, second) = (FakeEngine::start().await, FakeEngine::start().await);
		let mut driver = driver(&chain, &[&first, &second], &data).await;
		driver.step(&chain.view(0)).await.unwrap();
		assert!(!driver.is_racing());
		chain.enter(Phase::Race);
		first.find(&[7, 3]);
		second.find(&[(1 << 56) + 1]);
		driver.step(&chain.view(0)).await.unwrap();
		assert_eq!(driver.found(), 3);
		assert_eq!(second.race().unwrap().first_nonce, 1 << 56, "ranges are disjoint");
		let root = Hash::from(pacer_sprint::tree::root_of(&[3, 7, (1 << 56) + 1]).unwrap());
		assert_eq!(chain.submitted().last().unwrap().call, DutyCall::Commit { count: 3, root });
		driver.step(&chain.view(0)).await.unwrap();
		assert_eq!(chain.submitted().len(), 1, "nothing new, nothing said");
	}

	#[tokio::test]
	async fn driver_should_resume_when_the_agent_restarts() {
		let dir = tempfile::tempdir().unwrap();
		let chain = FakeChain::four_hosts();
		let data = Arc::new(DataDir::open(dir.path(), &chain.key(0).public()).unwrap());
		let engine = FakeEngine::start().await;
		chain.enter(Phase::Race);
		engine.find(&[5, 9]);
		driver(&chain, &[&engine], &data).await.step(&chain.view(0)).await.unwrap();
		engine.restart();
		let mut second = driver(&chain, &[&engine], &data).await;
		second.step(&chain.view(0)).await.unwrap();
		assert_eq!(second.found(), 2);
		assert_eq!(engine.race().unwrap().first_nonce, 10, "the range goes on behind the largest known nonce");
		chain.enter(Phase::Audit);
		second.step(&chain.view(0)).await.unwrap();
		assert!(!second.is_racing() && engine.race().is_none());
	}
}
