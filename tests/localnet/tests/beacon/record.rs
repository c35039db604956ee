//! What the final chain says of the randomness, the same on every node, and its values computed again from what was sent.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure, Context};
use pacer_beacon::{interpolate, Dealing, Opening, Sum, THRESHOLD};
use pacer_localnet::rogue::Known;
use pacer_runtime::{AccountId, Runtime, RuntimeEvent};
use pacer_types::{
	beacon::BeaconDuty,
	traits::BeaconValue,
	views::{BeaconView, ClockView},
	EpochIndex, Hash, Moment,
};
use pallet_randomness::{Call, Event};

use crate::stage::{calls, Stage};

/// Dealings of both values, encoded, by dealer.
type Dealings = BTreeMap<AccountId, [Vec<u8>; 2]>;

/// A final block.
struct Block {
	number: u32,
	now: Moment,
	events: Vec<RuntimeEvent>,
	calls: Vec<Call<Runtime>>,
}

/// All final blocks up to the last one that is looked at.
pub struct Record {
	blocks: Vec<Block>,
	/// Hash of the last.
	last: Hash,
	/// What the last knows of each epoch.
	epochs: Vec<(Known, BeaconView)>,
	clock: pacer_types::ClockParams,
}

impl Record {
	/// Reads the chain up to a block that is final on the first node.
	pub async fn read(stage: &Stage, last: u32) -> anyhow::Result<Self> {
		let chain = stage.chain();
		let mut blocks = Vec::new();
		for number in 1..=last {
			let hash = chain.head_at(number).await?.hash;
			let clock: ClockView = chain.call("clock", (), Some(hash)).await?;
			let events = chain.events(hash).await?.into_iter().map(|record| record.event).collect();
			blocks.push(Block { number, now: clock.now, events, calls: calls(chain, hash).await? });
		}
		let last = chain.head_at(last).await?.hash;
		let mut epochs = Vec::new();
		for epoch in 0..=blocks.last().map_or(0, |block| block.now.epoch) {
			epochs.push((Known::read(chain, epoch, Some(last)).await?, chain.call("beacon", epoch, Some(last)).await?));
		}
		let clock = chain.clock().await?.params;
		println!("{} final blocks were read", blocks.len());
		Ok(Self { blocks, last, epochs, clock })
	}

	/// Every node must have the same last block, and must answer the same in it.
	pub async fn check_nodes(&self, stage: &Stage) -> anyhow::Result<()> {
		let last = self.blocks.last().context("there are no blocks")?.number;
		for chain in &stage.net.chains {
			ensure!(chain.head_at(last).await?.hash == self.last, "the nodes have different blocks {last}");
			ensure!(chain.finalized_number().await? >= last, "block {last} is not final on every node");
			for (known, view) in &self.epochs {
				let own: BeaconView = chain.call("beacon", known.epoch, Some(self.last)).await?;
				ensure!(own == *view, "the nodes have different views of epoch {}: {own:?} and {view:?}", known.epoch);
			}
		}
		for (known, view) in &self.epochs {
			let hex = |value: Option<[u8; 32]>| value.map_or("none".into(), hex::encode);
			println!("epoch {}: race {}, audit {}", known.epoch, hex(view.race), hex(view.audit));
		}
		Ok(())
	}

	/// Nobody's key, dealing or opening may be in two blocks, be it right or wrong.
	pub fn check_once(&self) -> anyhow::Result<()> {
		let mut seen = BTreeSet::new();
		for block in &self.blocks {
			for call in &block.calls {
				let (header, duty) = match call {
					Call::register_key { header, .. } => (header, BeaconDuty::Key),
					Call::deal { header, .. } => (header, BeaconDuty::Deal),
					Call::open { header, which, .. } => (header, BeaconDuty::Open(*which)),
					_ => continue,
				};
				ensure!(header.epoch == block.now.epoch, "{duty:?} of epoch {} in epoch {}", header.epoch, block.now.epoch);
				let is_new = seen.insert((header.epoch, header.host.clone(), duty));
				ensure!(is_new, "{duty:?} of {} is in two blocks, the second is {}", header.host, block.number);
			}
		}
		println!("{} keys, dealings and openings are in the blocks, none of them twice", seen.len());
		Ok(())
	}

	fn epoch(&self, epoch: EpochIndex) -> anyhow::Result<&(Known, BeaconView)> {
		self.epochs.get(epoch as usize).with_context(|| format!("nothing is known of epoch {epoch}"))
	}

	/// The committee and round of an epoch.
	pub fn known(&self, epoch: EpochIndex) -> anyhow::Result<&Known> {
		Ok(&self.epoch(epoch)?.0)
	}

	/// What the runtime API says of an epoch.
	pub fn view(&self, epoch: EpochIndex) -> anyhow::Result<&BeaconView> {
		Ok(&self.epoch(epoch)?.1)
	}

	/// Whether this happened.
	pub fn has(&self, event: &RuntimeEvent) -> bool {
		self.blocks.iter().any(|block| block.events.contains(event))
	}

	/// Events of the randomness with their blocks, in order.
	fn events(&self, epoch: EpochIndex) -> impl Iterator<Item = (&Block, &Event<Runtime>)> {
		let of = move |block: &&Block| block.now.epoch == epoch;
		self.blocks.iter().filter(of).flat_map(|block| {
			block.events.iter().filter_map(move |event| match event {
				RuntimeEvent::Randomness(event) => Some((block, event)),
				_ => None,
			})
		})
	}

	/// Events of the randomness in an epoch, in order.
	pub fn beacon_events(&self, epoch: EpochIndex) -> Vec<&Event<Runtime>> {
		self.events(epoch).map(|(_, event)| event).collect()
	}

	/// How many members opened a value.
	pub fn events_of(&self, epoch: EpochIndex, value: BeaconValue) -> usize {
		self.events(epoch).filter(|(_, event)| matches!(event, Event::Opened { which, .. } if *which == value)).count()
	}

	/// Who dealt before Deal was repeated.
	pub fn dealers_until_repeated(&self, epoch: EpochIndex) -> Vec<AccountId> {
		let events = self.events(epoch).take_while(|(_, event)| !matches!(event, Event::DealRepeated { .. }));
		let dealt = |(_, event): (_, &Event<Runtime>)| match event {
			Event::Dealt { host, .. } => Some(host.clone()),
			_ => None,
		};
		events.filter_map(dealt).collect()
	}

	/// Values that were drawn.
	pub fn drawn(&self) -> Vec<(EpochIndex, BeaconValue)> {
		let drawn = |event: &RuntimeEvent| match event {
			RuntimeEvent::Randomness(Event::ValueDrawn { epoch, which, .. }) => Some((*epoch, *which)),
			_ => None,
		};
		self.blocks.iter().flat_map(|block| block.events.iter().filter_map(drawn)).collect()
	}

	/// What was dealt in an epoch and counts, and what was dealt and does not.
	pub fn dealings(&self, epoch: EpochIndex) -> (Dealings, Dealings) {
		let dealt =
			|host: &AccountId| self.events(epoch).any(|(_, event)| matches!(event, Event::Dealt { host: h, .. } if h == host));
		let calls = self.blocks.iter().filter(|block| block.now.epoch == epoch).flat_map(|block| &block.calls);
		let dealings = calls.filter_map(|call| match call {
			Call::deal { header, race, audit, .. } => Some((header.host.clone(), [race.to_vec(), audit.to_vec()])),
			_ => None,
		});
		dealings.partition(|(host, _)| dealt(host))
	}

	/// Computes a value from the dealings and openings in the final blocks, and compares it, and everything on the way, with
	/// what the chain says.
	pub async fn compute(&self, stage: &Stage, epoch: EpochIndex, which: BeaconValue) -> anyhow::Result<()> {
		let known = self.known(epoch)?;
		let (committee, context) = (known.committee()?, known.context(which));
		let at = usize::from(which == BeaconValue::Audit);
		let (dealt, rejected) = self.dealings(epoch);
		let mut sum = Sum::new(committee.live_slots());
		let mut set = Vec::new();
		for (host, both) in &dealt {
			let dealing = Dealing::decode(&both[at], committee.live_slots(), THRESHOLD)?;
			context.verify_dealing(&committee, &host.clone().into(), &dealing)?;
			sum.add(&dealing)?;
			set.push((host.clone().into(), dealing.hash()));
		}
		for (host, both) in &rejected {
			let holds = [BeaconValue::Race, BeaconValue::Audit].into_iter().zip(both).all(|(which, bytes)| {
				Dealing::decode(bytes, committee.live_slots(), THRESHOLD)
					.is_ok_and(|d| known.context(which).verify_dealing(&committee, &host.clone().into(), &d).is_ok())
			});
			ensure!(!holds, "a dealing that holds was rejected: {host}");
		}
		let stored = known.sum(stage.chain(), which, Some(self.last)).await?;
		ensure!(stored == sum, "the chain's sum is not that of the dealings in its blocks");

		let mut shares = Vec::new();
		for host in self.openers_up_to_value(epoch, which)? {
			let opening = self.opening(epoch, which, &host)?;
			let raw: [u8; 32] = host.into();
			let slots = committee.slots_of(&raw).context("an opener without slots")?;
			let opening = Opening::decode(opening, u32::try_from(slots.len())?)?;
			context.verify_opening(&committee, &sum, &raw, &opening)?;
			shares.extend(slots.zip(opening.shares()));
		}
		// Not those that the chain took.
		shares.reverse();
		let value = context.value(&set, &interpolate(&shares, THRESHOLD)?)?;
		let view = self.view(epoch)?;
		let chains = if which == BeaconValue::Race { view.race } else { view.audit };
		ensure!(chains == Some(value), "{which:?} of epoch {epoch} is {value:?} and not {chains:?}");
		println!("{which:?} of epoch {epoch} computed again from {} dealings and {} shares", set.len(), shares.len());
		Ok(())
	}

	/// All who opened a value, once it is sure that the value came with the share that reached the threshold, that all opened
	/// in the window, and after the block that must be final before.
	fn openers_up_to_value(&self, epoch: EpochIndex, value: BeaconValue) -> anyhow::Result<Vec<AccountId>> {
		let closed = self.known(epoch)?.round.closed_for(value).context("the value's subject is not closed")?;
		let (mut open, mut openers, mut drawn) = (0, Vec::new(), None);
		for (block, event) in self.events(epoch) {
			match event {
				Event::Opened { which, host, slots, .. } if *which == value => {
					ensure!(block.number > closed, "opened in block {}, before block {closed}", block.number);
					ensure!(block.now.in_opening_window(&self.clock), "opened at {:?}", block.now);
					let had = open >= THRESHOLD;
					ensure!(had == drawn.is_some(), "the value was there with {open} slots: {drawn:?}");
					open += slots;
					openers.push(host.clone());
				}
				Event::ValueDrawn { which, .. } if *which == value => {
					ensure!(drawn.is_none() && open >= THRESHOLD, "a value from {open} slots");
					drawn = Some(block.number);
				}
				_ => {}
			}
		}
		let drawn = drawn.context("there is no value")?;
		println!("{value:?} of epoch {epoch} came in block {drawn} with slot {THRESHOLD}; {open} slots were opened");
		Ok(openers)
	}

	/// The opening that a Host sent, and that counts.
	fn opening(&self, epoch: EpochIndex, value: BeaconValue, opener: &AccountId) -> anyhow::Result<&[u8]> {
		for call in self.blocks.iter().filter(|block| block.now.epoch == epoch).flat_map(|block| &block.calls) {
			if let Call::open { header, which, opening, .. } = call {
				if header.host == *opener && *which == value {
					return Ok(opening);
				}
			}
		}
		bail!("the opening of {opener} is in no block")
	}
}
