//! The first epoch: Dave's node has no worker, and nobody of the crowd deals, who together have more than half of the
//! committee's weight. Deal is repeated and fails; the chain and its weights stay.

use anyhow::ensure;
use codec::Decode;
use pacer_beacon::EncryptionKey;
use pacer_localnet::{
	network::GENESIS_HOSTS,
	rogue::{Known, Rogue},
};
use pacer_runtime::RuntimeEvent;
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	traits::BeaconValue,
	Phase, Rejection,
};
use pallet_randomness::{DealFailure, Event};

use crate::{
	cast::Part,
	record::Record,
	stage::{honest, refused, repeated, Scene, Stage},
};

const EPOCH: u32 = 0;
/// The node that is restarted after it registered.
const CHARLIE: usize = 2;
/// The node without a worker.
pub const DAVE: usize = 3;
/// How much Dave's clock is ahead from the second epoch on. With a slot or more nobody would take its blocks.
const SKEW_MS: i64 = 400;

/// Plays the epoch.
pub async fn play(stage: &mut Stage) -> anyhow::Result<()> {
	// A node that dies right after it registered deals what belongs to that key: here at the latest when Deal is repeated.
	let charlie = honest()[CHARLIE].clone();
	stage
		.during(EPOCH, Phase::Inference, "Charlie's key", async |scene| {
			let has_key = scene.known.member(&charlie).is_some_and(|member| member.key.is_some());
			Ok(if has_key { vec![] } else { vec!["Charlie".into()] })
		})
		.await?;
	stage.net.restart(CHARLIE, 0)?;
	println!("Charlie's node was killed after it registered");

	let chain = stage.chain();
	// Two whose keys do not hold, one without a key.
	let broken = [stage.player(Part::BadProof)?.clone(), stage.player(Part::Garbage)?.clone()];
	let silent = stage.player(Part::NoKey)?.clone();
	let scene = Stage::scene(chain, EPOCH, 1).await?;
	let fine: Vec<Rogue> = stage.seated().filter(|r| r.name() != silent.name()).cloned().collect();
	let fine: Vec<&Rogue> = fine.iter().filter(|r| broken.iter().all(|b| b.name() != r.name())).collect();
	futures::try_join!(bad_keys(stage, &scene, &broken), stage.register(EPOCH, &fine))?;
	let now = chain.clock().await?.now;
	refused(fine[0].deal(chain, &now, &[vec![], vec![]]).await?, Rejection::WrongPhase, "a dealing before Deal")?;
	let scene = Stage::scene(chain, EPOCH, 1).await?;
	repeated(fine[0].register_key(chain, scene.now(), &scene.known).await?, "a key")?;

	// Who is missing may deal now, but one more is not enough.
	let last = stage.player(Part::Last)?.clone();
	let mut dealings = None;
	stage
		.during(EPOCH, Phase::SpareDeal, "dealings in the repetition", async |scene| {
			let dealers = stage.chain().beacon(EPOCH).await?.dealers;
			let missing: Vec<String> = [&charlie, &last.account()]
				.into_iter()
				.filter(|host| !dealers.contains(host))
				.map(|host| host.to_string())
				.collect();
			if !dealers.contains(&last.account()) {
				let dealings = match &mut dealings {
					Some(known) => known,
					none => none.insert(last.dealings(&scene.known, 0)?),
				};
				last.deal(stage.chain(), scene.now(), dealings).await?;
			}
			Ok(missing)
		})
		.await?;

	stage.net.reconnect(CHARLIE).await?;

	Stage::reach(stage.chain(), EPOCH, Phase::Open).await?;
	stage.net.restart(DAVE, SKEW_MS)?;
	stage.net.reconnect(DAVE).await?;
	nothing_opens(stage, &last).await?;
	Stage::reach(stage.chain(), EPOCH + 1, Phase::Inference).await?;
	let weights = [stage.chain().epoch(EPOCH).await?.weights, stage.chain().epoch(EPOCH + 1).await?.weights];
	ensure!(weights[0] == weights[1], "weights changed without a race: {weights:?}");
	Ok(())
}

/// Keys that do not hold, of those who may have one and of those who may not.
async fn bad_keys(stage: &Stage, scene: &Scene, broken: &[Rogue; 2]) -> anyhow::Result<()> {
	let (chain, known, now) = (stage.chain(), &scene.known, scene.now());
	let proof = |rogue: &Rogue| rogue.beacon_key(known).prove(&known.genesis, EPOCH, &rogue.raw());
	let stranger = &stage.stranger;
	refused(stranger.register_key(chain, now, known).await?, Rejection::NotEntitled, "a key of one without a seat")?;
	let mut header = stranger.node_header(now);
	header.host = broken[0].account();
	let key = stranger.beacon_key(known).public();
	let said = stranger.register_key_as(chain, header, key, proof(stranger)).await?;
	refused(said, Rejection::NotEntitled, "a key in another's name")?;
	let mut header = broken[0].node_header(now);
	header.epoch += 1;
	let said = broken[0].register_key_as(chain, header, key, proof(&broken[0])).await?;
	refused(said, Rejection::WrongEpoch, "a key for an epoch to come")?;

	// Somebody else's proof, and the key that is none.
	let none = EncryptionKey::decode(&mut &[0u8; 32][..])?;
	let keys = [(broken[0].beacon_key(known).public(), proof(stranger)), (none, proof(&broken[1]))];
	let left = async |scene: &Scene| {
		let mut left = Vec::new();
		for (rogue, (key, proof)) in broken.iter().zip(keys) {
			if !stage.is_settled(&scene.known, &rogue.account(), BeaconDuty::Key).await? {
				left.push(rogue.name().to_string());
				rogue.register_key_as(chain, rogue.node_header(scene.now()), key, proof).await?;
			}
		}
		Ok(left)
	};
	stage.during(EPOCH, Phase::Inference, "keys that do not hold", left).await
}

/// In the window of Open there is nothing to open, although there are sums.
async fn nothing_opens(stage: &Stage, opener: &Rogue) -> anyhow::Result<()> {
	let chain = stage.chain();
	Stage::until(chain, "the window of Open without dealings", |clock| {
		clock.now.in_opening_window(&clock.params) || (clock.now.epoch, clock.now.phase) > (EPOCH, Phase::Open)
	})
	.await?;
	let now = chain.clock().await?.now;
	let known = Known::read(chain, EPOCH, None).await?;
	let sum = known.sum(chain, BeaconValue::Race, None).await?;
	let said = opener.open(chain, &now, BeaconValue::Race, &opener.opening(&known, &sum, BeaconValue::Race)?).await?;
	refused(said, Rejection::UnknownSubject, "an opening after a failed Deal")
}

/// What the final chain must say of the epoch.
pub fn check(stage: &Stage, record: &Record) -> anyhow::Result<()> {
	let total: u64 = record.known(EPOCH)?.members.iter().map(|member| member.weight).sum();
	let [alice, bob, charlie, dave] = honest();
	let of = |host| record.known(EPOCH).ok().and_then(|known| known.member(host)).map_or(0, |member| member.weight);
	let early: Vec<_> = record.dealers_until_repeated(EPOCH);
	let weight: u64 = early.iter().map(of).sum();
	ensure!(early.contains(&alice) && early.contains(&bob), "Alice and Bob did not deal at once: {early:?}");
	let events = record.beacon_events(EPOCH);
	let repeated = Event::DealRepeated { epoch: EPOCH, weight, total };
	ensure!(events.contains(&&repeated), "Deal was not repeated: {events:?}");
	// With the one of the crowd that dealt in the repetition.
	let weight = of(&alice) + of(&bob) + of(&charlie) + 1;
	let failed = Event::DealFailed { epoch: EPOCH, reason: DealFailure::LittleWeight { weight, total } };
	ensure!(events.contains(&&failed), "Deal did not fail with {weight} of {total}: {events:?}");
	let is_early = |event: &&&Event<_>| matches!(event, Event::Opened { .. } | Event::ValueDrawn { .. });
	ensure!(events.iter().find(is_early).is_none(), "something was opened after a failed Deal");
	let skipped = pallet_sprint::Event::SprintSkipped { epoch: EPOCH, reason: pallet_sprint::SkipReason::NoRaceValue };
	ensure!(record.has(&RuntimeEvent::Sprint(skipped)), "the race was not skipped for want of a value");

	let view = record.view(EPOCH)?;
	ensure!(view.repeated && view.race.is_none() && view.audit.is_none(), "the view tells another story: {view:?}");
	let faults = |host| view.faults.iter().filter(|f| f.host == host).map(|f| (f.duty, f.fault)).collect::<Vec<_>>();
	ensure!([alice, bob, charlie].into_iter().all(|host| faults(host).is_empty()), "who dealt is at fault: {view:?}");
	ensure!(faults(dave) == [(BeaconDuty::Key, BeaconFault::Missing)], "{} is not at fault", GENESIS_HOSTS[DAVE]);
	for (part, rogue) in &stage.cast {
		let expected = match part {
			Part::NoKey => vec![(BeaconDuty::Key, BeaconFault::Missing)],
			Part::BadProof | Part::Garbage => vec![(BeaconDuty::Key, BeaconFault::WrongProof)],
			Part::Last => vec![],
			_ => vec![(BeaconDuty::Deal, BeaconFault::Missing)],
		};
		ensure!(faults(rogue.account()) == expected, "{part:?} is blamed for {:?}", faults(rogue.account()));
	}
	Ok(())
}
