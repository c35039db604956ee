//! Who executes an inference, as the chain will recompute it.

use pacer_duty::draw_executor;
use pacer_types::{ledger::MAX_ATTEMPT, AccountId, EpochIndex, InferenceId, ModelId};

use crate::{
	chain::{Api, View},
	error::Result,
};

/// Epochs without randomness after which the agent stops looking back; the chain forgets older values.
const LOOK_BACK: u32 = 4;

/// The value executors of an epoch are drawn with: the newest one when the epoch began. Before the first it is the
/// genesis hash.
pub async fn draw_value(api: &Api, epoch: EpochIndex) -> Result<[u8; 32]> {
	if let Some(value) = api.draw_seed().await? {
		return Ok(value);
	}
	for back in 1..=LOOK_BACK {
		let Some(epoch) = epoch.checked_sub(back) else { break };
		let beacon = api.beacon(epoch).await?;
		if let Some(value) = beacon.audit.or(beacon.race) {
			return Ok(value);
		}
	}
	Ok(api.genesis.0)
}

/// Hosts that could execute: those that serve the model, have weight and are not excluded; ascending by account.
pub fn candidates(view: &View, model: ModelId) -> Vec<(AccountId, u64)> {
	let able = view.hosts.iter().filter(|h| h.work > 0 && !h.excluded && h.models.contains(&model));
	let mut able: Vec<_> = able.map(|h| (h.account.clone(), h.work)).collect();
	able.sort();
	able
}

/// The executor of an attempt; `None` if nobody is left.
pub fn executor(view: &View, id: &InferenceId, attempt: u8, ta: &AccountId, model: ModelId) -> Option<AccountId> {
	let candidates = candidates(view, model);
	// Only where a single Host has weight may it serve itself, and only if the chain's rules say so too.
	let alone = view.hosts.iter().filter(|host| host.work > 0).count() == 1;
	if attempt > MAX_ATTEMPT {
		return None;
	}
	draw_executor(id, &view.draw_value, attempt, ta, &candidates, alone)
}

/// The attempt whose draw names `executor`, the given one if possible. The draw changes with the epoch, so an inference
/// that is recorded an epoch later may need another attempt to pay the Host that executed it.
pub fn attempt_for(
	view: &View,
	id: &InferenceId,
	attempt: u8,
	ta: &AccountId,
	model: ModelId,
	executor: &AccountId,
) -> Option<u8> {
	std::iter::once(attempt)
		.chain(0..=MAX_ATTEMPT)
		.find(|a| self::executor(view, id, *a, ta, model).as_ref() == Some(executor))
}
