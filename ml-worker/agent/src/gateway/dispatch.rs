//! Finds an executor for a request.
//!
//! One inference has up to four draws: a candidate that refuses or stays silent is followed by the next draw of the same
//! id. Once a candidate accepted, the start is queued and the id is spent; if that executor then breaks off before the
//! client saw anything, the request becomes a new inference with a new number. After the client saw something, it gets an
//! error instead: a second answer would not be the continuation of the first.

use std::{sync::Arc, time::Duration};

use pacer_artifact::preimage::request_hash;
use pacer_duty::{inference_id, payer_account};
use pacer_types::{
	ledger::{StartRecord, MAX_ATTEMPT},
	views::PayerView,
	AccountId, Hash, InferenceId, ModelId, MICRO_PCR,
};
use serde_json::Value;

use crate::{
	app::App,
	chain::View,
	executor::Order,
	frames::{Frame, Frames},
	gateway::{
		auth::{Payment, SignedAsk},
		draw,
		error::ApiError,
		request::Ask,
	},
	ledger::queues::QueuedStart,
	signing::Parts,
	wire::read_limited,
};

/// `RefusalTimeout`: how long a candidate may stay silent.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for a block that explains why nobody takes a request.
const BORDER_TIMEOUT: Duration = Duration::from_secs(1);
/// The same in slots, where Hosts said that their draw names another.
const DRAW_SLOTS: u64 = 3;
/// Longest wait for it.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How often it is tried again with a newer view.
const MAX_RETRIES: u32 = 2;
/// How many inferences one request may become, over all tries.
const MAX_INFERENCES: u32 = 3;
/// Longest refusal.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// An answer that has begun.
pub struct Begun {
	/// The inference.
	pub id: InferenceId,
	/// Who executes it.
	pub executor: AccountId,
	/// Frames up to the first with content.
	pub first: Vec<Frame>,
	/// The rest.
	pub rest: Frames,
}

/// What a candidate said.
enum Said {
	Accepted(Frames),
	Wrong(ApiError),
	No(String),
	/// By its view another Host is drawn.
	NotMine,
	/// It cannot be reached, or gave no answer in time.
	Silent(String),
}

/// What the candidates of one inference say about the draw.
#[derive(Debug, Default)]
struct Draws {
	/// Weight of the heaviest candidate that answered (the first of equal ones), and whether it draws another Host.
	heaviest: Option<(u64, bool)>,
}

impl Draws {
	/// A candidate of so much weight answered.
	fn note(&mut self, weight: u64, differs: bool) {
		if self.heaviest.is_none_or(|(most, _)| weight > most) {
			self.heaviest = Some((weight, differs));
		}
	}

	/// Whether a newer block is worth waiting for: all that answered draw another Host, or at least the heaviest does. A
	/// single Host of little weight must not be able to make clients wait.
	fn differ(&self) -> bool {
		self.heaviest.is_some_and(|(_, differs)| differs)
	}
}

/// What became of a request over its tries.
#[derive(Debug, Default)]
struct Tries {
	/// Numbers that are used up: each may be paid for.
	spent: u32,
	/// Whether the last try failed because Hosts draw another one.
	differs: bool,
}

impl Tries {
	/// Whether another inference may be tried. A Developer signs one number.
	fn may_go_on(&self, payment: &Payment) -> bool {
		self.spent < if matches!(payment, Payment::Signed(_)) { 1 } else { MAX_INFERENCES }
	}
}

/// One inference on its way.
struct Attempt {
	ta: AccountId,
	model: ModelId,
	developer: AccountId,
	is_by_key: bool,
	index: u32,
	salt: Hash,
	sequence: u32,
	request_salt: [u8; 32],
	max_cost_micro: u32,
}

/// Finds an executor and waits for the beginning of its answer.
///
/// At the border of two epochs, and when a Host was just excluded, agents may stand on different sides of it for a block
/// and draw different executors: then it is tried again with the view of a newer block.
pub async fn dispatch(app: &Arc<App>, mut view: Arc<View>, ask: &Ask, payment: &Payment) -> Result<Begun, ApiError> {
	let mut tries = Tries::default();
	for retry in 0.. {
		let refused = match dispatch_once(app, &view, ask, payment, &mut tries).await {
			Err(e) if e.is_no_executor() && retry < MAX_RETRIES && tries.may_go_on(payment) => e,
			answer => return answer,
		};
		let differs = tries.differs;
		let slots = Duration::from_millis(view.clock.params.slot_ms.saturating_mul(DRAW_SLOTS));
		let newer = app.newer_view(&view, if differs { slots.min(LONGEST_WAIT) } else { BORDER_TIMEOUT }).await?;
		let helps = newer.draw_value != view.draw_value || differs && !Arc::ptr_eq(&newer, &view);
		if !helps {
			return Err(refused);
		}
		view = newer;
	}
	Err(ApiError::no_executor("no executor answered"))
}

/// One try with one view.
async fn dispatch_once(app: &Arc<App>, view: &View, ask: &Ask, payment: &Payment, tries: &mut Tries) -> Result<Begun, ApiError> {
	let ta = view.me.clone().ok_or_else(|| ApiError::unavailable("this agent's Host is not registered yet"))?;
	let model = view.model(&ask.model).ok_or_else(|| ApiError::not_found(format!("the model `{}` does not exist", ask.model)))?;
	if let Payment::Signed(signed) = payment {
		let keys = app.api.request_keys(&signed.developer).await?;
		if !signed.is_valid(&app.api.genesis, &ask.body, model.id, &ta, &keys) {
			return Err(ApiError::unauthorized("the request's signature is wrong"));
		}
	}
	let max_cost_micro = ask.max_cost_micro(model);
	let mut last = String::new();
	while tries.may_go_on(payment) {
		let attempt = reserve(app, &ta, model.id, payment, max_cost_micro).await?;
		match try_candidates(app, view, ask, &attempt, tries).await? {
			Ok(begun) => return Ok(begun),
			Err(why) => last = why,
		}
		tracing::info!(spent = tries.spent, "the executor broke off before the answer began: {last}");
	}
	Err(ApiError::no_executor(format!("no executor answered: {last}")))
}

/// Checks that the payer can pay and reserves a number.
async fn reserve(app: &App, ta: &AccountId, model: ModelId, payment: &Payment, max_cost_micro: u32) -> Result<Attempt, ApiError> {
	let (developer, is_by_key) = match payment {
		Payment::Key(developer) => (developer, true),
		Payment::Signed(signed) => (&signed.developer, false),
		Payment::Local => return Err(ApiError::payment("a key issued as `local` pays for nothing on the network")),
	};
	let view: PayerView =
		app.api.payer_of(developer, is_by_key.then_some(ta)).await?.ok_or_else(|| {
			ApiError::payment("the account has no deposit on chain, or does not allow this Host to spend from it")
		})?;
	if view.salt == Hash::zero() {
		return Err(ApiError::unavailable("the deposit is new: its salt comes with one of the next blocks"));
	}
	// What is on its way to the chain is spent, too.
	let outstanding = app.queues.outstanding_micro(view.index);
	let cost = u128::from(outstanding.saturating_add(max_cost_micro.into())) * MICRO_PCR;
	if view.free < cost {
		return Err(ApiError::payment("the deposit does not cover the most this request may cost"));
	}
	let (sequence, request_salt, max_cost_micro) = match payment {
		Payment::Key(_) => {
			if app.api.allowance(developer, ta).await? < cost {
				return Err(ApiError::payment("the allowance of this epoch does not cover the most this request may cost"));
			}
			(app.sequences.reserve(view.index, view.next_sequence)?, rand::random(), max_cost_micro)
		}
		Payment::Local => return Err(ApiError::payment("a key issued as `local` pays for nothing on the network")),
		Payment::Signed(SignedAsk { sequence, salt, max_cost_micro: signed, .. }) => {
			if *signed < max_cost_micro {
				return Err(ApiError::payment(format!("it may cost {max_cost_micro} millionths, but {signed} were signed")));
			}
			if *sequence < view.next_sequence || !app.sequences.reserve_exactly(view.index, *sequence)? {
				return Err(ApiError::bad_request("this sequence number was used"));
			}
			(*sequence, *salt, *signed)
		}
	};
	let (ta, developer) = (ta.clone(), developer.clone());
	let (index, salt) = (view.index, view.salt);
	Ok(Attempt { ta, model, developer, is_by_key, index, salt, sequence, request_salt, max_cost_micro })
}

impl Attempt {
	fn start(&self, id: InferenceId, ask: &Ask, attempt: u8, executor: &AccountId) -> QueuedStart {
		let record = StartRecord {
			payer: self.index,
			sequence: self.sequence,
			request: Hash::from(request_hash(&self.request_salt, &ask.body)),
			model: self.model,
			max_cost_micro: self.max_cost_micro,
			attempt,
		};
		let (developer, executor) = (self.developer.clone(), executor.clone());
		QueuedStart { id, developer, is_by_key: self.is_by_key, executor, record, failures: 0 }
	}
}

/// Asks the candidates of one inference in turn. The inner error says that a new inference may be tried.
async fn try_candidates(
	app: &Arc<App>,
	view: &View,
	ask: &Ask,
	a: &Attempt,
	tries: &mut Tries,
) -> Result<Result<Begun, String>, ApiError> {
	// The number goes back on every way out but acceptance, also when the client goes away.
	let reserved = Reserved { app, attempt: Some(a) };
	let payer = payer_account(&a.developer, a.is_by_key.then_some(&a.ta));
	let id = inference_id(&app.api.genesis, &payer, &a.salt, a.sequence);
	let weights = draw::candidates(view, a.model);
	let mut draws = Draws::default();
	tries.differs = false;
	let mut last = "no Host serves this model".to_owned();
	for attempt in 0..=MAX_ATTEMPT {
		let Some(executor) = draw::executor(view, &id, attempt, &a.ta, a.model) else { break };
		let start = a.start(id, ask, attempt, &executor);
		if attempt == 0 {
			app.sequences.note(&start)?;
		}
		let weight = weights.iter().find(|(who, _)| *who == executor).map_or(0, |(_, weight)| *weight);
		match offer(app, view, &executor, ask, a, attempt).await {
			Said::Accepted(mut frames) => {
				reserved.use_up(start)?;
				tries.spent = tries.spent.saturating_add(1);
				metrics::counter!("pacer_agent_forwarded_total").increment(1);
				let mut first = Vec::new();
				return Ok(loop {
					match frames.next().await {
						Ok(frame) => {
							let is_content = frame.has_content();
							first.push(frame);
							if is_content {
								break Ok(Begun { id, executor, first, rest: frames });
							}
						}
						Err(why) => break Err(format!("{executor}: {why}")),
					}
				});
			}
			Said::Wrong(e) => return Err(e),
			Said::NotMine => {
				tracing::info!(attempt, "{executor} draws another Host");
				metrics::counter!("pacer_agent_refusals_total").increment(1);
				draws.note(weight, true);
				last = format!("{executor} draws another Host");
			}
			Said::No(why) => {
				tracing::info!(attempt, "{executor} does not take the request: {why}");
				metrics::counter!("pacer_agent_refusals_total").increment(1);
				draws.note(weight, false);
				last = why;
			}
			Said::Silent(why) => {
				tracing::info!(attempt, "{executor} cannot be asked: {why}");
				metrics::counter!("pacer_agent_refusals_total").increment(1);
				last = why;
			}
		}
	}
	tries.differs = draws.differ();
	Err(ApiError::no_executor(format!("no executor took the request: {last}")))
}

/// A reserved number, given back unless it is used.
struct Reserved<'a> {
	app: &'a Arc<App>,
	attempt: Option<&'a Attempt>,
}

impl Reserved<'_> {
	fn use_up(mut self, start: QueuedStart) -> Result<(), ApiError> {
		self.app.sequences.use_up(start)?;
		self.attempt = None;
		Ok(())
	}
}

impl Drop for Reserved<'_> {
	fn drop(&mut self) {
		if let Some(a) = self.attempt {
			if let Err(e) = self.app.sequences.give_back(a.index, a.sequence) {
				tracing::warn!("number {} could not be given back: {e}", a.sequence);
			}
		}
	}
}

/// Offers the request to a candidate and waits until it accepts or refuses.
async fn offer(app: &App, view: &View, executor: &AccountId, ask: &Ask, a: &Attempt, attempt: u8) -> Said {
	let Some(endpoint) = view.endpoint(executor) else { return Said::Silent("it has no usable address".into()) };
	let order = Order {
		developer: hex::encode(&a.developer),
		is_by_key: a.is_by_key,
		payer_index: a.index,
		sequence: a.sequence,
		attempt,
		max_cost_micro: a.max_cost_micro,
		request_salt: hex::encode(a.request_salt),
		route: ask.route.path().to_owned(),
		request: String::from_utf8_lossy(&ask.body).into_owned(),
	};
	// Strings and numbers always serialise.
	let body = serde_json::to_vec(&order).unwrap_or_default();
	let path = "/pacer/execute";
	let parts = Parts { genesis: &app.api.genesis, method: "POST", path, to: executor, body: &body };
	let headers = parts.sign(&a.ta, &app.key);
	let asking = async {
		let request = app.peers.post(&format!("{endpoint}{path}"))?.headers(headers).body(body);
		let response = request.send().await.map_err(|e| e.to_string())?;
		let status = response.status();
		if !status.is_success() {
			let text = read_limited(response, MAX_REFUSAL_BYTES).await.unwrap_or_default();
			let body: Value = serde_json::from_slice(&text).unwrap_or_default();
			// The engine's own words about a wrong request are for the client.
			if body["pacer_refusal"] == "request" {
				let status = body["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(400);
				return Ok(Said::Wrong(ApiError::passed_on(status, body["body"].clone())));
			}
			if body["pacer_refusal"] == "draw" {
				return Ok(Said::NotMine);
			}
			return Ok(Said::No(body["message"].as_str().map_or_else(|| format!("it answered {status}"), str::to_owned)));
		}
		let mut frames = Frames::new(response);
		match frames.next().await? {
			Frame::Accepted => Ok::<_, String>(Said::Accepted(frames)),
			_ => Ok(Said::No("it did not accept".to_owned())),
		}
	};
	match tokio::time::timeout(REFUSAL_TIMEOUT, asking).await {
		Ok(Ok(said)) => said,
		Ok(Err(why)) => Said::Silent(why),
		Err(_) => Said::Silent("it stays silent".into()),
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn draws_should_differ_when_the_heaviest_that_answered_says_so() {
		let differ = |answers: &[(u64, bool)]| {
			let mut draws = Draws::default();
			answers.iter().for_each(|(weight, differs)| draws.note(*weight, *differs));
			draws.differ()
		};
		assert!(!differ(&[]), "nobody answered");
		assert!(differ(&[(1, true)]) && differ(&[(2, true), (9, true), (1, true)]), "all say so");
		assert!(!differ(&[(1, true), (5, false), (4, true)]), "light Hosts do not decide");
		assert!(differ(&[(1, false), (5, true), (4, false)]));
		assert!(differ(&[(5, true), (5, false)]) && !differ(&[(5, false), (5, true)]), "the first of equal ones");
	}
}
