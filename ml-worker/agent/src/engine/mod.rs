//! Engines: keyless processes that run the model and the race.
//!
//! An agent drives one or several. Any of them may be absent: then the agent says so once, keeps its other duties, and
//! notices when it is back.

pub mod client;

use std::{
	sync::{
		atomic::{AtomicBool, AtomicUsize, Ordering},
		Arc,
	},
	time::Duration,
};

pub use client::{Engine, RaceStart, RaceStatus, VerifyReply, VerifyRequest};

/// Time between two looks at an engine's health.
const HEALTH_PERIOD: Duration = Duration::from_secs(2);

/// An engine and how it is.
pub struct Slot {
	/// The engine.
	pub engine: Engine,
	healthy: AtomicBool,
	busy: AtomicUsize,
}

impl Slot {
	/// Whether it answered the last time.
	pub fn is_healthy(&self) -> bool {
		self.healthy.load(Ordering::Relaxed)
	}

	fn note(&self, healthy: bool) {
		if self.healthy.swap(healthy, Ordering::Relaxed) != healthy {
			if healthy {
				tracing::info!("engine {} is there", self.engine.url());
			} else {
				tracing::warn!("engine {} is absent; other duties go on without it", self.engine.url());
			}
		}
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
			Arc::new(Slot { engine, healthy: AtomicBool::new(false), busy: AtomicUsize::new(0) })
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

	/// The healthy engine with the fewest requests.
	pub fn lease(&self) -> Option<Lease> {
		self.lease_another(&[])
	}

	/// As [`Engines::lease`], but none of those that were tried.
	pub fn lease_another(&self, tried: &[Lease]) -> Option<Lease> {
		let is_new = |slot: &&Arc<Slot>| slot.is_healthy() && !tried.iter().any(|lease| Arc::ptr_eq(&lease.0, slot));
		let slot = self.0.iter().filter(is_new).min_by_key(|s| s.busy.load(Ordering::Relaxed))?;
		slot.busy.fetch_add(1, Ordering::Relaxed);
		Some(Lease(slot.clone()))
	}

	/// A healthy engine without requests.
	pub fn lease_idle(&self) -> Option<Lease> {
		let is_free = |slot: &&Arc<Slot>| {
			slot.is_healthy() && slot.busy.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
		};
		self.0.iter().find(is_free).map(|slot| Lease(slot.clone()))
	}

	/// Whether [`Engines::lease_idle`] would find one.
	pub fn has_idle(&self) -> bool {
		self.0.iter().any(|slot| slot.is_healthy() && slot.busy.load(Ordering::Relaxed) == 0)
	}

	/// Looks at every engine once.
	pub async fn check(&self) {
		let checks = self.0.iter().map(|slot| async move { slot.note(slot.engine.is_healthy().await) });
		futures::future::join_all(checks).await;
		metrics::gauge!("pacer_agent_engines_healthy").set(self.healthy() as f64);
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
