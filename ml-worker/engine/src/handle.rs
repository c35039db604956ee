//! The engine as others see it: what can be asked of it, what it answers, and how busy it is.

use crate::grammar::Grammar;
use crate::scheduler::Refusal;
use pacer_artifact::{FinishReason, Position, SamplingKey, SamplingParams};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The scheduler would not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Parameters the sampler cannot use.
    #[error("{0}")]
    Params(String),
    /// No token was possible, or the logits were broken.
    #[error("sampling failed: {0}")]
    Sampling(String),
    /// The model failed in this step.
    #[error("the model failed: {0}")]
    Model(String),
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    Stopped,
}

/// An answer wanted.
pub struct Generate {
    /// Prompt tokens.
    pub prompt: Vec<u32>,
    /// How to pick tokens and when to stop; canonical.
    pub params: SamplingParams,
    /// The grammar of `params.constraint`, fresh; `None` exactly if that is [`Constraint::None`].
    ///
    /// [`Constraint::None`]: pacer_artifact::Constraint::None
    pub grammar: Option<Grammar>,
    /// Key of the noise.
    pub key: SamplingKey,
    /// Log-probabilities of this many likeliest tokens with every token; `None`: none at all.
    pub top_logprobs: Option<usize>,
    /// Whether to record every position, for an artifact.
    pub record: bool,
    /// Which of the request's choices this is; comes back with every event.
    pub choice: u32,
    /// Where events go. Closing it cancels.
    pub events: UnboundedSender<(u32, Event)>,
}

/// Receives the wanted rows of a scored text: position, then its f32 logits. Runs on the device thread: be quick.
pub type RowSink = Box<dyn FnMut(usize, &[f32]) + Send>;

/// Logits of a given text wanted (teacher-forced).
pub struct Score {
    /// The text.
    pub tokens: Vec<u32>,
    /// First position whose logits are wanted. The row of position `p` predicts token `p + 1`.
    pub from: usize,
    /// Where rows go.
    pub rows: RowSink,
    /// Told when every row was given, or why not. Closing it cancels.
    pub done: tokio::sync::oneshot::Sender<Result<(), EngineError>>,
}

/// Log-probabilities of one position, natural logarithms of the raw distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogProbs {
    /// Of the chosen token.
    pub chosen: f64,
    /// Of the likeliest tokens, likeliest first.
    pub top: Vec<(u32, f64)>,
}

/// What happens to an answer.
#[derive(Clone, Debug)]
pub enum Event {
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// Text that became whole with it; may be empty.
        text: String,
        /// If asked for.
        logprobs: Option<TokenLogProbs>,
        /// If asked for.
        position: Option<Position>,
    },
    /// The answer is complete.
    Finished {
        /// Text held back until now.
        text: String,
        /// Why it ended.
        reason: FinishReason,
    },
    /// The answer failed.
    Failed(EngineError),
}

pub(crate) enum Command {
    Generate(Generate),
    Score(Score),
}

/// How busy the engine is, readable from any thread.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicUsize,
    stopped: AtomicBool,
    idle_lock: Mutex<()>,
    idle: Condvar,
}

impl Load {
    /// Requests accepted and not finished. While this is not zero, background work yields.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether the device thread has ended, by shutdown or by a fault.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Blocks until no request is in flight, or `patience` is over. Background work calls it between its steps.
    pub fn wait_idle_for(&self, patience: Duration) {
        let guard = self.idle_lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.idle.wait_timeout_while(guard, patience, |()| self.in_flight() > 0));
    }

    /// Blocks until no request is in flight.
    pub fn wait_idle(&self) {
        let mut guard = self.idle_lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.in_flight() > 0 {
            guard = self.idle.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn leave(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Taking the lock means a waiter either sees zero or is already waiting to be woken.
            let _guard = self.idle_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.idle.notify_all();
        }
    }
}

/// One accepted request; counts as in flight until dropped.
pub(crate) struct Ticket {
    load: Arc<Load>,
    pub(crate) arrived: Instant,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.load.leave();
    }
}

/// Says that the device thread has ended, even if it ends by a panic.
pub(crate) struct Alive(pub(crate) Arc<Load>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
    }
}

/// The way to the engine, cheap to clone. The engine stops when every handle is gone and its work is done.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<(Ticket, Command)>,
    load: Arc<Load>,
    limit: usize,
}

impl EngineHandle {
    /// A handle that admits `limit` requests at once, and where its commands come out.
    pub(crate) fn new(limit: usize) -> (Self, Receiver<(Ticket, Command)>) {
        let (commands, receiver) = channel();
        (Self { commands, load: Arc::default(), limit }, receiver)
    }

    /// Asks for an answer. Refused at once if the queue is full.
    pub fn generate(&self, request: Generate) -> Result<(), EngineError> {
        self.submit(Command::Generate(request))
    }

    /// Asks for the logits of a text. Refused at once if the queue is full.
    pub fn score(&self, request: Score) -> Result<(), EngineError> {
        self.submit(Command::Score(request))
    }

    /// How busy the engine is.
    pub fn load(&self) -> Arc<Load> {
        self.load.clone()
    }

    fn submit(&self, command: Command) -> Result<(), EngineError> {
        let full = |waiting| (waiting < self.limit).then_some(waiting + 1);
        if let Err(waiting) = self.load.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, full) {
            metrics::counter!("pacer_engine_requests_refused_total").increment(1);
            return Err(Refusal::QueueFull { waiting }.into());
        }
        let ticket = Ticket { load: self.load.clone(), arrived: Instant::now() };
        self.commands.send((ticket, command)).map_err(|_| EngineError::Stopped)
    }
}
