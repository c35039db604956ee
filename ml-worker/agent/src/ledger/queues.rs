//! Records on their way to the chain, on disk.
//!
//! Invariants
//! 1. A record leaves its queue only when its effect was seen on chain, or when it can have none any more.
//! 2. Queues are bounded; the newest record is refused when one is full.

use std::sync::{Mutex, MutexGuard};

use codec::{Decode, Encode};
use pacer_types::{
	ledger::{FinishRecord, StartRecord, VerdictRecord},
	AccountId, Hash, InferenceId, Slot,
};

use crate::{
	error::{Error, Result},
	store::{journal::Journal, DataDir},
};

/// Most records of a kind that may wait.
pub const MAX_QUEUED: usize = 100_000;

/// A start that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueuedStart {
	/// The inference.
	pub id: InferenceId,
	/// The Developer who pays.
	pub developer: AccountId,
	/// Whether by an API key of this transfer agent.
	pub is_by_key: bool,
	/// The Host that executes it.
	pub executor: AccountId,
	/// The record.
	pub record: StartRecord,
	/// How often it was sent without effect.
	pub failures: u8,
}

/// A finish that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueuedFinish {
	/// The record.
	pub record: FinishRecord,
	/// Hash of the request that was executed.
	pub request: Hash,
	/// Slot of the answer.
	pub since: Slot,
	/// How often it was sent without effect.
	pub failures: u8,
}

/// A verdict that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueuedVerdict {
	/// The record.
	pub record: VerdictRecord,
	/// How often it was sent without effect.
	pub failures: u8,
}

/// The three queues.
pub struct Inner {
	/// By payer's index and sequence number: the order in which the chain takes them.
	pub starts: Journal<(u32, u32), QueuedStart>,
	/// By inference.
	pub finishes: Journal<InferenceId, QueuedFinish>,
	/// By inference.
	pub verdicts: Journal<InferenceId, QueuedVerdict>,
}

/// The queues, shared by those who fill them and the batcher.
pub struct Queues(Mutex<Inner>);

fn bounded(len: usize) -> Result<()> {
	if len < MAX_QUEUED {
		Ok(())
	} else {
		Err(Error::Settings("the queue of records is full; is the node there?".into()))
	}
}

impl Queues {
	/// Opens the queues with what they held when the agent stopped.
	pub fn open(data: &DataDir) -> Result<Self> {
		let inner = Inner {
			starts: Journal::open(&data.path("starts.journal"))?,
			finishes: Journal::open(&data.path("finishes.journal"))?,
			verdicts: Journal::open(&data.path("verdicts.journal"))?,
		};
		let waiting = inner.starts.len() + inner.finishes.len() + inner.verdicts.len();
		if waiting > 0 {
			tracing::info!("{waiting} records from before the restart still have to reach the chain");
		}
		Ok(Self(Mutex::new(inner)))
	}

	/// Exclusive access; held for short, never across a call to the chain.
	pub fn lock(&self) -> MutexGuard<'_, Inner> {
		// The maps are sound even if a thread died while it held the lock.
		self.0.lock().unwrap_or_else(|e| e.into_inner())
	}

	/// Queues a start.
	pub fn start(&self, start: QueuedStart) -> Result<()> {
		let mut inner = self.lock();
		bounded(inner.starts.len())?;
		inner.starts.insert((start.record.payer, start.record.sequence), start)
	}

	/// Queues a finish.
	pub fn finish(&self, id: InferenceId, record: FinishRecord, request: Hash, since: Slot) -> Result<()> {
		let mut inner = self.lock();
		bounded(inner.finishes.len())?;
		inner.finishes.insert(id, QueuedFinish { record, request, since, failures: 0 })
	}

	/// Queues a verdict.
	pub fn verdict(&self, id: InferenceId, record: VerdictRecord) -> Result<()> {
		let mut inner = self.lock();
		bounded(inner.verdicts.len())?;
		inner.verdicts.insert(id, QueuedVerdict { record, failures: 0 })
	}

	/// The most that a payer's starts on their way may cost, in millionths of a token.
	pub fn outstanding_micro(&self, payer: u32) -> u64 {
		let inner = self.lock();
		let starts = inner.starts.map().range((payer, 0)..=(payer, u32::MAX));
		starts.map(|(_, start)| u64::from(start.record.max_cost_micro)).sum()
	}

	/// Lengths of the queues: starts, finishes, verdicts.
	pub fn lengths(&self) -> [usize; 3] {
		let inner = self.lock();
		[inner.starts.len(), inner.finishes.len(), inner.verdicts.len()]
	}
}
