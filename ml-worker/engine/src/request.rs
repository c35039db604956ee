//! What can be asked of the engine, and what it answers.

use crate::cache::prefix::{CacheSalt, Tenant};
use crate::grammar::{Grammar, GrammarError};
use crate::runner::AdapterId;
use crate::scheduler::Refusal;
use pacer_artifact::{FinishReason, Position, SamplingKey, SamplingParams};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The scheduler would not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// As many requests as the engine takes are in flight.
    #[error("the queue is full ({in_flight} requests are in flight); try again in {retry_after_s} s")]
    Busy {
        /// Requests in flight.
        in_flight: usize,
        /// When a place should be free, from how fast requests were finished lately.
        retry_after_s: u32,
    },
    /// This tenant has its share of the places.
    #[error("{held} of your requests are in flight, your share of what this engine takes now; try again in {retry_after_s} s")]
    Share {
        /// The tenant's requests in flight.
        held: usize,
        /// When a place should be free, from how fast requests were finished lately.
        retry_after_s: u32,
    },
    /// Its deadline passed before it was done.
    #[error("the request was not done by its deadline")]
    Deadline,
    /// Parameters the sampler cannot use.
    #[error("{0}")]
    Params(String),
    /// The form that the request asks for came to a limit on the way.
    #[error("the answer could not be held to its form: {0}")]
    Form(String),
    /// The forms of all answers together take all the memory that they may; that passes.
    #[error("the answer could not be held to its form: {}; try again", GrammarError::Memory)]
    FormBusy,
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

impl From<GrammarError> for EngineError {
    fn from(error: GrammarError) -> Self {
        match error {
            GrammarError::Memory => Self::FormBusy,
            error => Self::Form(error.to_string()),
        }
    }
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
    /// The same for the tokens of the prompt. Then nothing of the prompt is taken from the cache.
    pub prompt_logprobs: Option<usize>,
    /// Whether to record every position, for an artifact.
    pub record: bool,
    /// Which of the request's choices this is; comes back with every event.
    pub choice: u32,
    /// Who pays: turns are shared out, and cached text is shared, by it.
    pub tenant: Tenant,
    /// The adapter that answers with the model, if one is to.
    pub adapter: Option<AdapterId>,
    /// When the answer is no longer of use.
    pub deadline: Option<Instant>,
    /// Where events go. Closing it cancels.
    pub events: UnboundedSender<(u32, Event)>,
}

impl Generate {
    /// A request with nothing beyond the answer itself, as choice 0 of the default tenant.
    pub fn new(
        prompt: Vec<u32>,
        params: SamplingParams,
        key: SamplingKey,
        events: UnboundedSender<(u32, Event)>,
    ) -> Self {
        Self {
            prompt,
            params,
            grammar: None,
            key,
            top_logprobs: None,
            prompt_logprobs: None,
            record: false,
            choice: 0,
            tenant: Tenant::default(),
            adapter: None,
            deadline: None,
            events,
        }
    }

    /// Whose cached text it may use.
    pub(crate) fn salt(&self) -> CacheSalt {
        // What one adapter computed of a text is not what another one would.
        CacheSalt::new(&self.tenant, &self.adapter.map_or(String::new(), |adapter| adapter.0.to_string()))
    }

    /// Whether the two can share the computation of their prompt.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        self.prompt == other.prompt
            && self.salt() == other.salt()
            && self.prompt_logprobs == other.prompt_logprobs
            && self.params.max_tokens == other.params.max_tokens
    }
}

/// Receives wanted rows of a scored text: a position, then the f32 logits of this one and those that follow it. Runs on
/// the device thread: be quick.
pub type RowSink = Box<dyn FnMut(usize, &[&[f32]]) + Send>;

/// Logits of a given text wanted (teacher-forced).
///
/// It computes every token itself: what verification compares must not depend on what others left in the cache, such
/// as keys and values made in another order of sums, or by a request that failed.
pub struct Score {
    /// The text.
    pub tokens: Vec<u32>,
    /// First position whose logits are wanted. The row of position `p` predicts token `p + 1`.
    pub from: usize,
    /// Who asked.
    pub tenant: Tenant,
    /// The adapter to use with the model.
    pub adapter: Option<AdapterId>,
    /// Where rows go.
    pub rows: RowSink,
    /// Told when every row was given, or why not. Closing it cancels.
    pub done: tokio::sync::oneshot::Sender<Result<(), EngineError>>,
}

/// How the states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The last one.
    Last,
}

/// A text's vector wanted.
pub struct Embed {
    /// The text.
    pub tokens: Vec<u32>,
    /// How it is made.
    pub pooling: Pooling,
    /// Whether it is scaled to length one.
    pub normalise: bool,
    /// Who pays.
    pub tenant: Tenant,
    /// The adapter to use with the model.
    pub adapter: Option<AdapterId>,
    /// Where it goes. Closing it cancels.
    pub done: tokio::sync::oneshot::Sender<Result<Vec<f32>, EngineError>>,
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
    /// The prompt is computed; comes once, before the first token.
    Prompt {
        /// Its tokens that were in the cache already.
        cached_tokens: usize,
        /// If asked for: of its second token, its third, and so on (nothing predicts the first). Of several choices
        /// of one prompt only the first gets them, before the others get anything.
        logprobs: Vec<TokenLogProbs>,
    },
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
