//! What all epochs share: who plays, what is awaited, and how members of the crowd are made to speak.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{ensure, Context};
use codec::Decode;
use pacer_beacon::{seats, SLOTS, THRESHOLD};
use pacer_localnet::{
	chain::Chain,
	host::Identity,
	network::GENESIS_HOSTS,
	rogue::{Known, Rogue, Said},
};
use pacer_runtime::{AccountId, RuntimeCall, UncheckedExtrinsic};
use pacer_types::{beacon::BeaconDuty, traits::BeaconValue, views::ClockView, EpochIndex, Hash, Moment, Phase, Rejection};
use pallet_randomness::Call;
use serde_json::{json, Value};

use crate::{
	cast::{End, Part},
	net::{Net, CROWD},
};

/// Longest wait for anything: more than an epoch.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Blocks that are looked at again, for the best chain may have changed.
const RECENT: u32 = 6;

/// Everything that the play needs.
pub struct Stage {
	/// The network.
	pub net: Net,
	/// Members of the crowd with a part.
	pub cast: Vec<(Part, Rogue)>,
	/// Members of the crowd without: in the epoch of attacks they do not deal, and open as early as they can.
	pub extras: Vec<Rogue>,
	/// One of the crowd that has no seat.
	pub stranger: Rogue,
}

/// Accounts of the four Hosts with nodes.
pub fn honest() -> [AccountId; 4] {
	GENESIS_HOSTS.map(|name| Identity { name: name.into() }.account())
}

/// One best block, as the play sees it.
pub struct Scene {
	/// Where the clock stands.
	pub clock: ClockView,
	/// What is known of the epoch.
	pub known: Known,
	/// Height.
	pub block: u32,
}

impl Scene {
	/// The moment of the block.
	pub fn now(&self) -> &Moment {
		&self.clock.now
	}
}

impl Stage {
	/// Waits for the first block, and gives parts to those who have seats.
	pub async fn set(net: Net) -> anyhow::Result<Self> {
		net.chain().wait(false, PATIENCE, "the first block", async |n| Ok(n > 0)).await?;
		let known = Known::read(net.chain(), 0, None).await?;
		let weights: Vec<([u8; 32], u64)> =
			net.chain().epoch(0).await?.weights.into_iter().map(|(host, _, consensus)| (host.into(), consensus)).collect();
		let expected: Vec<([u8; 32], u32)> = weights.iter().map(|(host, _)| *host).zip(seats(&weights, SLOTS)).collect();
		for (host, slots) in &expected {
			let found = known.member(&(*host).into()).map_or(0, |member| member.slots);
			ensure!(found == *slots, "a Host should have {slots} slots and has {found}");
		}
		let crowd: u32 = known.members.iter().filter(|member| !honest().contains(&member.host)).map(|member| member.slots).sum();
		println!("{CROWD} Hosts of weight 1 have {crowd} slots of {SLOTS}; {} members", known.members.len());
		ensure!(crowd < THRESHOLD && SLOTS - crowd >= THRESHOLD, "a third of the weight can open or prevent values");

		let (mut seated, strangers): (Vec<Rogue>, Vec<Rogue>) =
			net.crowd.iter().cloned().partition(|rogue| known.member(&rogue.account()).is_some());
		let stranger = strangers.into_iter().next().context("everybody has a seat")?;
		ensure!(seated.len() > Part::ALL.len(), "only {} of the crowd have a seat", seated.len());
		let extras = seated.split_off(Part::ALL.len());
		Ok(Self { net, cast: Part::ALL.into_iter().zip(seated).collect(), extras, stranger })
	}

	/// The first node.
	pub fn chain(&self) -> &Chain {
		self.net.chain()
	}

	/// All of the crowd that have seats.
	pub fn seated(&self) -> impl Iterator<Item = &Rogue> {
		self.cast.iter().map(|(_, rogue)| rogue).chain(&self.extras)
	}

	/// Who plays a part.
	pub fn player(&self, part: Part) -> anyhow::Result<&Rogue> {
		let found = self.cast.iter().find(|(other, _)| *other == part);
		found.map(|(_, rogue)| rogue).with_context(|| format!("nobody plays {part:?}"))
	}

	/// The best block of a node in an epoch.
	pub async fn scene(chain: &Chain, epoch: EpochIndex, block: u32) -> anyhow::Result<Scene> {
		Ok(Scene { clock: chain.clock().await?, known: Known::read(chain, epoch, None).await?, block })
	}

	/// Waits until a node's best block satisfies `done`.
	pub async fn until(chain: &Chain, what: &str, done: impl Fn(&ClockView) -> bool) -> anyhow::Result<u32> {
		let block = chain.wait(false, PATIENCE, what, async |_| Ok(done(&chain.clock().await?))).await?;
		let now = chain.clock().await?.now;
		println!("{what}: block {block}, slot {} of {}", now.slot.saturating_sub(now.phase_start), now.phase.name());
		Ok(block)
	}

	/// Waits until a node is in this phase, or later.
	pub async fn reach(chain: &Chain, epoch: EpochIndex, phase: Phase) -> anyhow::Result<u32> {
		let what = format!("epoch {epoch}, {}", phase.name());
		Self::until(chain, &what, |clock| (clock.now.epoch, clock.now.phase) >= (epoch, phase)).await
	}

	/// Waits until a node's best block is final. Then no tip of a fork is left, by which its pool would judge as well.
	pub async fn settle(chain: &Chain) -> anyhow::Result<()> {
		let block = chain.best_number().await?;
		chain.wait(true, PATIENCE, "the best block to become final", async |n| Ok(n >= block)).await?;
		Ok(())
	}

	/// Does something in every best block in one phase until it is done.
	pub async fn during(
		&self,
		epoch: EpochIndex,
		phase: Phase,
		what: &str,
		mut act: impl AsyncFnMut(&Scene) -> anyhow::Result<Vec<String>>,
	) -> anyhow::Result<()> {
		Self::reach(self.chain(), epoch, phase).await?;
		let mut heads = self.chain().follow(false).await?;
		let mut block = self.chain().best_number().await?;
		loop {
			let scene = Self::scene(self.chain(), epoch, block).await?;
			let left = act(&scene).await.with_context(|| what.to_string())?;
			if left.is_empty() {
				println!(
					"{what}: done in block {block}, slot {} of {}",
					scene.now().slot.saturating_sub(scene.now().phase_start),
					phase.name()
				);
				return Ok(());
			}
			let at = (scene.now().epoch, scene.now().phase);
			ensure!(at == (epoch, phase), "{what}: it is {at:?}, and these are left: {left:?}");
			let head = tokio::time::timeout(PATIENCE, heads.next()).await?.context("the node ended its reports")??;
			block = pacer_localnet::chain::number_of(&head)?;
		}
	}

	/// Makes these of the crowd register their keys, until they are registered.
	pub async fn register(&self, epoch: EpochIndex, who: &[&Rogue]) -> anyhow::Result<()> {
		self.during(epoch, Phase::Inference, "keys of the crowd", async |scene| {
			let mut left = Vec::new();
			for rogue in who {
				if scene.known.member(&rogue.account()).is_none_or(|member| member.key.is_none()) {
					rogue.register_key(self.chain(), scene.now(), &scene.known).await?;
					left.push(rogue.name().to_string());
				}
			}
			Ok(left)
		})
		.await
	}

	/// Whether a Host's turn at a duty is used up, for better or worse.
	pub async fn is_settled(&self, known: &Known, host: &AccountId, duty: BeaconDuty) -> anyhow::Result<bool> {
		if known.rejection(self.chain(), host, duty, None).await?.is_some() {
			return Ok(true);
		}
		let view = self.chain().beacon(known.epoch).await?;
		let done = match duty {
			BeaconDuty::Key => return Ok(known.member(host).is_some_and(|member| member.key.is_some())),
			BeaconDuty::Deal => &view.dealers,
			BeaconDuty::Open(BeaconValue::Race) => &view.race_openers,
			BeaconDuty::Open(BeaconValue::Audit) => &view.audit_openers,
		};
		Ok(done.contains(host))
	}

	/// Lets everybody of the crowd with a key open a value as their parts say; returns who still has to.
	pub async fn open(&self, scene: &Scene, which: BeaconValue) -> anyhow::Result<Vec<String>> {
		let other = if which == BeaconValue::Race { BeaconValue::Audit } else { BeaconValue::Race };
		let sums = [self.sum(scene, which).await?, self.sum(scene, other).await?];
		let parts = self.cast.iter().map(|(part, rogue)| (Some(*part), rogue));
		let mut left = Vec::new();
		for (part, rogue) in parts.chain(self.extras.iter().map(|rogue| (None, rogue))) {
			let end = part.map_or(End::Counts, |part| part.opens(which));
			let wanted = matches!(end, End::Counts | End::Rejected(_));
			if !wanted || self.is_settled(&scene.known, &rogue.account(), BeaconDuty::Open(which)).await? {
				continue;
			}
			left.push(rogue.name().to_string());
			let own = rogue.opening(&scene.known, &sums[0], which)?;
			let others = rogue.opening(&scene.known, &sums[1], other)?;
			let opening = part.map_or(own.clone(), |part| part.opening(which, own, others));
			rogue.open(self.chain(), scene.now(), which, &opening).await?;
		}
		Ok(left)
	}

	async fn sum(&self, scene: &Scene, which: BeaconValue) -> anyhow::Result<pacer_beacon::Sum> {
		scene.known.sum(self.chain(), which, None).await
	}

	/// Dealings in the newest blocks of the best chain, by dealer.
	pub async fn recent_dealings(&self, best: u32) -> anyhow::Result<BTreeMap<AccountId, [Vec<u8>; 2]>> {
		let mut dealings = BTreeMap::new();
		for number in best.saturating_sub(RECENT).max(1)..=best {
			let hash = self.chain().head_at(number).await?.hash;
			for call in calls(self.chain(), hash).await? {
				if let Call::deal { header, race, audit, .. } = call {
					dealings.insert(header.host, [race.into_inner(), audit.into_inner()]);
				}
			}
		}
		Ok(dealings)
	}

	/// Openings that wait in a node's pool, or are in its best chain: those of Hosts with nodes.
	pub async fn honest_openers(&self, epoch: EpochIndex, which: BeaconValue) -> anyhow::Result<Vec<AccountId>> {
		let view = self.chain().beacon(epoch).await?;
		let mut hosts = if which == BeaconValue::Race { view.race_openers } else { view.audit_openers };
		let pool: Vec<String> = self.chain().request("author_pendingExtrinsics", vec![]).await?;
		for text in pool {
			if let Some(Call::open { header, which: value, .. }) = randomness_call(&text)? {
				if value == which {
					hosts.push(header.host);
				}
			}
		}
		hosts.retain(|host| honest().contains(host));
		Ok(hosts)
	}
}

/// Calls of the randomness pallet in a block.
pub async fn calls(chain: &Chain, block: Hash) -> anyhow::Result<Vec<Call<pacer_runtime::Runtime>>> {
	let body: Value = chain.request("chain_getBlock", vec![json!(block)]).await?;
	let list = body["block"]["extrinsics"].as_array().context("a block without extrinsics")?;
	let calls = list.iter().map(|text| randomness_call(text.as_str().unwrap_or_default()));
	Ok(calls.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn randomness_call(extrinsic: &str) -> anyhow::Result<Option<Call<pacer_runtime::Runtime>>> {
	let bytes = hex::decode(extrinsic.trim_start_matches("0x"))?;
	match UncheckedExtrinsic::decode(&mut &bytes[..])?.function {
		RuntimeCall::Randomness(call) => Ok(Some(call)),
		_ => Ok(None),
	}
}

/// Fails unless this was refused for that reason, or because a tip of a fork is still in another phase: a pool judges by
/// all tips, and tells what one of them says.
pub fn refused(said: Said, why: Rejection, what: &str) -> anyhow::Result<()> {
	let is_refused = said.is_refused_with(why) || said.is_refused_with(Rejection::WrongPhase);
	ensure!(is_refused, "{what} should be refused with {why:?}: {said:?}");
	Ok(())
}

/// Fails if what was done before is refused for another reason. A pool may also keep it for a while beside one like it, or
/// for a fork; that it is in no block twice is checked at the end, by [`crate::record::Record::check_once`].
pub fn repeated(said: Said, what: &str) -> anyhow::Result<()> {
	let is_stale = matches!(&said, Said::Refused(text) if text.contains("outdated"));
	ensure!(is_stale || said == Said::Taken, "{what} a second time should be outdated: {said:?}");
	println!("{what} a second time: {}", if is_stale { "refused" } else { "kept, for a fork or beside the first" });
	Ok(())
}
