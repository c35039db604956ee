//! Which inferences this agent executes now: each at most once.
//!
//! A transfer agent that sends a second body under the same id must not get it executed: two answers under one id would
//! look like fraud by the executor to everyone who checks the record.

use std::{
	collections::HashSet,
	sync::{Arc, Mutex, MutexGuard},
};

use pacer_types::InferenceId;

/// The inferences under way.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<HashSet<InferenceId>>>);

/// Holds an inference until it is dropped.
pub struct Claim {
	running: Running,
	id: InferenceId,
}

impl Running {
	fn ids(&self) -> MutexGuard<'_, HashSet<InferenceId>> {
		self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
	}

	/// Claims an inference; `None` if it is being executed.
	pub fn claim(&self, id: InferenceId) -> Option<Claim> {
		self.ids().insert(id).then(|| Claim { running: self.clone(), id })
	}
}

impl Drop for Claim {
	fn drop(&mut self) {
		self.running.ids().remove(&self.id);
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn inference_should_be_claimed_once_until_it_is_released() {
		let running = Running::default();
		let id = InferenceId::repeat_byte(1);
		let claim = running.claim(id);
		assert!(claim.is_some() && running.claim(id).is_none());
		assert!(running.claim(InferenceId::repeat_byte(2)).is_some());
		drop(claim);
		assert!(running.claim(id).is_some());
	}
}
