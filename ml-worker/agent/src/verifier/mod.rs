//! Verifies what others executed (`design/inference.md`, "Verification"; `design/economy.md`, "Who verifies").
//!
//! - [`duty`]: which inferences this Host must verify, from its secret seed.
//! - [`check`]: fetches what the executor keeps and has an engine judge it.
//!
//! Life cycle: a finished inference that duty names, or one under re-verification, becomes a job; a few jobs run at a
//! time; a job that cannot reach the executor is tried again until patience ends, then it is *withheld*. The verdict goes
//! to the queue of records, the vote out as a one-shot fact. Without an engine there is no verdict: abstaining is not
//! rejecting.

pub mod check;
pub mod duty;

use std::{collections::BTreeMap, sync::Arc};

use pacer_types::{
	ledger::{InferenceStatus, InferenceView, Verdict, VerdictRecord},
	AccountId, DutyCall, InferenceId, Phase, Slot,
};
use tokio::task::JoinSet;

use crate::{
	app::App,
	chain::{once::OneShots, View},
	error::Result,
	ledger::batcher::wants_verdict,
};
use check::Outcome;
use duty::Duties;

/// Verifications at a time.
const CONCURRENT: usize = 4;
/// Slots after which an executor that does not serve is judged as withholding.
const PATIENCE_SLOTS: u64 = 24;
/// Slots between two attempts.
const RETRY_SLOTS: u64 = 4;
/// Most jobs at a time.
const MAX_JOBS: usize = 10_000;

#[derive(Clone, Debug)]
struct Job {
	since: Slot,
	next_try: Slot,
	is_running: bool,
	verdict: Option<Verdict>,
}

/// Verifies for one Host.
pub struct Verifier {
	app: Arc<App>,
	once: OneShots,
	duties: Duties,
	jobs: BTreeMap<InferenceId, Job>,
	running: JoinSet<(InferenceId, Outcome)>,
}

impl Verifier {
	/// Nothing to do yet.
	pub fn new(app: Arc<App>, once: OneShots) -> Self {
		let duties = Duties::new(app.api.clone(), app.key.clone());
		Self { app, once, duties, jobs: BTreeMap::new(), running: JoinSet::new() }
	}

	/// Does what is due at this block.
	pub async fn step(&mut self, view: &Arc<View>) -> Result<()> {
		let Some(me) = view.me.clone() else { return Ok(()) };
		self.duties.update(view, &me).await?;
		if view.phase() == Phase::Audit {
			if let Some(reveal) = self.duties.reveal(view.epoch()) {
				self.once.ensure(view, reveal).await;
			}
		}
		self.find(view, &me);
		self.collect(view);
		self.start(view);
		self.deliver(view, &me).await?;
		metrics::gauge!("pacer_agent_verifications_waiting").set(self.jobs.len() as f64);
		Ok(())
	}

	/// Makes jobs of what has to be verified, and drops those that nobody needs any more.
	fn find(&mut self, view: &View, me: &AccountId) {
		let duties = &self.duties;
		let is_due = |i: &InferenceView| match i.status {
			InferenceStatus::Finished => wants_verdict(i, me) && duties.must_verify(view, i, me),
			InferenceStatus::Reverifying => !i.verdicts.iter().any(|(who, _)| who == me) && duties.may_judge(view, i, me),
			_ => false,
		};
		self.jobs.retain(|id, job| job.is_running || view.inferences.get(id).is_some_and(is_due));
		for inference in view.inferences.iter().filter(|i| is_due(i)) {
			if self.jobs.len() >= MAX_JOBS {
				return;
			}
			let slot = view.slot();
			self.jobs.entry(inference.id).or_insert(Job { since: slot, next_try: slot, is_running: false, verdict: None });
		}
	}

	/// Takes over what finished checks found.
	fn collect(&mut self, view: &View) {
		while let Some(done) = self.running.try_join_next() {
			// A check that panicked stays marked as running and is dropped with its inference.
			let Ok((id, outcome)) = done else { continue };
			let Some(job) = self.jobs.get_mut(&id) else { continue };
			job.is_running = false;
			job.next_try = view.slot().saturating_add(RETRY_SLOTS);
			match outcome {
				Outcome::Judged(verdict) => {
					let name = if verdict.is_pass() { "pass" } else { "fail" };
					metrics::counter!("pacer_agent_verifications_total", "verdict" => name).increment(1);
					if verdict.is_pass() {
						tracing::debug!("{id:?} passes");
					} else {
						tracing::warn!("{id:?} does not pass: {verdict:?}");
					}
					job.verdict = Some(verdict);
				},
				Outcome::Silent(why) if view.slot() >= job.since.saturating_add(PATIENCE_SLOTS) => {
					tracing::warn!("the executor of {id:?} does not serve what is needed to judge: {why}");
					metrics::counter!("pacer_agent_verifications_total", "verdict" => "withheld").increment(1);
					job.verdict = Some(Verdict::Withheld);
				},
				Outcome::Silent(why) => tracing::debug!("{id:?}: {why}; trying again"),
				Outcome::Unable(why) => tracing::debug!("{id:?} cannot be judged now: {why}"),
			}
		}
	}

	/// Starts checks, those that are due longest first: one that is tried again and again keeps no other from its turn.
	fn start(&mut self, view: &Arc<View>) {
		let slot = view.slot();
		let mut waiting: Vec<_> =
			self.jobs.iter_mut().filter(|(_, j)| !j.is_running && j.verdict.is_none() && slot >= j.next_try).collect();
		waiting.sort_by_key(|(_, j)| j.next_try);
		for (id, job) in waiting.into_iter().take(CONCURRENT.saturating_sub(self.running.len())) {
			let Some(inference) = view.inferences.get(id).cloned() else { continue };
			job.is_running = true;
			let (app, view) = (self.app.clone(), view.clone());
			self.running.spawn(async move { (inference.id, check::check(&app, &view, &inference).await) });
		}
	}

	/// Tells the chain.
	async fn deliver(&mut self, view: &View, me: &AccountId) -> Result<()> {
		let is_voting = self.jobs.iter().any(|(id, j)| {
			let status = view.inferences.get(id).map(|i| i.status);
			j.verdict.is_some() && status == Some(InferenceStatus::Reverifying)
		});
		let rechecks = if is_voting { self.app.api.at(view.hash).open_rechecks().await? } else { Vec::new() };
		for (id, job) in &mut self.jobs {
			let (Some(verdict), Some(i)) = (job.verdict.clone(), view.inferences.get(id)) else { continue };
			if i.status == InferenceStatus::Reverifying {
				let claims_fraud = rechecks.iter().any(|(key, index, fraud, _)| *key == i.batch && *index == i.index && *fraud);
				if let Some(pass) = vote(&verdict, claims_fraud) {
					let vote = DutyCall::VoteInference { batch: i.batch.clone(), index: i.index, pass };
					self.once.ensure(view, vote).await;
				}
			} else if wants_verdict(i, me) && !self.app.queues.lock().verdicts.map().contains_key(id) {
				let record = VerdictRecord { batch: i.batch.clone(), index: i.index, verdict };
				self.app.queues.verdict(*id, record)?;
			}
		}
		Ok(())
	}
}

/// How a finding votes; `None` abstains. Where fraud is claimed a vote against the executor says that it is fraud, which
/// statistics and silence do not show.
fn vote(verdict: &Verdict, claims_fraud: bool) -> Option<bool> {
	match verdict {
		Verdict::Pass => Some(true),
		Verdict::Fraud => Some(false),
		Verdict::Fail { .. } | Verdict::Withheld => (!claims_fraud).then_some(false),
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn vote_should_call_fraud_only_what_is_fraud() {
		let fail = Verdict::Fail { choice: 1, distribution: 1 };
		for claims_fraud in [true, false] {
			assert_eq!(vote(&Verdict::Pass, claims_fraud), Some(true));
			assert_eq!(vote(&Verdict::Fraud, claims_fraud), Some(false));
		}
		assert_eq!((vote(&fail, true), vote(&fail, false)), (None, Some(false)));
		assert_eq!((vote(&Verdict::Withheld, true), vote(&Verdict::Withheld, false)), (None, Some(false)));
	}
}
