//! A proof that is found after Switch: a person who knows what is invented plays it with a wallet, in the Inference that
//! follows.

use std::collections::BTreeMap;

use anyhow::Context;
use pacer_localnet::{
	chain::Chain,
	host::dev_pair,
	rogue::RaceOf,
};
use pacer_runtime::{AccountId, RuntimeCall};
use pacer_sprint::first_false_step;
use pacer_types::{
	views::{DisputeView, SprintView},
	Phase,
};
use sp_core::Pair;

use crate::play::{Scene, Stage};

/// Whose wallet disputes.
const WITNESS: &str = "//Eve";

/// The account that disputes.
pub fn witness() -> AccountId {
	dev_pair(WITNESS).public().into()
}

/// Disputes each of these Hosts at the position beside it, until all of them are struck for good; returns the height of
/// a final block in which they are.
pub async fn expose(stage: &mut Stage<'_>, fakes: &BTreeMap<AccountId, u32>) -> anyhow::Result<u32> {
	let mut heads = stage.chain.follow(false).await?;
	while let Some(head) = heads.next().await {
		head?;
		let scene = stage.look().await?;
		let now = &scene.clock.now;
		if now.epoch != stage.race + 1 || now.phase != Phase::Inference {
			continue;
		}
		// A strike in the best block may be in a later one of the final chain, or be played again.
		let last = stage.chain.finalized_number().await?;
		let end: SprintView = stage.chain.call("sprint", stage.race, Some(stage.chain.head_at(last).await?.hash)).await?;
		if fakes.keys().all(|host| is_struck(&end, host)) {
			return Ok(last);
		}
		stage.answer(&scene).await?;
		for (host, position) in fakes.iter().filter(|(host, _)| !is_struck(&scene.view, host)) {
			move_on(stage, &scene, host, *position).await?;
		}
	}
	anyhow::bail!("the node ended its reports")
}

fn is_struck(race: &SprintView, host: &AccountId) -> bool {
	race.commits.iter().any(|commit| commit.host == *host && commit.struck)
}

/// The witness's next move against a Host, if it is its turn.
async fn move_on(stage: &mut Stage<'_>, scene: &Scene, host: &AccountId, position: u32) -> anyhow::Result<()> {
	let own = |dispute: &&DisputeView| dispute.challenger == witness() && dispute.subject == *host;
	let call = match scene.view.disputes.iter().find(own) {
		None => pallet_sprint::Call::challenge_signed { race: stage.race, subject: host.clone(), position }.into(),
		Some(DisputeView { answer: None, .. }) => return Ok(()),
		Some(dispute) => refutation(&scene.rules.context("a race without rules")?, dispute)?,
	};
	let what =
		if matches!(&call, RuntimeCall::Sprint(pallet_sprint::Call::refute_signed { .. })) { "refute" } else { "challenge" };
	if stage.is_due(&witness(), format!("{what} {host}"), scene) {
		sign(stage.chain, what, call).await;
	}
	Ok(())
}

/// Names the first false step of an answer.
fn refutation(rules: &RaceOf, dispute: &DisputeView) -> anyhow::Result<RuntimeCall> {
	let (nonce, hashes) = dispute.answer.as_ref().context("no answer yet")?;
	let claimed: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
	let trace = rules.trace(dispute.subject.as_ref(), *nonce)?;
	let step = first_false_step(&trace, &claimed).context("nothing is wrong with the answer")?;
	Ok(pallet_sprint::Call::refute_signed { race: dispute.race, dispute: dispute.id, step }.into())
}

/// What the chain refuses is shown, and tried again later: it may be there already.
async fn sign(chain: &Chain, what: &str, call: RuntimeCall) {
	if let Err(why) = chain.submit(&dev_pair(WITNESS), call).await {
		println!("the witness's {what}: {why:#}");
	}
}
