//! The third epoch: the network is cut in two while it deals. A member deals differently to each half, so each closes
//! another set of dealings; neither is final, and nothing is opened. When the halves meet, one set is everybody's.

use anyhow::{ensure, Context};
use pacer_types::{
	traits::BeaconValue,
	views::{BeaconView, ClockView},
	Phase,
};

use crate::{
	cast::Part,
	record::Record,
	stage::{honest, Stage, PATIENCE},
};

const EPOCH: u32 = 2;
/// A node of each half.
const SIDES: [usize; 2] = [0, 2];
/// Slots of Deal that must be left for each half to make a block.
const ROOM: u64 = 8;

/// Plays the epoch up to the race value; returns a final block that holds it.
pub async fn play(stage: &mut Stage) -> anyhow::Result<u32> {
	let twin = stage.player(Part::Twin)?;
	stage.register(EPOCH, &[twin]).await?;
	stage
		.during(EPOCH, Phase::Deal, "dealings of all nodes", async |scene| {
			let dealers = stage.chain().beacon(EPOCH).await?.dealers;
			let left: Vec<String> = honest().iter().filter(|h| !dealers.contains(h)).map(|h| h.to_string()).collect();
			let slots = scene.now().phase_end.saturating_sub(scene.now().slot);
			ensure!(!left.is_empty() || slots >= ROOM, "only {slots} slots of Deal are left when all nodes have dealt");
			Ok(left)
		})
		.await?;
	stage.net.cut().await?;
	println!("cut in two");
	let sides = both_halves(stage).await;
	stage.net.heal().await?;
	let closed = sides?;
	println!("joined again");

	let highest = *closed.iter().max().context("no half")?;
	for (at, chain) in stage.net.chains.iter().enumerate() {
		chain.wait(true, PATIENCE, &format!("node {at} to see block {highest} final"), async |n| Ok(n >= highest)).await?;
	}
	let now = stage.chain().clock().await?.now;
	println!("one chain again in {:?}, {} slots before its end", now.phase, now.phase_end.saturating_sub(now.slot));
	let drawn = stage
		.chain()
		.wait(true, PATIENCE, "the race value after the fork", async |n| {
			let at = stage.chain().head_at(n).await?.hash;
			let view: BeaconView = stage.chain().call("beacon", EPOCH, Some(at)).await?;
			let is_late = stage.chain().call::<ClockView>("clock", (), Some(at)).await?.now.phase > Phase::Open;
			ensure!(view.race.is_some() || !is_late, "Open is over without a value: {view:?}");
			Ok(view.race.is_some())
		})
		.await?;
	for (at, chain) in stage.net.chains.iter().enumerate() {
		chain.wait(true, PATIENCE, &format!("node {at} to see block {drawn} final"), async |n| Ok(n >= drawn)).await?;
	}
	Ok(drawn)
}

/// Deals differently to the halves, and lets both close their sets; returns the heights at which they did.
async fn both_halves(stage: &Stage) -> anyhow::Result<[u32; 2]> {
	let twin = stage.player(Part::Twin)?;
	let mut closed = [0; 2];
	let mut seen = Vec::new();
	for (draw, at) in SIDES.into_iter().enumerate() {
		let chain = &stage.net.chains[at];
		let scene = Stage::scene(chain, EPOCH, 0).await?;
		let dealings = twin.dealings(&scene.known, u8::try_from(draw)? + 2)?;
		twin.deal(chain, scene.now(), &dealings).await?;
	}
	for (side, at) in SIDES.into_iter().enumerate() {
		let chain = &stage.net.chains[at];
		Stage::reach(chain, EPOCH, Phase::SpareDeal).await?;
		let best = chain.head_at(chain.best_number().await?).await?;
		let scene = Stage::scene(chain, EPOCH, best.number).await?;
		closed[side] = scene.known.round.dealing_closed.context("a half did not close its set")?;
		let twins = scene.known.dealt(chain, &twin.account(), Some(best.hash)).await?;
		seen.push((twins.context("a half has no dealing of the twin")?, chain.head_at(closed[side]).await?.hash));
		let finalized = chain.finalized_number().await?;
		ensure!(finalized < closed[side], "block {} is final with half of the weight", closed[side]);
		let view = chain.beacon(EPOCH).await?;
		ensure!(view.race.is_none() && view.race_openers.is_empty(), "something was opened on a fork: {view:?}");
	}
	ensure!(seen[0].0 != seen[1].0 && seen[0].1 != seen[1].1, "the halves agree on what they never shared: {seen:?}");
	println!("the halves closed different sets of dealings in blocks {closed:?}, none of them final");
	Ok(closed)
}

/// What the final chain must say of the epoch.
pub fn check(stage: &Stage, record: &Record) -> anyhow::Result<()> {
	let twin = stage.player(Part::Twin)?;
	let known = record.known(EPOCH)?;
	let both = [twin.dealings(known, 2)?, twin.dealings(known, 3)?];
	let (dealings, _) = record.dealings(EPOCH);
	let counted = dealings.get(&twin.account()).context("the twin's dealing is in no final block")?;
	let half = both.iter().position(|dealing| dealing == counted).context("the twin's dealing is of neither half")?;
	println!("the set of {} is everybody's", ["Alice and Bob", "Charlie and Dave"][half]);
	let view = record.view(EPOCH)?;
	ensure!(view.race.is_some() && view.dealers.len() == honest().len() + 1, "another set of dealings: {view:?}");
	ensure!(honest().iter().all(|host| view.dealers.contains(host)), "a node's dealing is gone: {view:?}");
	ensure!(record.events_of(EPOCH, BeaconValue::Race) > 0, "nobody opened anything");
	Ok(())
}
