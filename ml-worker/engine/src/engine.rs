//! The engine proper: requests come in over a channel, one thread runs the model step by step, events go out.
//!
//! A step is: drop what nobody waits for, schedule, run the batch, sample and report. The thread that runs [`Engine`]
//! owns the model; everyone else holds an [`EngineHandle`]. A client that goes away closes its event channel, and its
//! blocks are free before the next batch is planned.

use crate::answer::Answer;
use crate::handle::{Alive, Command, Ticket};
use crate::runner::{LogitRows, ModelRunner, RunInput};
use crate::scheduler::{Plan, PlanItem, Refusal, Scheduler, SchedulerConfig};
use crate::sequence::{Goal, SeqId, Sequence};
use crate::tokenizer::Tokenizer;
use pacer_artifact::sampler::{Scratch, Vocabulary};
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::Arc;

pub use crate::handle::{EngineError, EngineHandle, Event, Generate, Load, RowSink, Score, TokenLogProbs};

/// Limits and facts an engine is started with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Limits of the batch and the cache.
    pub scheduler: SchedulerConfig,
    /// Longest sequence the model takes, in tokens.
    pub max_model_len: usize,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

enum Work {
    Answer(Box<Answer>),
    Score(Score),
}

impl Work {
    fn abandoned(&self) -> bool {
        match self {
            Self::Answer(answer) => answer.abandoned(),
            Self::Score(score) => score.done.is_closed(),
        }
    }

    fn fail(self, error: EngineError) {
        match self {
            Self::Answer(answer) => answer.send(Event::Failed(error)),
            // A receiver that is gone needs no message.
            Self::Score(score) => drop(score.done.send(Err(error))),
        }
    }
}

/// See the module's header.
pub struct Engine<R> {
    runner: R,
    scheduler: Scheduler,
    tokenizer: Arc<Tokenizer>,
    vocabulary: Vocabulary,
    max_model_len: usize,
    work: BTreeMap<SeqId, (Ticket, Work)>,
    scratch: Scratch,
    next_id: u64,
    commands: Receiver<(Ticket, Command)>,
}

/// Starts the device thread. It ends when every [`EngineHandle`] is dropped and the accepted work is done.
pub fn spawn<R: ModelRunner + 'static>(
    runner: R,
    tokenizer: Arc<Tokenizer>,
    config: EngineConfig,
) -> std::io::Result<(EngineHandle, std::thread::JoinHandle<()>)> {
    let limit = config.scheduler.max_num_seqs + config.scheduler.max_waiting;
    // The bound is kept by the handle, before a request costs anything.
    let (handle, commands) = EngineHandle::new(limit);
    let scheduler = SchedulerConfig { max_waiting: limit, ..config.scheduler };
    let size = runner.vocab_size();
    let mut engine = Engine {
        vocabulary: Vocabulary { size, usable: tokenizer.vocab_size().min(size), eos: config.eos },
        scheduler: Scheduler::new(scheduler),
        runner,
        tokenizer,
        max_model_len: config.max_model_len,
        work: BTreeMap::new(),
        scratch: Scratch::default(),
        next_id: 0,
        commands,
    };
    let alive = Alive(handle.load());
    let thread = std::thread::Builder::new().name("device".into()).spawn(move || {
        let _alive = alive;
        engine.run();
    })?;
    Ok((handle, thread))
}

impl<R: ModelRunner> Engine<R> {
    fn run(&mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            if !self.work.is_empty() {
                self.step();
                continue;
            }
            match self.commands.recv() {
                Ok(command) => self.take(command),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, (ticket, command): (Ticket, Command)) {
        self.next_id += 1;
        let id = SeqId(self.next_id);
        let (work, tokens, goal) = match command {
            Command::Score(mut score) => {
                let tokens = std::mem::take(&mut score.tokens);
                let goal = Goal::Score { from: score.from };
                (Work::Score(score), tokens, goal)
            }
            Command::Generate(mut request) => {
                let prompt = std::mem::take(&mut request.prompt);
                let goal = Goal::Generate { max_tokens: request.params.max_tokens as usize };
                let Some(answer) = Answer::start(request, &prompt, self.vocabulary.clone()) else { return };
                (Work::Answer(Box::new(answer)), prompt, goal)
            }
        };
        metrics::counter!("pacer_engine_prompt_tokens_total").increment(tokens.len() as u64);
        let sequence = Sequence::new(id, tokens, goal);
        let (needed_tokens, available_tokens) = (sequence.max_len(), self.max_model_len);
        let added = if needed_tokens > available_tokens {
            Err(Refusal::TooLong { needed_tokens, available_tokens })
        } else {
            self.scheduler.add(sequence)
        };
        match added {
            Ok(()) => drop(self.work.insert(id, (ticket, work))),
            Err(refusal) => work.fail(refusal.into()),
        }
    }

    /// One round of the loop: drop the abandoned, schedule, run, report.
    fn step(&mut self) {
        let gone: Vec<_> = self.work.iter().filter(|(_, (_, work))| work.abandoned()).map(|(id, _)| *id).collect();
        metrics::counter!("pacer_engine_requests_cancelled_total").increment(gone.len() as u64);
        // They count as in flight until everything that tells of them is up to date.
        let _leaving: Vec<_> = gone.into_iter().filter_map(|id| self.remove(id)).collect();
        let plan = self.scheduler.schedule();
        for id in &plan.preempted {
            self.runner.release(*id);
            metrics::counter!("pacer_engine_preemptions_total").increment(1);
        }
        if !plan.items.is_empty() {
            match self.run_batch(&plan) {
                Ok(rows) => self.report(&plan, &rows),
                Err(error) => self.fail_batch(&plan, error),
            }
        }
        self.gauges();
    }

    fn run_batch(&mut self, plan: &Plan) -> Result<LogitRows, EngineError> {
        let mut batch = Vec::with_capacity(plan.items.len());
        for item in &plan.items {
            let Some(sequence) = self.scheduler.get(item.seq) else { continue };
            batch.push(RunInput {
                seq: item.seq,
                start: item.start,
                tokens: &sequence.tokens[item.start..item.start + item.len],
                logits: item.logits.clone(),
                reserved_tokens: item.reserved_tokens,
            });
        }
        self.runner.forward(&batch).map_err(|error| EngineError::Model(error.to_string()))
    }

    fn report(&mut self, plan: &Plan, rows: &LogitRows) {
        let mut next_row = 0;
        for item in &plan.items {
            self.scheduler.computed(item);
            let first = next_row;
            next_row += item.logits.len();
            if self.report_item(item, rows, first) {
                self.remove(item.seq);
            }
        }
    }

    /// Hands one item's rows on; true if its sequence is done.
    fn report_item(&mut self, item: &PlanItem, rows: &LogitRows, first_row: usize) -> bool {
        let Some((ticket, work)) = self.work.get_mut(&item.seq) else { return true };
        match work {
            Work::Score(score) => {
                for (index, position) in item.logits.clone().enumerate() {
                    (score.rows)(position, rows.row(first_row + index));
                }
                if self.scheduler.get(item.seq).is_some_and(|sequence| sequence.pending() > 0) {
                    return false;
                }
                if let Some((_ticket, Work::Score(score))) = self.work.remove(&item.seq) {
                    let _ = score.done.send(Ok(()));
                }
                true
            }
            Work::Answer(_) if item.logits.is_empty() => false,
            Work::Answer(answer) => {
                let (token, done) = answer.advance(rows.row(first_row), &self.tokenizer, &mut self.scratch);
                if let Some(token) = token {
                    if answer.tokens() == 1 {
                        metrics::histogram!("pacer_engine_ttft_seconds").record(ticket.arrived.elapsed());
                    }
                    metrics::counter!("pacer_engine_generation_tokens_total").increment(1);
                    self.scheduler.push_token(item.seq, token);
                }
                if done {
                    metrics::histogram!("pacer_engine_request_seconds").record(ticket.arrived.elapsed());
                }
                done
            }
        }
    }

    /// A failed batch leaves the caches of its sequences undefined, so all of them fail; the others go on.
    fn fail_batch(&mut self, plan: &Plan, error: EngineError) {
        tracing::error!(%error, sequences = plan.items.len(), "a batch failed");
        for item in &plan.items {
            if let Some((_ticket, work)) = self.remove(item.seq) {
                work.fail(error.clone());
            }
        }
    }

    fn remove(&mut self, id: SeqId) -> Option<(Ticket, Work)> {
        self.scheduler.remove(id);
        self.runner.release(id);
        self.work.remove(&id)
    }

    fn gauges(&self) {
        let (used, total) = self.scheduler.blocks();
        metrics::gauge!("pacer_engine_requests_waiting").set(self.scheduler.waiting() as f64);
        metrics::gauge!("pacer_engine_requests_running").set(self.scheduler.running() as f64);
        metrics::gauge!("pacer_engine_kv_blocks_used").set(used as f64);
        metrics::gauge!("pacer_engine_kv_blocks_total").set(total as f64);
    }
}
