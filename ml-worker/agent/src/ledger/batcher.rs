//! Puts queued records into batches on the ledger's lane.
//!
//! Life cycle of a record: queued, *ready* (the chain would take it now), in a batch under way, and, once the lane's
//! nonce moved past the batch, *settled*: its effect is looked for, and it leaves the queue or is tried again.
//!
//! Invariants
//! 1. A record is in at most one batch under way.
//! 2. Starts of a payer go out in the order of their numbers, none further ahead than the chain allows.
//! 3. A batch whose validity ended is signed anew under the same nonce; nonces never leave a gap. At the border of an epoch
//!    all that is not on chain is put together anew.

use std::{
	collections::{BTreeMap, BTreeSet, VecDeque},
	sync::Arc,
};

use pacer_types::{
	ledger::{
		BatchKey, FinishRecord, InferenceStatus, InferenceView, StartRecord, EXPIRY_SLOTS, MAX_BATCH, SEQUENCE_WINDOW,
	},
	AccountId, CallKind, DutyCall, DutyHeader, EpochIndex, InferenceId, Lane, Phase, Slot,
};

use crate::{
	chain::{Api, View, VALIDITY_SLOTS},
	error::{Error, Refusal, Result},
	gateway::draw,
	keys::KeyPair,
	ledger::queues::Queues,
};

/// Blocks a record waits for company.
const FLUSH_BLOCKS: u32 = 2;
/// Blocks between a batch's inclusion and the look at its effect, so that short forks do not matter.
const SETTLE_BLOCKS: u32 = 2;
/// Slots after which a batch that is not on chain is sent again.
const RESEND_SLOTS: u64 = 6;
/// Most batches under way; the pool takes [`pacer_types::duty::NONCE_WINDOW`].
const MAX_IN_FLIGHT: usize = 6;
/// Slots before the end of an epoch in which nothing waits for company.
const LAST_SLOTS: u64 = 10;
/// Times a record is tried.
const MAX_FAILURES: u8 = 3;
/// Slots an answer waits for its start to appear on chain.
const FINISH_WAIT_SLOTS: u64 = 2 * EXPIRY_SLOTS;

/// Names a queued record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
	Start(u32, u32),
	Finish(InferenceId),
	Verdict(InferenceId),
}

#[derive(Debug)]
struct Batch {
	nonce: u64,
	call: DutyCall,
	keys: Vec<Key>,
	epoch: EpochIndex,
	valid_until: Slot,
	sent_at: Slot,
	/// Height at which the lane's nonce had moved past it.
	included_at: Option<u32>,
}

/// Sends batches for one Host.
pub struct Batcher {
	api: Api,
	key: KeyPair,
	queues: Arc<Queues>,
	in_flight: VecDeque<Batch>,
	/// Since which block records of a kind are ready.
	ready_since: BTreeMap<u8, u32>,
	/// Starts that may be on chain already: from before a restart, or sent without visible effect.
	unsure: BTreeSet<(u32, u32)>,
}

/// Whether a queue of `ready` records should go out.
fn is_due(ready: usize, since: u32, now: u32) -> bool {
	ready >= MAX_BATCH as usize || (ready > 0 && now >= since.saturating_add(FLUSH_BLOCKS))
}

impl Batcher {
	/// Nothing under way.
	pub fn new(api: Api, key: KeyPair, queues: Arc<Queues>) -> Self {
		let unsure = queues.lock().starts.map().keys().copied().collect();
		Self { api, key, queues, in_flight: VecDeque::new(), ready_since: BTreeMap::new(), unsure }
	}

	/// Does what is due at this block.
	pub async fn step(&mut self, view: &View) -> Result<()> {
		let Some(me) = view.me.clone() else { return Ok(()) };
		let next = self.api.at(view.hash).lane_nonce(&me, Lane::Ledger).await?;
		self.settle(view, &me, next)?;
		self.resend(view, &me, next).await?;
		if view.my_host().is_some_and(|h| h.work > 0) {
			for kind in [CallKind::FinishMany, CallKind::StartMany, CallKind::VerdictMany] {
				self.flush(view, &me, next, kind).await?;
			}
		}
		for (name, length) in ["start", "finish", "verdict"].into_iter().zip(self.queues.lengths()) {
			metrics::gauge!("pacer_agent_queue_records", "kind" => name).set(length as f64);
		}
		Ok(())
	}

	/// Looks for the effects of batches that were included.
	fn settle(&mut self, view: &View, me: &AccountId, next: u64) -> Result<()> {
		for batch in &mut self.in_flight {
			// A reorganisation may take it back.
			batch.included_at = (batch.nonce < next).then(|| batch.included_at.unwrap_or(view.number));
		}
		while let Some(batch) = self.in_flight.pop_front_if(|b| b.included_at.is_some_and(|n| view.number >= n + SETTLE_BLOCKS)) {
			let mut lost = 0;
			for key in &batch.keys {
				if self.has_effect(view, me, key) {
					self.forget(key)?;
				} else {
					lost += 1;
					self.failed(key)?;
				}
			}
			let kind = format!("{:?}", batch.call.kind());
			tracing::debug!(nonce = batch.nonce, lost, "{kind} of {} records settled", batch.keys.len());
			metrics::counter!("pacer_agent_records_total", "kind" => kind).increment((batch.keys.len() - lost) as u64);
		}
		Ok(())
	}

	fn has_effect(&self, view: &View, me: &AccountId, key: &Key) -> bool {
		match key {
			Key::Start(payer, sequence) => {
				let id = self.queues.lock().starts.map().get(&(*payer, *sequence)).map(|s| s.id);
				id.is_none_or(|id| view.inferences.get(&id).is_some())
			},
			// What is gone was sealed.
			Key::Finish(id) => view.inferences.get(id).is_none_or(|i| i.status != InferenceStatus::Started),
			Key::Verdict(id) => view.inferences.get(id).is_none_or(|i| !wants_verdict(i, me)),
		}
	}

	fn forget(&mut self, key: &Key) -> Result<()> {
		let mut queues = self.queues.lock();
		match key {
			Key::Start(payer, sequence) => {
				self.unsure.remove(&(*payer, *sequence));
				queues.starts.remove(&(*payer, *sequence)).map(drop)
			},
			Key::Finish(id) => queues.finishes.remove(id).map(drop),
			Key::Verdict(id) => queues.verdicts.remove(id).map(drop),
		}
	}

	/// Counts a failure; drops the record when there were too many.
	fn failed(&mut self, key: &Key) -> Result<()> {
		let given_up = {
			let mut queues = self.queues.lock();
			macro_rules! count {
				($queue:ident, $key:expr) => {
					match queues.$queue.map().get(&$key).cloned() {
						Some(mut record) if record.failures + 1 < MAX_FAILURES => {
							record.failures += 1;
							queues.$queue.insert($key, record)?;
							false
						},
						_ => true,
					}
				};
			}
			match *key {
				Key::Start(payer, sequence) => {
					self.unsure.insert((payer, sequence));
					count!(starts, (payer, sequence))
				},
				Key::Finish(id) => count!(finishes, id),
				Key::Verdict(id) => count!(verdicts, id),
			}
		};
		if given_up {
			self.lose(key, "the chain did not take it")?;
		}
		Ok(())
	}

	/// Sends again what should be on chain by now.
	async fn resend(&mut self, view: &View, me: &AccountId, next: u64) -> Result<()> {
		if self.in_flight.iter().any(|b| b.nonce >= next && b.epoch != view.epoch()) {
			// Signed for an epoch that is over, and its starts for that epoch's draw: they are put together anew.
			let (kept, old): (Vec<_>, Vec<_>) = self.in_flight.drain(..).partition(|b| b.nonce < next);
			self.in_flight = kept.into();
			for key in old.iter().flat_map(|b| &b.keys) {
				if let Key::Start(payer, sequence) = key {
					self.unsure.insert((*payer, *sequence));
				}
			}
		}
		for i in 0..self.in_flight.len() {
			let batch = &self.in_flight[i];
			let outdated = batch.valid_until < view.slot();
			let waited = view.slot() >= batch.sent_at.saturating_add(RESEND_SLOTS);
			if batch.nonce >= next && (outdated || waited) {
				let (nonce, call, keys) = (batch.nonce, batch.call.clone(), batch.keys.clone());
				let valid_until = if outdated { None } else { Some(batch.valid_until) };
				self.in_flight[i] = self.send(view, me, nonce, call, keys, valid_until).await?;
			}
		}
		Ok(())
	}

	async fn send(
		&self,
		view: &View,
		me: &AccountId,
		nonce: u64,
		call: DutyCall,
		keys: Vec<Key>,
		valid_until: Option<Slot>,
	) -> Result<Batch> {
		let epoch = view.epoch();
		let valid_until = valid_until.unwrap_or(view.slot().saturating_add(VALIDITY_SLOTS));
		let header = DutyHeader { host: me.clone(), epoch, nonce, valid_until };
		match self.api.submit(self.key.sign_call(&self.api.genesis, header, call.clone())).await {
			Ok(()) | Err(Error::Refused(Refusal::Waiting | Refusal::Later | Refusal::Stale | Refusal::Future)) => {},
			Err(Error::Refused(why)) => tracing::warn!(nonce, "{:?} was refused: {}", call.kind(), why.in_words()),
			Err(e) => tracing::debug!(nonce, "{:?} could not be sent: {e}", call.kind()),
		}
		Ok(Batch { nonce, call, keys, epoch, valid_until, sent_at: view.slot(), included_at: None })
	}

	/// Makes a new batch of a kind if one is due.
	async fn flush(&mut self, view: &View, me: &AccountId, next: u64, kind: CallKind) -> Result<()> {
		if self.in_flight.len() >= MAX_IN_FLIGHT {
			return Ok(());
		}
		let busy: BTreeSet<Key> = self.in_flight.iter().flat_map(|b| b.keys.iter().copied()).collect();
		let (keys, call) = match kind {
			CallKind::StartMany => self.ready_starts(view, me, &busy).await?,
			CallKind::FinishMany => self.ready_finishes(view, me, &busy)?,
			_ => self.ready_verdicts(view, me, &busy)?,
		};
		if keys.is_empty() {
			self.ready_since.remove(&(kind as u8));
			return Ok(());
		}
		let since = *self.ready_since.entry(kind as u8).or_insert(view.number);
		// The draw changes with the epoch: what is ready goes out before.
		let is_last = view.phase() == Phase::Switch && view.slot_now() + LAST_SLOTS >= view.clock.now.phase_end;
		if is_last || is_due(keys.len(), since, view.number) {
			let nonce = self.in_flight.back().map_or(next, |b| b.nonce + 1).max(next);
			tracing::debug!(nonce, "{kind:?} of {} records goes out", keys.len());
			let batch = self.send(view, me, nonce, call, keys, None).await?;
			self.in_flight.push_back(batch);
			self.ready_since.remove(&(kind as u8));
		}
		Ok(())
	}

	async fn ready_starts(&mut self, view: &View, me: &AccountId, busy: &BTreeSet<Key>) -> Result<(Vec<Key>, DutyCall)> {
		let queued: Vec<_> = self.queues.lock().starts.map().iter().map(|(k, s)| (*k, s.clone())).collect();
		let api = self.api.at(view.hash);
		// By payer: the lowest number that neither the chain nor a batch has.
		let mut lowest: BTreeMap<u32, u32> = BTreeMap::new();
		let (mut keys, mut records) = (Vec::new(), Vec::new());
		for ((payer, sequence), start) in queued {
			if records.len() >= MAX_BATCH as usize {
				break;
			}
			let key = Key::Start(payer, sequence);
			let next = match lowest.get(&payer) {
				Some(next) => *next,
				None => match api.payer_of(&start.developer, start.is_by_key.then_some(me)).await? {
					Some(payer) => payer.next_sequence,
					None => continue,
				},
			};
			lowest.insert(payer, next);
			if !busy.contains(&key) {
				let maybe_recorded = sequence < next || self.unsure.contains(&(payer, sequence));
				if maybe_recorded && view.inferences.get(&start.id).is_some() {
					self.forget(&key)?;
					continue;
				}
				if sequence < next {
					self.lose(&key, "its number was used by another inference")?;
					continue;
				}
				if sequence >= next.saturating_add(SEQUENCE_WINDOW) {
					continue;
				}
				let StartRecord { attempt, model, .. } = start.record;
				let Some(attempt) = draw::attempt_for(view, &start.id, attempt, me, model, &start.executor) else {
					self.lose(&key, "it came too late for this epoch's draw")?;
					continue;
				};
				keys.push(key);
				records.push(StartRecord { attempt, ..start.record });
			}
			if sequence == next {
				lowest.insert(payer, sequence.saturating_add(1));
			}
		}
		Ok((keys, DutyCall::StartMany { records }))
	}

	fn ready_finishes(&mut self, view: &View, me: &AccountId, busy: &BTreeSet<Key>) -> Result<(Vec<Key>, DutyCall)> {
		let queued: Vec<_> = self.queues.lock().finishes.map().iter().map(|(id, f)| (*id, f.clone())).collect();
		let (mut keys, mut records) = (Vec::new(), Vec::<(BatchKey, u16, FinishRecord)>::new());
		for (id, finish) in queued.into_iter().filter(|(id, _)| !busy.contains(&Key::Finish(*id))) {
			if records.len() >= MAX_BATCH as usize {
				break;
			}
			let Some(i) = view.inferences.get(&id) else {
				if view.slot() > finish.since.saturating_add(FINISH_WAIT_SLOTS) {
					self.lose(&Key::Finish(id), "the transfer agent never recorded it")?;
				}
				continue;
			};
			if i.executor != *me {
				self.lose(&Key::Finish(id), "the chain drew another executor")?;
			} else if i.start.request != finish.request {
				self.lose(&Key::Finish(id), "the transfer agent recorded another request")?;
			} else if i.status != InferenceStatus::Started {
				self.forget(&Key::Finish(id))?;
			} else {
				keys.push(Key::Finish(id));
				records.push((i.batch.clone(), i.index, finish.record));
			}
		}
		records.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
		Ok((keys, DutyCall::FinishMany { records }))
	}

	fn ready_verdicts(&mut self, view: &View, me: &AccountId, busy: &BTreeSet<Key>) -> Result<(Vec<Key>, DutyCall)> {
		let queued: Vec<_> = self.queues.lock().verdicts.map().iter().map(|(id, v)| (*id, v.clone())).collect();
		let (mut keys, mut records) = (Vec::new(), Vec::new());
		for (id, verdict) in queued.into_iter().filter(|(id, _)| !busy.contains(&Key::Verdict(*id))) {
			if records.len() >= MAX_BATCH as usize {
				break;
			}
			if view.inferences.get(&id).is_some_and(|i| wants_verdict(i, me)) {
				keys.push(Key::Verdict(id));
				records.push(verdict.record);
			} else {
				self.forget(&Key::Verdict(id))?;
			}
		}
		records.sort_by(|a, b| (&a.batch, a.index).cmp(&(&b.batch, b.index)));
		Ok((keys, DutyCall::VerdictMany { records }))
	}

	/// Drops a record that can earn nothing any more.
	fn lose(&mut self, key: &Key, why: &str) -> Result<()> {
		tracing::warn!("{key:?} is given up: {why}");
		metrics::counter!("pacer_agent_records_lost_total").increment(1);
		self.forget(key)
	}
}

/// Whether a verdict of `me` on the inference would still change something.
pub fn wants_verdict(inference: &InferenceView, me: &AccountId) -> bool {
	inference.status == InferenceStatus::Finished && !inference.verdicts.iter().any(|(who, _)| who == me)
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
