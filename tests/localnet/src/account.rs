//! What happened, by epoch and Host: the demo's table and its JSON.

use std::collections::BTreeMap;

use anyhow::Context;
use pacer_runtime::{AccountId, RuntimeEvent};
use pacer_types::{ledger::EpochTotals, traits::WorkCounts, views::HostView, Balance, EpochIndex, Hash};
use serde::Serialize;

use crate::{
	chain::{Chain, Events},
	stats::chi_square,
};

/// What a Host did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostRow {
	/// Name in the local network.
	pub name: String,
	/// Account.
	pub account: String,
	/// Work weight by epoch.
	pub weights: BTreeMap<EpochIndex, u64>,
	/// Blocks of the final chain it made.
	pub blocks_authored: u64,
	/// Inferences it executed.
	pub executed: u64,
	/// Inferences of others it verified.
	pub verified: u64,
	/// Inferences it was drawn for and missed.
	pub missed: u64,
	/// What it earned, in the smallest unit.
	pub earned: Balance,
	/// What it claimed, in the smallest unit.
	pub claimed: Balance,
}

/// An epoch.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EpochRow {
	/// Index.
	pub epoch: EpochIndex,
	/// The race value, if there was one.
	pub seed: Option<String>,
	/// Counts by Host name.
	pub counts: BTreeMap<String, u32>,
	/// Work weights that were in force, by Host name.
	pub weights: BTreeMap<String, u64>,
	/// Consensus weights that were in force, by Host name.
	pub consensus: BTreeMap<String, u64>,
	/// Blocks of the final chain by author.
	pub blocks: BTreeMap<String, u64>,
}

/// Sums over inferences.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inferences {
	/// Recorded starts.
	pub started: u64,
	/// Recorded results.
	pub finished: u64,
	/// Hung and refunded.
	pub expired: u64,
	/// Passed verdicts.
	pub verified: u64,
	/// Confirmed fails.
	pub failed: u64,
	/// Refunds.
	pub refunded: u64,
}

/// How shares of blocks fit the weights.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BlockShares {
	/// Blocks counted.
	pub blocks: u64,
	/// Chi-square statistic against 1 - (1 - c)^(w/W), summed over epochs.
	pub chi_square: f64,
	/// Its p-value.
	pub p_value: f64,
}

/// The block in which one change of weights became active.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Activation {
	/// The epoch whose weights they are.
	pub epoch: EpochIndex,
	/// First block of Switch: frozen and announced.
	pub frozen_at: u32,
	/// First block with the new BABE weights.
	pub babe_at: u32,
	/// Block with the new GRANDPA set.
	pub grandpa_at: u32,
}

/// Median times to the first token.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ttft {
	/// Straight to the engine.
	pub direct: f64,
	/// Through a transfer agent.
	pub network: f64,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
	/// Height of the best block seen.
	pub blocks: u32,
	/// Height of the last final block.
	pub finalized: u32,
	/// Epochs.
	pub epochs: Vec<EpochRow>,
	/// Hosts.
	pub hosts: Vec<HostRow>,
	/// Inferences.
	pub inferences: Inferences,
	/// Times to the first token, in ms.
	pub ttft_ms: Ttft,
	/// Whether every unit of money is accounted for.
	pub conservation_ok: bool,
	/// Shares of blocks.
	pub block_shares: BlockShares,
	/// Changes of weights.
	pub activations: Vec<Activation>,
}

/// Reads the final chain block by block.
pub struct Scanner {
	next: u32,
	epochs: BTreeMap<EpochIndex, EpochRow>,
	hosts: BTreeMap<AccountId, HostRow>,
	activations: BTreeMap<EpochIndex, Activation>,
	names: BTreeMap<AccountId, String>,
	done: BTreeMap<EpochIndex, (EpochTotals, BTreeMap<AccountId, WorkCounts>)>,
}

impl Scanner {
	/// Starts at block 1. `names` are those of the Hosts known so far.
	pub fn new(names: impl IntoIterator<Item = (AccountId, String)>) -> Self {
		Self {
			next: 1,
			epochs: BTreeMap::new(),
			hosts: BTreeMap::new(),
			activations: BTreeMap::new(),
			names: names.into_iter().collect(),
			done: BTreeMap::new(),
		}
	}

	/// Another Host.
	pub fn add_name(&mut self, account: AccountId, name: String) {
		self.names.insert(account, name);
	}

	fn name(&self, account: &AccountId) -> String {
		self.names.get(account).cloned().unwrap_or_else(|| account.to_string())
	}

	/// Reads up to the final block `to`.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn scan(&mut self, chain: &Chain, to: u32) -> anyhow::Result<()> {
		while self.next <= to {
			let head = chain.head_at(self.next).await?;
			let clock: pacer_types::views::ClockView = chain.call("clock", (), Some(head.hash)).await?;
			let epoch = clock.now.epoch;
			if !self.epochs.contains_key(&epoch) {
				self.begin_epoch(chain, epoch, head.hash).await?;
				self.note_work(chain).await?;
			}
			let validators: Vec<AccountId> = chain.value("Session", "Validators", head.hash).await?;
			let author = head.author.and_then(|i| validators.get(i as usize)).context("a block without author")?;
			let name = self.name(author);
			*self.epochs.entry(epoch).or_default().blocks.entry(name).or_default() += 1;
			self.host(author).blocks_authored += 1;
			let events = chain.events(head.hash).await?;
			self.read_events(head.number, epoch, &events);
			self.next += 1;
		}
		Ok(())
	}

	fn host(&mut self, account: &AccountId) -> &mut HostRow {
		let name = self.name(account);
		self.hosts.entry(account.clone()).or_insert_with(|| HostRow { name, account: account.to_string(), ..Default::default() })
	}

	async fn begin_epoch(&mut self, chain: &Chain, epoch: EpochIndex, at: Hash) -> anyhow::Result<()> {
		let view: pacer_types::views::EpochView = chain.call("epoch", epoch, Some(at)).await?;
		let mut row = EpochRow { epoch, ..Default::default() };
		for (account, work, consensus) in &view.weights {
			row.weights.insert(self.name(account), *work);
			row.consensus.insert(self.name(account), *consensus);
			self.host(account).weights.insert(epoch, *work);
		}
		self.epochs.insert(epoch, row);
		Ok(())
	}

	/// Takes down what was done in the epochs that the chain still knows.
	async fn note_work(&mut self, chain: &Chain) -> anyhow::Result<()> {
		let newest = self.epochs.keys().next_back().copied().unwrap_or(0);
		let known: Vec<AccountId> = self.names.keys().cloned().collect();
		for epoch in newest.saturating_sub(2)..=newest {
			let totals = chain.epoch(epoch).await?.totals;
			let mut work = BTreeMap::new();
			for account in &known {
				work.insert(account.clone(), chain.call("work", (epoch, account), None).await?);
			}
			self.done.insert(epoch, (totals, work));
		}
		Ok(())
	}

	fn read_events(&mut self, block: u32, epoch: EpochIndex, events: &Events) {
		for record in events {
			match &record.event {
				RuntimeEvent::Sprint(pallet_sprint::Event::Committed { epoch, host, count, .. }) => {
					let name = self.name(host);
					self.epochs.entry(*epoch).or_default().counts.insert(name, *count);
				}
				RuntimeEvent::Sprint(pallet_sprint::Event::WeightsFrozen { epoch, .. }) => {
					self.activations.entry(*epoch).or_insert(Activation { epoch: *epoch, ..Default::default() }).frozen_at =
						block;
				}
				RuntimeEvent::Session(pallet_session::Event::NewSession { .. }) => {
					if let Some(a) = self.activations.get_mut(&epoch).filter(|a| a.babe_at == 0) {
						a.babe_at = block;
					}
				}
				RuntimeEvent::Grandpa(pallet_grandpa::Event::NewAuthorities { .. }) => {
					if let Some(a) = self.activations.get_mut(&epoch) {
						a.grandpa_at = block;
					}
				}
				_ => {}
			}
		}
	}

	/// Puts everything together.
	///
	/// # Errors
	/// If the node does not answer.
	pub async fn report(mut self, chain: &Chain, blocks: u32, ttft_ms: Ttft) -> anyhow::Result<Report> {
		self.note_work(chain).await?;
		let inferences = self.sum_work();
		let views: Vec<HostView> = chain.hosts().await?;
		for view in &views {
			let earned: (Balance, Balance) = chain.call("earnings", &view.account, None).await?;
			let row = self.host(&view.account);
			(row.earned, row.claimed) = earned;
		}
		let indices: Vec<EpochIndex> = self.epochs.keys().copied().collect();
		for epoch in indices {
			let beacon = chain.beacon(epoch).await?;
			if let Some(row) = self.epochs.get_mut(&epoch) {
				row.seed = beacon.race.map(|seed| format!("0x{}", hex::encode(seed)));
			}
		}
		let block_shares = self.block_shares();
		Ok(Report {
			blocks,
			finalized: self.next.saturating_sub(1),
			epochs: self.epochs.into_values().collect(),
			hosts: self.hosts.into_values().collect(),
			inferences,
			ttft_ms,
			conservation_ok: chain.conservation().await?.ok,
			block_shares,
			activations: self.activations.into_values().collect(),
		})
	}

	fn sum_work(&mut self) -> Inferences {
		let mut sums = Inferences::default();
		for (totals, work) in std::mem::take(&mut self.done).into_values() {
			sums.started += u64::from(totals.started);
			sums.finished += u64::from(totals.finished);
			sums.expired += u64::from(totals.expired);
			sums.verified += u64::from(totals.verified);
			sums.failed += u64::from(totals.failed);
			sums.refunded += u64::from(totals.refunded);
			for (account, counts) in work {
				let row = self.host(&account);
				row.executed += u64::from(counts.executed);
				row.verified += u64::from(counts.verified);
				row.missed += u64::from(counts.missed);
			}
		}
		sums
	}

	/// Blocks of each epoch against the chance that a Host is the author of a slot that has one.
	fn block_shares(&self) -> BlockShares {
		let mut shares = BlockShares::default();
		let mut degrees = 0;
		for row in self.epochs.values() {
			let total: u64 = row.consensus.values().sum();
			let names: Vec<&String> = row.consensus.keys().collect();
			let expected: Vec<f64> =
				names.iter().map(|n| 1.0 - 0.5f64.powf(row.consensus[*n] as f64 / total.max(1) as f64)).collect();
			let counts: Vec<u64> = names.iter().map(|n| row.blocks.get(*n).copied().unwrap_or(0)).collect();
			let blocks: u64 = counts.iter().sum();
			// A handful of blocks says nothing and spoils the approximation.
			if blocks < 40 || counts.len() < 2 {
				continue;
			}
			shares.blocks += blocks;
			shares.chi_square += chi_square(&counts, &expected).0;
			degrees += counts.len() as u32 - 1;
		}
		shares.p_value = crate::stats::chi_square_p(shares.chi_square, degrees);
		shares
	}
}
