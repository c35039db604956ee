//! Engines: keyless processes that run the model and the race.
//!
//! An agent drives one or several. Any of them may be absent: then the agent says so once, keeps its other duties, and
//! notices when it is back. Not every engine is a `pacer-engine`: [`abilities`] says what each can do, and work goes only to
//! those that can do it.

pub mod abilities;
pub mod client;
pub mod key;
#[cfg(test)]
mod tests;

use std::{
	sync::{
		atomic::{AtomicBool, AtomicUsize, Ordering},
		Arc, PoisonError, RwLock,
	},
	time::Duration,
};

pub use abilities::{Abilities, Need};
pub use client::{Engine, RaceStart, RaceStatus, VerifyReply, VerifyRequest, MAX_RECORDED_BYTES, MAX_VERIFY_BYTES};

/// Time between two looks at an engine's health.
const HEALTH_PERIOD: Duration = Duration::from_secs(2);

/// An engine and how it is.
pub struct Slot {
	/// The engine.
	pub engine: Engine,
	healthy: AtomicBool,
	busy: AtomicUsize,
	/// Unknown until it was asked, and again after it was away: it may be another one then.
	abilities: RwLock<Option<Arc<Abilities>>>,
}

impl Slot {
	/// Whether it answered the last time.
	pub fn is_healthy(&self) -> bool {
		self.healthy.load(Ordering::Relaxed)
	}

	/// What it can do, once that is known.
	pub fn abilities(&self) -> Option<Arc<Abilities>> {
		self.abilities.read().unwrap_or_else(PoisonError::into_inner).clone()
	}

	/// Whether it is there and can do such work.
	pub fn can(&self, need: Need) -> bool {
		self.is_healthy() && self.abilities().is_some_and(|a| a.can(need))
	}

	/// Whether it is there, can do such work and serves the model of that name.
	pub fn can_for(&self, need: Need, model: &str) -> bool {
		self.is_healthy() && self.abilities().is_some_and(|a| a.can(need) && a.serves(model))
	}

	fn set_abilities(&self, abilities: Option<Arc<Abilities>>) {
		*self.abilities.write().unwrap_or_else(PoisonError::into_inner) = abilities;
	}

	fn note(&self, healthy: bool) {
		if self.healthy.swap(healthy, Ordering::Relaxed) && !healthy {
			self.set_abilities(None);
			tracing::warn!("engine {} is absent; other duties go on without it", self.engine.url());
		}
	}

	/// Looks whether it is there, and what it can do if that is not known.
	async fn check(&self) {
		if !self.engine.is_healthy().await {
			return self.note(false);
		}
		if self.abilities().is_none() {
			match Abilities::probe(&self.engine).await {
				Ok(found) => {
					if found.is_pacer {
						tracing::info!("engine {} is there: {}", self.engine.url(), found.in_words());
					} else {
						tracing::warn!("engine {} is not a pacer-engine: {}", self.engine.url(), found.in_words());
					}
					self.set_abilities(Some(Arc::new(found)));
				}
				Err(e) => {
					tracing::warn!("engine {} does not say what it is (if it needs a key, does --engine-api-key-file name the right one?): {e}", self.engine.url());
					return self.note(false);
				}
			}
		}
		self.note(true);
	}
}

/// Counts a request as running on an engine until dropped.
pub struct Lease(Arc<Slot>);

impl Lease {
	/// The engine.
	pub fn engine(&self) -> &Engine {
		&self.0.engine
	}

	/// Says that the engine did not answer.
	pub fn failed(&self) {
		self.0.note(false);
	}
}

impl Drop for Lease {
	fn drop(&mut self) {
		self.0.busy.fetch_sub(1, Ordering::Relaxed);
	}
}

/// All engines of this agent.
#[derive(Clone)]
pub struct Engines(Arc<Vec<Arc<Slot>>>);

impl Engines {
	/// Engines by URL; none is known to be healthy yet.
	pub fn new(urls: &[String], http: &reqwest::Client) -> Self {
		let slots = urls.iter().map(|url| {
			let engine = Engine::new(url, http.clone());
			Arc::new(Slot { engine, healthy: AtomicBool::new(false), busy: AtomicUsize::new(0), abilities: RwLock::default() })
		});
		Self(Arc::new(slots.collect()))
	}

	/// All of them, in the order of the command line.
	pub fn all(&self) -> &[Arc<Slot>] {
		&self.0
	}

	/// How many are healthy.
	pub fn healthy(&self) -> usize {
		self.0.iter().filter(|s| s.is_healthy()).count()
	}

	/// How many are there that can do such work.
	pub fn able(&self, need: Need) -> usize {
		self.0.iter().filter(|s| s.can(need)).count()
	}

	/// Why nobody can do such work with that model, for those who asked for it.
	pub fn why_unable_for(&self, need: Need, model: &str) -> String {
		match self.able(need) {
			0 => self.why_unable(need),
			_ => format!("no engine here that could serves `{model}`"),
		}
	}

	/// Why nobody can do such work, for those who asked for it.
	pub fn why_unable(&self, need: Need) -> String {
		if self.healthy() == 0 {
			return "no engine is there".into();
		}
		let others = self.0.iter().filter_map(|s| s.abilities()).filter(|a| !a.can(need)).map(|a| a.server.clone());
		let others = others.collect::<Vec<_>>().join(", ");
		match need {
			Need::Record => format!("no engine here can be recorded: {others} has no seeded sampling and makes no artifact"),
			Need::Verify => format!("no engine here can verify: {others} has no /verify"),
			Need::Race => format!("no engine here can race: {others} has no /sprint"),
			Need::Plain => format!("no engine here serves a model: {others}"),
		}
	}

	/// The engine with the fewest requests of those that can do such work, whatever models they serve. Plain answers come
	/// from engines that can do nothing else, where there are any.
	pub fn lease(&self, need: Need) -> Option<Lease> {
		self.lease_another(need, &[])
	}

	/// As [`Engines::lease`], but none of those that were tried.
	pub fn lease_another(&self, need: Need, tried: &[Lease]) -> Option<Lease> {
		self.lease_one(need, |slot| slot.can(need) && !tried.iter().any(|lease| Arc::ptr_eq(&lease.0, slot)))
	}

	/// As [`Engines::lease`], but one that serves the model of that name.
	pub fn lease_for(&self, need: Need, model: &str) -> Option<Lease> {
		self.lease_another_for(need, model, &[])
	}

	/// As [`Engines::lease_for`], but none of those that were tried.
	pub fn lease_another_for(&self, need: Need, model: &str, tried: &[Lease]) -> Option<Lease> {
		self.lease_one(need, |slot| slot.can_for(need, model) && !tried.iter().any(|lease| Arc::ptr_eq(&lease.0, slot)))
	}

	fn lease_one(&self, need: Need, may: impl Fn(&Arc<Slot>) -> bool) -> Option<Lease> {
		let order = |s: &&Arc<Slot>| (need == Need::Plain && s.can(Need::Record), s.busy.load(Ordering::Relaxed));
		let slot = self.0.iter().filter(|slot| may(slot)).min_by_key(order)?;
		slot.busy.fetch_add(1, Ordering::Relaxed);
		Some(Lease(slot.clone()))
	}

	/// An engine without requests that can do such work.
	pub fn lease_idle(&self, need: Need) -> Option<Lease> {
		let is_free =
			|slot: &&Arc<Slot>| slot.can(need) && slot.busy.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
		self.0.iter().find(is_free).map(|slot| Lease(slot.clone()))
	}

	/// Whether [`Engines::lease_idle`] would find one.
	pub fn has_idle(&self, need: Need) -> bool {
		self.0.iter().any(|slot| slot.can(need) && slot.busy.load(Ordering::Relaxed) == 0)
	}

	/// Looks at every engine once.
	pub async fn check(&self) {
		futures::future::join_all(self.0.iter().map(|slot| slot.check())).await;
		metrics::gauge!("pacer_agent_engines_healthy").set(self.healthy() as f64);
		for (index, slot) in self.0.iter().enumerate() {
			for (ability, can) in slot.abilities().map(|a| a.list()).into_iter().flatten() {
				let labels = [("engine", index.to_string()), ("ability", ability.to_owned())];
				metrics::gauge!("pacer_agent_engine_ability", &labels).set(f64::from(u8::from(can && slot.is_healthy())));
			}
		}
	}

	/// Looks at every engine for ever.
	pub async fn watch(self) {
		if self.healthy() < self.0.len() {
			for slot in self.0.iter().filter(|s| !s.is_healthy()) {
				tracing::info!("looking for engine {}", slot.engine.url());
			}
		}
		loop {
			self.check().await;
			tokio::time::sleep(HEALTH_PERIOD).await;
		}
	}
}
