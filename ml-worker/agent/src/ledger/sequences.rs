//! Sequence numbers: contiguous per payer, because the inference id hangs on them.
//!
//! A number is *reserved* when a request arrives, because the executor is drawn from it. It is *used* when its start is
//! queued. If no executor takes the request, the number is given back, unless a later one is under way already: then
//! the start is queued nevertheless, expires on chain, and is refunded. So the chain never waits for a missing number.
//!
//! Invariants
//! 1. No two inferences under way have the same number.
//! 2. The lowest free number not below the chain's next one is given first.
//! 3. Reservations are on disk before a request leaves the agent.

use std::sync::{Arc, Mutex};

use codec::{Decode, Encode};

use crate::{
	error::Result,
	ledger::queues::{QueuedStart, Queues},
	store::{journal::Journal, DataDir},
};

/// What a number was reserved for: the start as it would be with the first candidate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Reserved {
	start: Option<QueuedStart>,
}

/// Hands out sequence numbers.
pub struct Sequences {
	queues: Arc<Queues>,
	reserved: Mutex<Journal<(u32, u32), Reserved>>,
}

impl Sequences {
	/// Opens the reservations; those that a restart interrupted are settled.
	pub fn open(data: &DataDir, queues: Arc<Queues>) -> Result<Self> {
		let reserved = Journal::open(&data.path("sequences.journal"))?;
		let sequences = Self { queues, reserved: Mutex::new(reserved) };
		// From the highest down: what is above decides whether a number can be given back.
		let left: Vec<(u32, u32)> = sequences.lock().map().keys().rev().copied().collect();
		for (payer, sequence) in left {
			sequences.give_back(payer, sequence)?;
		}
		Ok(sequences)
	}

	fn lock(&self) -> std::sync::MutexGuard<'_, Journal<(u32, u32), Reserved>> {
		self.reserved.lock().unwrap_or_else(|e| e.into_inner())
	}

	/// Reserves the lowest free number of a payer; `next` is what the chain expects next.
	pub fn reserve(&self, payer: u32, next: u32) -> Result<u32> {
		let mut reserved = self.lock();
		let queues = self.queues.lock();
		let is_free = |n: &u32| !reserved.map().contains_key(&(payer, *n)) && !queues.starts.map().contains_key(&(payer, *n));
		let sequence = (next..=u32::MAX).find(is_free).unwrap_or(u32::MAX);
		drop(queues);
		reserved.insert((payer, sequence), Reserved { start: None })?;
		Ok(sequence)
	}

	/// Reserves a number that the Developer chose; `false` if it is taken.
	pub fn reserve_exactly(&self, payer: u32, sequence: u32) -> Result<bool> {
		let mut reserved = self.lock();
		let key = (payer, sequence);
		let taken = reserved.map().contains_key(&key) || self.queues.lock().starts.map().contains_key(&key);
		if !taken {
			reserved.insert((payer, sequence), Reserved { start: None })?;
		}
		Ok(!taken)
	}

	/// Says what the number would be recorded as, should it come to that.
	pub fn note(&self, start: &QueuedStart) -> Result<()> {
		self.lock().insert((start.record.payer, start.record.sequence), Reserved { start: Some(start.clone()) })
	}

	/// An executor took the request: the start is queued.
	pub fn use_up(&self, start: QueuedStart) -> Result<()> {
		let key = (start.record.payer, start.record.sequence);
		self.queues.start(start)?;
		self.lock().remove(&key)?;
		Ok(())
	}

	/// Nobody took it.
	pub fn give_back(&self, payer: u32, sequence: u32) -> Result<()> {
		let mut reserved = self.lock();
		let Some(Reserved { start }) = reserved.remove(&(payer, sequence))? else { return Ok(()) };
		let later = (payer, sequence.saturating_add(1))..=(payer, u32::MAX);
		let is_followed = reserved.map().range(later.clone()).next().is_some()
			|| self.queues.lock().starts.map().range(later).next().is_some();
		drop(reserved);
		match start.filter(|_| is_followed) {
			Some(start) => self.queues.start(start),
			None => Ok(()),
		}
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use pacer_types::{ledger::StartRecord, AccountId, DutyKey, Hash, InferenceId};

	fn start(sequence: u32) -> QueuedStart {
		let record = StartRecord { payer: 1, sequence, request: Hash::zero(), model: 0, max_cost_micro: 5, attempt: 0 };
		let [developer, executor] = [AccountId::from([1; 32]), AccountId::from([2; 32])];
		let id = InferenceId::from_low_u64_be(sequence.into());
		QueuedStart { id, developer, is_by_key: true, executor, record, failures: 0 }
	}

	#[test]
	fn numbers_should_be_contiguous_when_requests_fail_or_succeed() {
		let dir = tempfile::tempdir().unwrap();
		let data = DataDir::open(dir.path(), &DutyKey::from_raw([1; 32])).unwrap();
		let queues = Arc::new(Queues::open(&data).unwrap());
		let sequences = Sequences::open(&data, queues.clone()).unwrap();
		let [a, b] = [sequences.reserve(1, 7).unwrap(), sequences.reserve(1, 7).unwrap()];
		assert_eq!([a, b], [7, 8]);
		assert_eq!(sequences.reserve(2, 0).unwrap(), 0, "every payer counts for itself");
		sequences.give_back(1, b).unwrap();
		assert_eq!(sequences.reserve(1, 7).unwrap(), 8, "the last number is free again");
		sequences.note(&start(7)).unwrap();
		sequences.use_up(start(8)).unwrap();
		sequences.give_back(1, 7).unwrap();
		assert_eq!(queues.lengths(), [2, 0, 0], "a number with a successor is recorded all the same");
		assert_eq!(sequences.reserve(1, 7).unwrap(), 9);
		assert!(!sequences.reserve_exactly(1, 8).unwrap() && sequences.reserve_exactly(1, 12).unwrap());
	}

	#[test]
	fn reservations_should_be_settled_when_the_agent_restarts() {
		let dir = tempfile::tempdir().unwrap();
		let data = DataDir::open(dir.path(), &DutyKey::from_raw([1; 32])).unwrap();
		let queues = Arc::new(Queues::open(&data).unwrap());
		let sequences = Sequences::open(&data, queues.clone()).unwrap();
		for expected in 0..3 {
			assert_eq!(sequences.reserve(1, 0).unwrap(), expected);
			sequences.note(&start(expected)).unwrap();
		}
		sequences.use_up(start(1)).unwrap();
		drop((sequences, queues));
		let queues = Arc::new(Queues::open(&data).unwrap());
		let sequences = Sequences::open(&data, queues.clone()).unwrap();
		assert_eq!(queues.lock().starts.map().keys().copied().collect::<Vec<_>>(), [(1, 0), (1, 1)]);
		assert_eq!(sequences.reserve(1, 0).unwrap(), 2);
	}
}
