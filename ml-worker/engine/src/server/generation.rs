//! From a body to running answers: validation, the engine, events; for every path that generates.

use super::error::ApiError;
use super::logprobs::PromptLogProbs;
use super::respond::{whole, Choice};
use super::types::RawRequest;
use super::validation::{form, validate, Api, ValidRequest};
use super::{chain, sse, Server};
use crate::engine::{Event, Generate, TokenLogProbs};
use crate::grammar::Grammar;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{sse::KeepAlive, IntoResponse, Response, Sse};
use axum::{Extension, Json};
use pacer_artifact::{KeyKind, SamplingKey};
use rand::RngCore;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};
use tokio::time::Instant;

use super::access::{Caller, Deadline};
use super::body::{parse, Body};

/// A request with everything that takes long to make of it.
pub struct Prepared {
    request: ValidRequest,
    // For each choice; `None` while they are to be compiled.
    grammars: Option<Vec<Option<Grammar>>>,
}

impl Prepared {
    /// Checks a request, and finds the grammars that its answers are held to if they were compiled before.
    pub fn new(raw: &RawRequest, api: Api, server: &Server) -> Result<Self, ApiError> {
        let request = validate(raw, api, &server.facts())?;
        let choices = request.prompts.len() * request.n as usize;
        let grammars = form::known(&request.params.constraint, choices, &server.grammars);
        Ok(Self { request, grammars })
    }

    /// Compiles the grammars that are missing: up to seconds, so in a pool of their own.
    async fn complete(
        self,
        server: &Server,
        deadline: Deadline,
    ) -> Result<(ValidRequest, Vec<Option<Grammar>>), ApiError> {
        let Self { request, grammars } = self;
        if let Some(grammars) = grammars {
            return Ok((request, grammars));
        }
        let compiler = server.grammars.clone();
        let work = move || {
            let choices = request.prompts.len() * request.n as usize;
            let grammars = form::compile(&request.params.constraint, request.form_field, choices, &compiler)?;
            Ok((request, grammars))
        };
        server.workers.grammars.run(deadline, work).await
    }
}

/// A request the engine is working on. Dropping it cancels the work.
pub struct Running {
    /// What is served.
    pub server: Arc<Server>,
    /// The request.
    pub request: ValidRequest,
    /// Its body as it came in; empty unless it is still to be hashed.
    pub body: Bytes,
    /// The response's id.
    pub id: String,
    /// Unix time of its arrival.
    pub created_s: u64,
    events: UnboundedReceiver<(u32, Event)>,
    // Tokens of each choice's prompt that were in the cache.
    cached: Vec<usize>,
    // Of each prompt, if its log-probabilities were asked for.
    prompts: Vec<Vec<(u32, Option<TokenLogProbs>)>>,
    arrived: Instant,
    deadline: Deadline,
}

impl Running {
    /// Hands a request to the engine.
    pub async fn start(
        server: Arc<Server>,
        prepared: Prepared,
        body: Bytes,
        prefix: &str,
        caller: Caller,
    ) -> Result<Self, ApiError> {
        let deadline = caller.deadline;
        let (request, grammars) = prepared.complete(&server, deadline).await?;
        let body = match &request.chain {
            Some(extension) => {
                // What no artifact can hold is refused before it costs anything.
                chain::start(&request, extension, 0, &server.model, &body)?;
                if extension.request_hash.is_none() && extension.request_salt.is_some() {
                    body
                } else {
                    Bytes::new()
                }
            }
            None => Bytes::new(),
        };
        let events = submit(&server, &request, grammars, caller)?;
        let cached = vec![0; request.prompts.len() * request.n as usize];
        let id = format!("{prefix}-{}", hex::encode(random::<12>()));
        let created_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let arrived = Instant::now();
        let prompts = match prompt_logprobs(&request) {
            None => Vec::new(),
            Some(_) => request.prompts.iter().map(|prompt| prompt.iter().map(|id| (*id, None)).collect()).collect(),
        };
        Ok(Self { server, request, body, id, created_s, events, cached, prompts, arrived, deadline })
    }

    /// Choices over all prompts.
    pub fn choices(&self) -> usize {
        self.request.prompts.len() * self.request.n as usize
    }

    /// Nothing yet, for every choice.
    pub fn blank(&self) -> Vec<Choice> {
        (0..self.choices()).map(|_| Choice::new(&self.request)).collect()
    }

    /// What happens next, to which choice: a token, an end or a failure.
    pub async fn next(&mut self) -> Result<(usize, Event), ApiError> {
        loop {
            let event = self.deadline.limit(self.events.recv()).await?;
            match event.ok_or_else(ApiError::unavailable)? {
                (choice, Event::Prompt { cached_tokens, logprobs }) => {
                    self.begun(choice as usize, cached_tokens, &logprobs);
                }
                (choice, event) => return Ok((choice as usize, event)),
            }
        }
    }

    /// Takes in what is known of a choice's prompt.
    fn begun(&mut self, choice: usize, cached_tokens: usize, logprobs: &[TokenLogProbs]) {
        if let Some(cached) = self.cached.get_mut(choice) {
            *cached = cached_tokens;
        }
        let Some(prompt) = self.request.prompts.get(choice / self.request.n as usize) else { return };
        // The engine computes neighbours with equal prompts once, and tells the first of them.
        for (_, known) in self.request.prompts.iter().zip(&mut self.prompts).filter(|(other, _)| *other == prompt) {
            known.iter_mut().skip(1).zip(logprobs).for_each(|((_, place), found)| *place = Some(found.clone()));
        }
    }

    /// Tokens of all prompts that were in the cache; a prompt counts once, whatever the number of its answers.
    pub fn cached_tokens(&self) -> usize {
        self.cached.iter().step_by(self.request.n as usize).sum()
    }

    /// Waits for all choices to end.
    pub async fn finish(&mut self) -> Result<Vec<Choice>, ApiError> {
        let mut choices = self.blank();
        while choices.iter().any(|choice| choice.reason.is_none()) {
            let (index, event) = self.next().await?;
            choices[index].take(event, &self.server.tokenizer)?;
        }
        self.log(&choices);
        Ok(choices)
    }

    /// Whether log-probabilities belong in the answer.
    pub fn wants_logprobs(&self) -> bool {
        self.request.top_logprobs.is_some()
    }

    /// The text of the prompt of a choice, if it is to be echoed.
    pub fn echoed(&self, choice: usize) -> Option<String> {
        let prompt = self.request.prompts.get(choice / self.request.n as usize)?;
        self.request.echo.then(|| self.server.tokenizer.decode(prompt, true).unwrap_or_default())
    }

    /// Log-probabilities of the prompt of a choice; empty if nobody asked for them.
    pub fn prompt_of(&self, choice: usize) -> &PromptLogProbs {
        self.prompts.get(choice / self.request.n as usize).map_or(&[], Vec::as_slice)
    }

    /// The same if the prompt is echoed, else empty.
    pub fn echoed_logprobs(&self, choice: usize) -> &PromptLogProbs {
        if self.request.echo {
            self.prompt_of(choice)
        } else {
            &[]
        }
    }

    /// One line for the operator.
    pub fn log(&self, choices: &[Choice]) {
        let prompt_tokens: usize = self.request.prompts.iter().map(Vec::len).sum();
        let completion_tokens: usize = choices.iter().map(|choice| choice.tokens).sum();
        let ms = self.arrived.elapsed().as_millis();
        let recorded = self.request.chain.is_some();
        tracing::info!(id = %self.id, prompt_tokens, completion_tokens, ms, recorded, "answered a request");
    }
}

/// `POST /v1/chat/completions`.
pub async fn chat(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    answer(server, Api::Chat, body, caller).await
}

/// `POST /v1/completions`.
pub async fn completions(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    answer(server, Api::Completions, body, caller).await
}

async fn answer(server: Arc<Server>, api: Api, body: Bytes, caller: Caller) -> Result<Response, ApiError> {
    let (bytes, workers) = (body.clone(), server.workers.clone());
    let work = move || {
        let raw: RawRequest = parse(&bytes)?;
        let server = server.serving(raw.model.as_deref());
        Ok((server.clone(), Prepared::new(&raw, api, &server)?))
    };
    let (server, request) = workers.requests.run(caller.deadline, work).await?;
    let prefix = if api == Api::Chat { "chatcmpl" } else { "cmpl" };
    let mut running = Running::start(server, request, body, prefix, caller).await?;
    if running.request.stream {
        // A failure before the first token still gets its own status.
        let first = match running.next().await? {
            (_, Event::Failed(error)) => return Err(error.into()),
            first => first,
        };
        return Ok(Sse::new(sse::stream(running, first)).keep_alive(KeepAlive::default()).into_response());
    }
    let choices = running.finish().await?;
    Ok(Json(whole(&running, &choices)?).into_response())
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::thread_rng().fill_bytes(&mut bytes);
    bytes
}

/// Hands every choice of a request to the engine, all or none.
fn submit(
    server: &Server,
    request: &ValidRequest,
    grammars: Vec<Option<Grammar>>,
    caller: Caller,
) -> Result<UnboundedReceiver<(u32, Event)>, ApiError> {
    let (sender, events) = unbounded_channel();
    let mut grammars = grammars.into_iter();
    let kind = request.key_kind().unwrap_or(KeyKind::InferenceId);
    let inference_id = request.chain.as_ref().map_or_else(random, |chain| chain.inference_id);
    // A transfer agent asks for many Developers with one key.
    let payer = request.chain.as_ref().and_then(|chain| chain.tenant);
    let tenant = payer.map_or(caller.tenant, |payer| caller.tenant.within(&payer));
    let mut all = Vec::new();
    for (number, prompt) in request.prompts.iter().enumerate() {
        for sibling in 0..request.n {
            let choice = number as u32 * request.n + sibling;
            let key = SamplingKey::derive(kind, &inference_id, choice);
            all.push(Generate {
                adapter: server.adapter,
                grammar: grammars.next().flatten(),
                top_logprobs: request.top_logprobs,
                prompt_logprobs: prompt_logprobs(request),
                record: request.chain.is_some(),
                choice,
                deadline: caller.deadline.instant(),
                tenant,
                ..Generate::new(prompt.clone(), request.params.clone(), key, sender.clone())
            });
        }
    }
    server.engine.generate_all(all)?;
    Ok(events)
}

/// How many alternatives to ask for with each token of the prompts: for the field of that name, or to be echoed.
fn prompt_logprobs(request: &ValidRequest) -> Option<usize> {
    request.prompt_logprobs.max(request.top_logprobs.filter(|_| request.echo))
}
