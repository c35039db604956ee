//! The second epoch: everything that members can send, right and wrong. Charlie's node is killed between its dealing and
//! its openings, Bob's stops between Race and Audit, and finality with it.

use std::{
	collections::{BTreeMap, BTreeSet},
	time::Duration,
};

use anyhow::{ensure, Context};
use pacer_beacon::{interpolate, Error, THRESHOLD};
use pacer_localnet::rogue::{Known, Rogue, Said};
use pacer_runtime::AccountId;
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	traits::BeaconValue,
	Phase, Rejection,
};
use pallet_randomness::{Event, MAX_DEALING};

use crate::{
	cast::{End, Part},
	record::Record,
	silence::DAVE,
	stage::{honest, refused, repeated, Scene, Stage},
};

const EPOCH: u32 = 1;
/// The node that is killed after it dealt.
const CHARLIE: usize = 2;
/// The node that stops.
const BOB: usize = 1;
/// Slots before the end of Race at which it stops: as many as leave no chance that none of them has a block.
const BEFORE_AUDIT: u64 = 8;
/// How long a worker may take to say that it waits for finality: half a phase and a little more.
const SOON: Duration = Duration::from_secs(20);

/// Plays the epoch.
pub async fn play(stage: &mut Stage) -> anyhow::Result<()> {
	let silent = stage.player(Part::NoKey)?.name().to_string();
	let with_keys: Vec<&Rogue> = stage.seated().filter(|rogue| rogue.name() != silent).collect();
	stage.register(EPOCH, &with_keys).await?;
	deal(stage).await?;
	too_early(stage).await?;
	stage
		.during(EPOCH, Phase::Open, "openings of the race value", async |scene| {
			if !scene.now().in_opening_window(&scene.clock.params) {
				return Ok(vec!["the window".into()]);
			}
			let mut left = stage.open(scene, BeaconValue::Race).await?;
			let view = stage.chain().beacon(EPOCH).await?;
			// Charlie's node may take longer to come back than the window is long; Dave is the last to see a block.
			let [alice, bob, _, dave] = honest();
			left.extend([alice, bob, dave].iter().filter(|host| !view.race_openers.contains(host)).map(|h| h.to_string()));
			left.extend(view.race.is_none().then(|| "the value".to_string()));
			Ok(left)
		})
		.await?;
	opened_twice(stage).await?;
	stage.net.reconnect(CHARLIE).await?;
	without_finality(stage).await?;
	Stage::reach(stage.chain(), EPOCH, Phase::Switch).await?;
	Ok(())
}

/// Plays all parts in Deal, and kills Charlie's node once it has dealt.
async fn deal(stage: &mut Stage) -> anyhow::Result<()> {
	let [_, _, charlie, _] = honest();
	let mut hand = Hand::default();
	stage
		.during(EPOCH, Phase::Deal, "Charlie's dealing", async |scene| {
			hand.deal(stage, scene).await?;
			let has_dealt = stage.chain().beacon(EPOCH).await?.dealers.contains(&charlie);
			Ok(if has_dealt { vec![] } else { vec!["Charlie".into()] })
		})
		.await?;
	stage.net.restart(CHARLIE, 0)?;
	println!("Charlie's node was killed after it dealt");
	stage.during(EPOCH, Phase::Deal, "dealings", async |scene| hand.deal(stage, scene).await).await?;

	// More than the call can hold: no node can even read it.
	let scene = Stage::scene(stage.chain(), EPOCH, 0).await?;
	let huge = [vec![0; MAX_DEALING as usize + 1], vec![]];
	let said = stage.player(Part::Oversized)?.deal(stage.chain(), scene.now(), &huge).await;
	ensure!(!matches!(said, Ok(Said::Taken)), "bytes that no block can hold were taken");
	stage.net.check_alive()
}

/// What the crowd has dealt so far.
#[derive(Default)]
struct Hand {
	/// Alice's dealing, for those who wait for it.
	alices: Option<[Vec<u8>; 2]>,
	/// What each part deals.
	made: BTreeMap<Part, [Vec<u8>; 2]>,
	/// Parts that were refused.
	refused: BTreeSet<Part>,
}

impl Hand {
	/// Sends, in one block, what has not come to its end; returns who still has to deal.
	async fn deal(&mut self, stage: &Stage, scene: &Scene) -> anyhow::Result<Vec<String>> {
		let [alice, bob, charlie, dave] = honest();
		if self.alices.is_none() {
			self.alices = stage.recent_dealings(scene.block).await?.remove(&alice);
		}
		let Some(alices) = &self.alices else { return Ok(vec!["Alice".into()]) };
		let dealers = stage.chain().beacon(EPOCH).await?.dealers;
		let missing = [&alice, &bob, &charlie, &dave].into_iter().filter(|host| !dealers.contains(host));
		let mut left: Vec<String> = missing.map(|host| host.to_string()).collect();
		// The last waits for all others.
		let (last, others): (Vec<_>, Vec<_>) = stage.cast.iter().partition(|(part, _)| *part == Part::Last);
		for (part, rogue) in others.into_iter().chain(last) {
			let made = match self.made.get(part) {
				Some(made) => made,
				None => self.made.entry(*part).or_insert(part.dealings(rogue, &scene.known, alices)?),
			};
			if let End::Refused(why) = part.deals() {
				if self.refused.insert(*part) {
					let said = rogue.deal(stage.chain(), scene.now(), made).await?;
					refused(said, why, &format!("the dealing of {part:?}"))?;
				}
				continue;
			}
			let is_silent = part.deals() == End::Silent;
			if is_silent || stage.is_settled(&scene.known, &rogue.account(), BeaconDuty::Deal).await? {
				continue;
			}
			let waits = *part == Part::Last && !left.is_empty();
			left.push(format!("{part:?}"));
			if !waits {
				rogue.deal(stage.chain(), scene.now(), made).await?;
			}
			if *part == Part::Twin {
				rogue.deal(&stage.net.chains[DAVE], scene.now(), &rogue.dealings(&scene.known, 1)?).await?;
			}
		}
		Ok(left)
	}
}

/// Openings before the window, and dealings after Deal.
async fn too_early(stage: &Stage) -> anyhow::Result<()> {
	let colluder = stage.extras.first().context("nobody has no part")?;
	let which = BeaconValue::Race;
	for phase in [Phase::Deal, Phase::SpareDeal, Phase::Open] {
		Stage::reach(stage.chain(), EPOCH, phase).await?;
		if phase == Phase::SpareDeal {
			// No tip of a fork is in Deal any more.
			Stage::settle(stage.chain()).await?;
		}
		let scene = Stage::scene(stage.chain(), EPOCH, 0).await?;
		let sum = scene.known.sum(stage.chain(), which, None).await?;
		let opening = colluder.opening(&scene.known, &sum, which)?;
		let said = colluder.open(stage.chain(), scene.now(), which, &opening).await?;
		ensure!(!scene.now().in_opening_window(&scene.clock.params), "the window was reached before it could be seen");
		refused(said, Rejection::WrongPhase, "an opening before the window")?;
		if phase == Phase::SpareDeal {
			let late = stage.player(Part::SilentDealer)?;
			let said = late.deal(stage.chain(), scene.now(), &late.dealings(&scene.known, 0)?).await?;
			refused(said, Rejection::WrongPhase, "a dealing after Deal")?;
			all_shares_of_the_crowd(stage, &scene).await?;
		}
	}
	Ok(())
}

/// What the whole crowd could compute together as soon as the dealings are fixed: too few shares.
async fn all_shares_of_the_crowd(stage: &Stage, scene: &Scene) -> anyhow::Result<()> {
	let sum = scene.known.sum(stage.chain(), BeaconValue::Race, None).await?;
	let committee = scene.known.committee()?;
	let context = scene.known.context(BeaconValue::Race);
	let mut shares = Vec::new();
	for rogue in stage.seated().filter(|rogue| scene.known.member(&rogue.account()).is_some_and(|m| m.key.is_some())) {
		let opening = context.open(&committee, &sum, &rogue.raw(), &rogue.beacon_key(&scene.known))?;
		let slots = committee.slots_of(&rogue.raw()).context("a member without slots")?;
		shares.extend(slots.zip(opening.shares()));
	}
	let found = u32::try_from(shares.len())?;
	let together = interpolate(&shares, THRESHOLD);
	ensure!(together == Err(Error::TooFew { needed: THRESHOLD, found }), "{found} shares gave {together:?}");
	println!("the crowd's {found} shares of the race value make nothing before it is opened");
	Ok(())
}

/// What was opened once is not opened again.
async fn opened_twice(stage: &Stage) -> anyhow::Result<()> {
	let scene = Stage::scene(stage.chain(), EPOCH, 0).await?;
	let sum = scene.known.sum(stage.chain(), BeaconValue::Race, None).await?;
	let twice = stage.extras.first().context("nobody has no part")?;
	let opening = twice.opening(&scene.known, &sum, BeaconValue::Race)?;
	repeated(twice.open(stage.chain(), scene.now(), BeaconValue::Race, &opening).await?, "an opening")
}

/// Audit begins without finality: the nodes' workers wait, and the crowd's shares alone make no value. Then finality comes
/// back.
async fn without_finality(stage: &mut Stage) -> anyhow::Result<()> {
	Stage::until(stage.chain(), "the end of Race", |clock| {
		let at = (clock.now.epoch, clock.now.phase);
		at > (EPOCH, Phase::Race) || (at.1 == Phase::Race && clock.now.slot + BEFORE_AUDIT >= clock.now.phase_end)
	})
	.await?;
	let phase = stage.chain().clock().await?.now.phase;
	ensure!(phase == Phase::Race, "it is {phase:?} already, and Bob has not stopped");
	stage.net.freeze(BOB, true)?;
	let outcome = wait_for_finality(stage).await;
	// Whatever came of it.
	stage.net.freeze(BOB, false)?;
	outcome?;
	let now = stage.chain().clock().await?.now;
	println!("Bob's node goes on in slot {} of {}", now.slot.saturating_sub(now.phase_start), now.phase.name());
	stage
		.during(EPOCH, Phase::Audit, "openings of the audit value", async |scene| {
			let mut left = stage.open(scene, BeaconValue::Audit).await?;
			let view = stage.chain().beacon(EPOCH).await?;
			left.extend(honest().iter().filter(|host| !view.audit_openers.contains(host)).map(|h| h.to_string()));
			left.extend(view.audit.is_none().then(|| "the value".to_string()));
			Ok(left)
		})
		.await
}

async fn wait_for_finality(stage: &mut Stage) -> anyhow::Result<()> {
	let in_window =
		|clock: &pacer_types::views::ClockView| clock.now.phase == Phase::Audit && clock.now.in_opening_window(&clock.params);
	Stage::until(stage.chain(), "the window of Audit without finality", in_window).await?;
	let scene = Stage::scene(stage.chain(), EPOCH, 0).await?;
	// Too long, too short, and of one who may not: whatever comes of it, it comes before anything is decoded.
	let player = |part| stage.player(part);
	let sum = scene.known.sum(stage.chain(), BeaconValue::Audit, None).await?;
	let short = player(Part::Gibberish)?.opening(&scene.known, &sum, BeaconValue::Audit)?;
	let said = player(Part::Gibberish)?.open(stage.chain(), scene.now(), BeaconValue::Audit, &short[1..]).await?;
	refused(said, Rejection::Malformed, "an opening that is too short")?;
	let said = player(Part::NoKey)?.open(stage.chain(), scene.now(), BeaconValue::Audit, &short).await?;
	refused(said, Rejection::NotEntitled, "an opening without a key")?;
	stage.open(&scene, BeaconValue::Audit).await?;

	let closed = scene.known.round.race_closed.context("Race is not closed")?;
	for at in [0, DAVE] {
		stage.net.heard(at, &format!("waiting to open the Audit value of epoch {EPOCH}"), SOON).await?;
	}
	let finalized = stage.chain().finalized_number().await?;
	ensure!(finalized < closed, "block {closed} is final although Bob stopped: {finalized}");
	let openers = stage.honest_openers(EPOCH, BeaconValue::Audit).await?;
	ensure!(openers.is_empty(), "opened before block {closed} was final: {openers:?}");
	ensure!(stage.chain().beacon(EPOCH).await?.audit.is_none(), "there is an audit value before anybody may open it");
	println!("in Audit's window block {closed} is not final, {finalized} is; no node opens anything");
	Ok(())
}

/// What the final chain must say of the epoch.
pub fn check(stage: &Stage, record: &Record) -> anyhow::Result<()> {
	let view = record.view(EPOCH)?;
	ensure!(!view.repeated, "Deal was repeated");
	let faults = |host: &AccountId| view.faults.iter().filter(|f| f.host == *host).map(|f| (f.duty, f.fault)).collect::<Vec<_>>();
	println!("{:<15} {:<10} {:>9}  faults", "part", "who", "dealt");
	for (part, rogue) in &stage.cast {
		let (who, expected) = (rogue.account(), part.faults());
		let dealt = view.dealers.contains(&who);
		println!("{:<15} {:<10} {dealt:>9}  {:?}", format!("{part:?}"), rogue.name(), faults(&who));
		ensure!(faults(&who) == expected, "{part:?} should be blamed for {expected:?}");
		ensure!(dealt == (part.deals() == End::Counts), "{part:?} is a dealer: {dealt}");
		if let End::Rejected(fault) = part.deals() {
			let event = Event::DealingRejected { epoch: EPOCH, host: who.clone(), fault };
			ensure!(record.beacon_events(EPOCH).contains(&&event), "no event tells of {part:?}'s dealing");
		}
		if let End::Rejected(fault) = part.opens(BeaconValue::Race) {
			let event = Event::OpeningRejected { epoch: EPOCH, which: BeaconValue::Race, host: who, fault };
			ensure!(record.beacon_events(EPOCH).contains(&&event), "no event tells of {part:?}'s opening");
		}
	}
	for rogue in &stage.extras {
		let expected = [(BeaconDuty::Deal, BeaconFault::Missing)];
		ensure!(faults(&rogue.account()) == expected, "{} opened everything in time", rogue.name());
	}
	let [alice, bob, charlie, dave] = honest();
	ensure!([&alice, &bob, &dave].into_iter().all(|host| faults(host).is_empty()), "an honest Host is blamed: {view:?}");
	let late = [(BeaconDuty::Open(BeaconValue::Race), BeaconFault::Missing)];
	let charlies = faults(&charlie);
	ensure!(charlies.is_empty() || charlies == late, "Charlie did not open what it dealt: {charlies:?}");
	println!(
		"Charlie's node was killed after it dealt and opened {}",
		if charlies.is_empty() { "both values" } else { "the audit value" }
	);
	ensure!(view.dealers.contains(&charlie), "Charlie's dealing does not count");
	twin(stage, record)
}

/// The twin's two dealings: one of them is in everybody's set.
fn twin(stage: &Stage, record: &Record) -> anyhow::Result<()> {
	let twin = stage.player(Part::Twin)?;
	let known: &Known = record.known(EPOCH)?;
	let both = [twin.dealings(known, 0)?, twin.dealings(known, 1)?];
	let (dealings, _) = record.dealings(EPOCH);
	let counted = dealings.get(&twin.account()).context("the twin's dealing is in no block")?;
	let which = both.iter().position(|dealing| dealing == counted).context("the twin's dealing is neither of its two")?;
	println!("of the twin's two dealings number {} is everybody's", which + 1);
	Ok(())
}
