//! Executes what other Hosts' transfer agents pass on: `POST /pacer/execute`.
//!
//! Order of checks, cheapest first: signature and freshness, room, model, payer, draw, cost, and that this inference was
//! not executed before. Then the engine. The executor says *accepted* as soon as the engine took the request, and goes on
//! to the end even if the transfer agent goes away or does not read, so that an answer that was started is always recorded
//! and its room is always given back.

pub mod answer;
pub mod running;

use std::{sync::Arc, time::Duration};

use pacer_artifact::{artifact::hash_bytes, preimage::request_hash, Artifact};
use pacer_duty::{inference_id, payer_account};
use pacer_types::{duty::blake2_256, ledger::FinishRecord, AccountId, Hash, InferenceId, Phase};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use tokio::sync::{mpsc, OwnedSemaphorePermit};

use crate::{
	app::App,
	chain::View,
	engine::{Need, MAX_RECORDED_BYTES},
	frames::Frame,
	gateway::{
		draw,
		request::{Ask, Route},
	},
	store::bundles::Bundle,
	verifier::check::BundleJson,
	wire::{parse_hash, to_hex},
};
use answer::{Answered, Collector};

/// After this long without an error from the engine, the request counts as taken.
const ACCEPT_AFTER: Duration = Duration::from_millis(300);
/// The same for a request whose answers have a form, which the engine compiles before it takes or refuses it.
const ACCEPT_FORM_AFTER: Duration = Duration::from_secs(5);
/// How long to wait for the block that the transfer agent may have seen.
const BORDER_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// What a transfer agent sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
	/// The Developer who pays, hex.
	pub developer: String,
	/// Whether by an API key of the transfer agent.
	pub is_by_key: bool,
	/// Its index among the ledger's payers.
	pub payer_index: u32,
	/// Its sequence number.
	pub sequence: u32,
	/// Which draw this is.
	pub attempt: u8,
	/// Most it may cost, in millionths of a token.
	pub max_cost_micro: u32,
	/// Salt of the request's hash, hex.
	pub request_salt: String,
	/// `chat/completions` or `completions`.
	pub route: String,
	/// The body.
	pub request: String,
}

/// Why an executor does not take a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
	/// The order is wrong: nobody should take it.
	#[error("{0}")]
	Order(String),
	/// The engine finds the request wrong: the client should see this.
	#[error("the request is wrong")]
	Request(u16, Value),
	/// The draw names another Host, as this one sees the chain.
	#[error("the draw names another Host")]
	Draw,
	/// Not now, or not this Host: another may.
	#[error("{0}")]
	Later(String),
}

impl Refused {
	/// For those who can no more be given the engine's answer itself, with its words about a wrong request.
	fn in_words(&self) -> String {
		match self {
			Self::Request(_, body) => body["error"]["message"].as_str().map_or_else(|| self.to_string(), str::to_owned),
			refused => refused.to_string(),
		}
	}
}

struct Checked {
	id: InferenceId,
	ask: Ask,
	salt: [u8; 32],
}

/// Checks an order and starts it; frames come through the channel.
pub async fn execute(
	app: Arc<App>,
	mut view: Arc<View>,
	ta: AccountId,
	order: Order,
	permit: OwnedSemaphorePermit,
) -> Result<mpsc::Receiver<Frame>, Refused> {
	let checked = match check(&app, &view, &ta, &order).await {
		Err(Refused::Later(_) | Refused::Draw) if view.phase() == Phase::Switch => {
			// The transfer agent may have seen the first block of the next epoch already.
			view = app.newer_view(&view, BORDER_TIMEOUT).await.map_err(|e| Refused::Later(e.to_string()))?;
			check(&app, &view, &ta, &order).await?
		}
		checked => checked?,
	};
	let claim = app.running.claim(checked.id).ok_or_else(|| Refused::Later("this inference is being executed".into()))?;
	if app.bundles.contains(&checked.id) {
		return Err(Refused::Later("this inference was executed already".into()));
	}
	let unable = || Refused::Later(app.engines.why_unable_for(Need::Record, &checked.ask.model));
	let lease = app.engines.lease_for(Need::Record, &checked.ask.model).ok_or_else(unable)?;
	let mut body: Value = serde_json::from_slice(&checked.ask.body).map_err(|e| Refused::Order(e.to_string()))?;
	// What the engine caches of a Developer's prompts shall serve nobody else: the name is one it cannot read.
	let tenant = blake2_256(order.developer.as_bytes());
	body["pacer"] = json!({"inference_id": to_hex(checked.id), "tenant": to_hex(tenant)});
	let generating = {
		let (engine, route) = (lease.engine().clone(), checked.ask.route.path());
		tokio::spawn(async move { engine.generate(route, &body, ANSWER_TIMEOUT).await })
	};
	let mut generating = generating;
	let patience = if checked.ask.has_form { ACCEPT_FORM_AFTER } else { ACCEPT_AFTER };
	let early = tokio::time::timeout(patience, &mut generating).await;
	let response = match early {
		Err(_) => None,
		Ok(Err(e)) => return Err(Refused::Later(e.to_string())),
		Ok(Ok(Err(e))) => {
			lease.failed();
			return Err(Refused::Later(e.to_string()));
		}
		Ok(Ok(Ok(response))) => Some(answer::refuse_errors(response).await?),
	};
	metrics::counter!("pacer_agent_executions_total").increment(1);
	let (frames, receiver) = mpsc::channel(256);
	tokio::spawn(async move {
		let _held = (permit, lease, claim);
		let mut collector = Collector::new(frames, checked.ask.stream, checked.ask.route);
		collector.pass(Frame::Accepted).await;
		let response = match response {
			Some(response) => Ok(response),
			None => match generating.await {
				Ok(Ok(response)) => answer::refuse_errors(response).await.map_err(|e| e.in_words()),
				Ok(Err(e)) => Err(e.to_string()),
				Err(e) => Err(e.to_string()),
			},
		};
		let answered = match response {
			Ok(response) => collector.run(response).await,
			Err(e) => Err(e),
		};
		match answered.and_then(|a| keep(&app, &view, &checked, a)) {
			Ok(()) => {
				if checked.ask.stream {
					collector.pass(Frame::Done).await;
				}
			}
			Err(message) => {
				tracing::warn!("the answer to {:?} failed: {message}", checked.id);
				collector.pass(Frame::Failed { message }).await;
			}
		}
	});
	Ok(receiver)
}

async fn check(app: &App, view: &View, ta: &AccountId, order: &Order) -> Result<Checked, Refused> {
	let wrong = |why: &str| Refused::Order(why.to_owned());
	let me = view.me.as_ref().ok_or_else(|| Refused::Later("this agent's Host is not registered".into()))?;
	let route = Route::from_path(&order.route).ok_or_else(|| wrong("unknown route"))?;
	let salt = parse_hash(&order.request_salt).ok_or_else(|| wrong("unreadable salt"))?;
	let developer: AccountId = parse_hash(&order.developer).ok_or_else(|| wrong("unreadable payer"))?.into();
	let by = order.is_by_key.then_some(ta);
	let ask = Ask::parse(route, order.request.clone().into(), true).map_err(|e| Refused::Request(e.status.as_u16(), e.body))?;
	let model = view.model(&ask.model).ok_or_else(|| wrong("the chain knows no such model"))?;
	if ask.max_cost_micro(model) > order.max_cost_micro {
		return Err(wrong("it may cost more than the order says"));
	}
	let (index, payer_salt) = app.payer(&developer, by).await.map_err(|e| Refused::Later(e.to_string()))?;
	if index != order.payer_index {
		app.forget_payer(&developer, by);
		return Err(wrong("the payer has another index"));
	}
	let id = inference_id(&app.api.genesis, &payer_account(&developer, by), &payer_salt, order.sequence);
	if draw::executor(view, &id, order.attempt, ta, model.id).as_ref() != Some(me) {
		return Err(Refused::Draw);
	}
	Ok(Checked { id, ask, salt })
}

/// Stores what others need to check the answer, and queues its record.
fn keep(app: &App, view: &View, checked: &Checked, answered: Answered) -> Result<(), String> {
	let artifact = answered.artifact.ok_or("the engine left no artifact, so the answer cannot be recorded")?;
	let decoded = Artifact::from_bytes(&artifact).map_err(|e| format!("unreadable artifact: {e}"))?;
	let record = FinishRecord {
		artifact: Hash::from(hash_bytes(&artifact)),
		prompt_tokens: u32::try_from(decoded.prompt.len()).unwrap_or(u32::MAX),
		completion_tokens: u32::try_from(decoded.positions.len()).unwrap_or(u32::MAX),
	};
	metrics::counter!("pacer_agent_prompt_tokens_total").increment(record.prompt_tokens.into());
	metrics::counter!("pacer_agent_completion_tokens_total").increment(record.completion_tokens.into());
	let bundle = Bundle {
		request_salt: checked.salt,
		request: checked.ask.body.to_vec(),
		route: checked.ask.route.path().to_owned(),
		response_text: answered.text,
		artifact,
	};
	let question = BundleJson::new(bundle.clone()).and_then(|json| json.into_question(&checked.id, checked.ask.route, &record));
	// Recording what no verifier's engine reads would count as fraud.
	if question.is_none_or(|question| question.wire_bytes() > MAX_RECORDED_BYTES) {
		return Err("the answer is too long to be verified, so it cannot be recorded".into());
	}
	let request = Hash::from(request_hash(&checked.salt, &bundle.request));
	tracing::debug!(?request, "executed {:?}", checked.id);
	app.bundles.put(view.epoch(), &checked.id, &bundle).map_err(|e| e.to_string())?;
	app.queues.finish(checked.id, record, request, view.slot_now()).map_err(|e| e.to_string())
}
