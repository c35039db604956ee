//! The engine proper: requests come in over a channel, one thread runs the model step by step, events go out.
//!
//! A step is: drop what nobody waits for, schedule, run the batch, sample and report. The thread that runs [`Engine`]
//! owns the model; everyone else holds an [`EngineHandle`]. A client that goes away closes its event channel, and its
//! blocks are free before the next batch is planned.

use crate::answer::Answer;
use crate::draw::{draw_all, Draw, Scratches};
use crate::handle::{Alive, Command, Ticket};
use crate::meters;
use crate::runner::{ModelRunner, RunInput, RunOutput, Want};
use crate::scheduler::{Plan, PlanItem, Refusal, Scheduler, SchedulerConfig};
use crate::sequence::{Goal, SeqId, Sequence};
use crate::tokenizer::Tokenizer;
use crate::work::{Answering, Embedding, Kind, Prompt, Work};
use pacer_artifact::sampler::Vocabulary;
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::Arc;
use std::time::Instant;

pub use crate::cache::prefix::Tenant;
pub use crate::handle::{EngineHandle, Load};
pub use crate::request::{Embed, EngineError, Event, Generate, Pooling, RowSink, Score, TokenLogProbs};

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

/// See the module's header.
pub struct Engine<R> {
    runner: R,
    scheduler: Scheduler,
    tokenizer: Arc<Tokenizer>,
    vocabulary: Vocabulary,
    max_model_len: usize,
    work: BTreeMap<SeqId, Work>,
    scratch: Scratches,
    next_id: u64,
    commands: Receiver<Command>,
}

/// Starts the device thread. It ends when every [`EngineHandle`] is dropped and the accepted work is done.
///
/// # Errors
/// If the cache finds no room, or the thread cannot be started.
pub fn spawn<R: ModelRunner + 'static>(
    mut runner: R,
    tokenizer: Arc<Tokenizer>,
    config: EngineConfig,
) -> std::io::Result<(EngineHandle, std::thread::JoinHandle<()>)> {
    runner.allocate(config.scheduler.kv_blocks, config.scheduler.block_tokens).map_err(std::io::Error::other)?;
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
        scratch: Scratches::default(),
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

    /// One round of the loop: drop the abandoned, schedule, run, report.
    fn step(&mut self) {
        // They count as in flight until everything that tells of them is up to date.
        let _leaving = self.drop_useless();
        let plan = self.scheduler.schedule();
        if !plan.items.is_empty() {
            match self.run_batch(&plan) {
                Ok(output) => self.report(&plan, &output),
                Err(error) => self.fail_batch(&plan, error),
            }
        }
        meters::state(&self.scheduler);
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Generate(group) => self.take_choices(group),
            Command::Score(ticket, mut score) => {
                let (tokens, goal) = (std::mem::take(&mut score.tokens), Goal::Score { from: score.from });
                let sequence = Sequence::new(self.next_id(), tokens, goal).of(score.tenant, None);
                self.add(vec![(
                    sequence,
                    Work { ticket, deadline: None, adapter: score.adapter, kind: Kind::Score(score) },
                )]);
            }
            Command::Embed(ticket, mut embed) => {
                let goal = Goal::Embed { every: embed.pooling == crate::request::Pooling::Mean };
                let tokens = std::mem::take(&mut embed.tokens);
                let sequence = Sequence::new(self.next_id(), tokens, goal).of(embed.tenant, None);
                self.add(vec![(
                    sequence,
                    Work { ticket, deadline: None, adapter: embed.adapter, kind: Kind::Embed(Embedding::new(embed)) },
                )]);
            }
        }
    }

    fn take_choices(&mut self, group: Vec<(Ticket, Generate)>) {
        let mut added: Vec<(Sequence, Work)> = Vec::with_capacity(group.len());
        for (ticket, mut request) in group {
            let prompt = std::mem::take(&mut request.prompt);
            let goal = Goal::Generate {
                max_tokens: request.params.max_tokens as usize,
                prompt_rows: request.prompt_logprobs.is_some() && added.is_empty(),
            };
            let (tenant, salt, deadline, adapter) = (request.tenant, request.salt(), request.deadline, request.adapter);
            let rows = Prompt { top: request.prompt_logprobs.filter(|_| added.is_empty()), ..Prompt::default() };
            // One that cannot start was told so.
            let Some(answer) = Answer::start(request, &prompt, self.vocabulary.clone()) else { continue };
            let answering = Answering { answer, prompt: rows, last_token: None };
            let sequence = Sequence::new(self.next_id(), prompt, goal).of(tenant, Some(salt));
            added.push((sequence, Work { ticket, deadline, adapter, kind: Kind::Answer(Box::new(answering)) }));
        }
        self.add(added);
    }

    fn next_id(&mut self) -> SeqId {
        self.next_id += 1;
        SeqId(self.next_id)
    }

    fn add(&mut self, group: Vec<(Sequence, Work)>) {
        let (sequences, work): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let Some(first) = sequences.first() else { return };
        meters::prompt(first.tokens.len());
        let (needed_tokens, available_tokens) = (first.max_len(), self.max_model_len);
        let ids: Vec<_> = sequences.iter().map(|sequence| sequence.id).collect();
        let added = if needed_tokens > available_tokens {
            Err(Refusal::TooLong { needed_tokens, available_tokens })
        } else {
            self.scheduler.add_group(sequences)
        };
        match added {
            Ok(()) => self.work.extend(ids.into_iter().zip(work)),
            Err(refusal) => work.into_iter().for_each(|work| drop(work.fail(refusal.into()))),
        }
    }

    /// Removes what nobody waits for and what is too late.
    fn drop_useless(&mut self) -> Vec<Ticket> {
        let now = Instant::now();
        let (mut cancelled, mut late, mut tickets) = (0, 0, Vec::new());
        let useless: Vec<_> =
            self.work.iter().filter(|(_, work)| work.abandoned() || work.late(now)).map(|(id, _)| *id).collect();
        for work in useless.into_iter().filter_map(|id| self.remove(id)) {
            match work.abandoned() {
                true => cancelled += 1,
                false => late += 1,
            }
            tickets.push(work.fail(EngineError::Deadline));
        }
        meters::dropped(cancelled, late);
        tickets
    }

    fn run_batch(&mut self, plan: &Plan) -> Result<RunOutput, EngineError> {
        let mut batch = Vec::with_capacity(plan.items.len());
        for item in &plan.items {
            let Some(sequence) = self.scheduler.get(item.seq) else { continue };
            batch.push(RunInput {
                start: item.start,
                tokens: &item.tokens,
                rows: item.rows.clone(),
                want: self.work.get(&item.seq).map_or(Want::Logits, Work::want),
                blocks: sequence.table.blocks(),
                adapter: self.work.get(&item.seq).and_then(|work| work.adapter),
            });
        }
        self.runner.forward(&plan.copies, &batch).map_err(|error| EngineError::Model(error.to_string()))
    }

    fn report(&mut self, plan: &Plan, output: &RunOutput) {
        let (mut logits, mut hidden) = (0, 0);
        let mut draws = Vec::new();
        for item in &plan.items {
            let is_hidden = self.work.get(&item.seq).is_some_and(|work| work.want() == Want::Hidden);
            let (rows, next) = if is_hidden { (&output.hidden, &mut hidden) } else { (&output.logits, &mut logits) };
            let own: Vec<&[f32]> = (*next..*next + item.rows.len()).map(|index| rows.row(index)).collect();
            *next += item.rows.len();
            self.scheduler.computed(item);
            self.report_item(item, &own, &mut draws);
        }
        draw_all(&mut draws, &self.tokenizer, &self.scratch);
        let now = Instant::now();
        draws.into_iter().for_each(|draw| self.take_back(draw, now));
    }

    /// Hands one item's rows on; those that tokens are to be drawn from go to `draws`.
    fn report_item<'a>(&mut self, item: &'a PlanItem, rows: &[&'a [f32]], draws: &mut Vec<Draw<'a>>) {
        let Some(sequence) = self.scheduler.get(item.seq) else { return };
        let over = sequence.pending() == 0;
        let Some(work) = self.work.get_mut(&item.seq) else { return };
        match &mut work.kind {
            Kind::Score(score) => {
                if !rows.is_empty() {
                    (score.rows)(item.rows.start, rows);
                }
                if over {
                    if let Some(Work { kind: Kind::Score(score), ticket: _ticket, .. }) = self.remove(item.seq) {
                        let _ = score.done.send(Ok(()));
                    }
                }
            }
            Kind::Embed(embedding) => {
                item.rows.clone().zip(rows).for_each(|(position, row)| embedding.take(position, row));
                if over {
                    if let Some(Work { kind: Kind::Embed(done), ticket: _ticket, .. }) = self.remove(item.seq) {
                        let vector = done.vector();
                        let _ = done.request.done.send(vector);
                    }
                }
            }
            Kind::Answer(answering) => {
                // The last row of a text that is known so far is the one to go on from; those before are the prompt's.
                let known = item.start + item.certain == sequence.tokens.len();
                let prompt =
                    if known { rows.len().saturating_sub(item.tokens.len() - item.certain + 1) } else { rows.len() };
                for (position, row) in item.rows.clone().zip(&rows[..prompt]) {
                    let taken = answering.prompt.take(position, row, &sequence.tokens, sequence.prompt_tokens);
                    if let Err(error) = taken {
                        return self.fail(item.seq, error);
                    }
                }
                if known && prompt < rows.len() {
                    let followers = self.scheduler.fork(item.seq);
                    draws.extend(self.lend(item.seq, &rows[prompt..], Some(item)));
                    // Later than the first, which is told what they have in common.
                    for follower in followers {
                        draws.extend(self.lend(follower, &rows[prompt..=prompt], None));
                    }
                }
            }
        }
    }

    /// Takes an answer out of the engine's hands for as long as its next tokens are chosen. One that begins is told what
    /// is known of its prompt.
    fn lend<'a>(&mut self, id: SeqId, rows: &[&'a [f32]], item: Option<&'a PlanItem>) -> Option<Draw<'a>> {
        let sequence = self.scheduler.get(id)?;
        let (begins, cached_tokens) = (sequence.tokens.len() == sequence.prompt_tokens, sequence.cached_tokens);
        let mut work = self.work.remove(&id)?;
        if let Kind::Answer(answering) = &mut work.kind {
            if begins {
                let logprobs = std::mem::take(&mut answering.prompt.found);
                answering.answer.send(Event::Prompt { cached_tokens, logprobs });
            }
        }
        let guesses = item.map_or(&[][..], |item| &item.tokens[item.certain..]);
        Some(Draw { id, work, rows: rows.to_vec(), guesses, item, tokens: Vec::new(), accepted: 0, over: false })
    }

    /// Notes what was chosen. An answer that is done is removed.
    fn take_back(&mut self, draw: Draw<'_>, now: Instant) {
        let Draw { id, mut work, item, tokens, accepted, over, .. } = draw;
        tokens.iter().for_each(|token| self.scheduler.push_token(id, *token));
        if let Kind::Answer(answering) = &mut work.kind {
            meters::tokens(tokens.len(), work.ticket.arrived, answering.last_token.replace(now), now);
        }
        if let Some(item) = item {
            self.scheduler.accepted(item, accepted);
        }
        if over {
            meters::finished(work.ticket.arrived);
            // The ticket is held until its blocks are free.
            self.scheduler.remove(id);
            return;
        }
        self.work.insert(id, work);
    }

    /// A failed batch leaves the blocks that its sequences wrote undefined, so all of them fail; the others go on.
    fn fail_batch(&mut self, plan: &Plan, error: EngineError) {
        tracing::error!(%error, sequences = plan.items.len(), "a batch failed");
        plan.items.iter().for_each(|item| self.fail(item.seq, error.clone()));
    }

    fn fail(&mut self, id: SeqId, error: EngineError) {
        if let Some(work) = self.remove(id) {
            work.fail(error);
        }
    }

    fn remove(&mut self, id: SeqId) -> Option<Work> {
        self.scheduler.remove(id);
        self.work.remove(&id)
    }
}
