//! What the chain says of a race once it is decided: who was struck, when, why and by whom.

use std::collections::BTreeMap;

use pacer_localnet::chain::Chain;
use pacer_runtime::{AccountId, RuntimeEvent};
use pacer_types::{views::ClockView, DisputeId, EpochIndex, Moment, Phase};
use pallet_sprint::{Event, Strike};

/// How a count fell.
#[derive(Clone, Debug)]
pub struct Fall {
	/// In which block.
	pub block: u32,
	/// Why.
	pub reason: Strike,
	/// Who challenged it, or demanded its list.
	pub by: Option<AccountId>,
}

/// A dispute.
#[derive(Clone, Debug)]
pub struct Dispute {
	/// Whose list.
	pub subject: AccountId,
	/// Who doubted it.
	pub challenger: AccountId,
	/// Where it began.
	pub opened: (u32, Moment),
	/// Whether the Host answered.
	pub is_answered: bool,
	/// Where it ended, and how.
	pub ended: Option<(u32, Moment, End)>,
}

/// How a dispute ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
	/// The Host fell.
	HostFell,
	/// The challenger lost its deposit.
	DepositLost,
	/// Nobody was right.
	Void,
}

/// The record of a race.
#[derive(Debug, Default)]
pub struct Record {
	/// Counts that fell.
	pub falls: BTreeMap<AccountId, Fall>,
	/// Disputes by number.
	pub disputes: BTreeMap<DisputeId, Dispute>,
	/// First who demanded a Host's list.
	pub demanded: BTreeMap<AccountId, AccountId>,
	/// Blocks of Audit: height and moment.
	pub audit: Vec<(u32, Moment)>,
}

impl Record {
	/// Reads the blocks `from ..= to`, which must be final.
	pub async fn read(chain: &Chain, race: EpochIndex, from: u32, to: u32) -> anyhow::Result<Self> {
		let mut record = Self::default();
		for height in from..=to {
			let head = chain.head_at(height).await?;
			let clock: ClockView = chain.call("clock", (), Some(head.hash)).await?;
			if clock.now.epoch == race && clock.now.phase == Phase::Audit {
				record.audit.push((height, clock.now));
			}
			for event in chain.events(head.hash).await? {
				if let RuntimeEvent::Sprint(event) = event.event {
					record.note(race, height, clock.now, event);
				}
			}
		}
		Ok(record)
	}

	fn note(&mut self, of: EpochIndex, block: u32, now: Moment, event: Event<pacer_runtime::Runtime>) {
		match event {
			Event::Challenged { race, dispute, subject, challenger, .. } if race == of => {
				let opened = (block, now);
				self.disputes.insert(dispute, Dispute { subject, challenger, opened, is_answered: false, ended: None });
			}
			Event::Answered { race, dispute, .. } if race == of => {
				if let Some(dispute) = self.disputes.get_mut(&dispute) {
					dispute.is_answered = true;
				}
			}
			Event::DisputeWon { race, dispute, .. } if race == of => self.end(dispute, block, now, End::HostFell),
			Event::DisputeLost { race, dispute, .. } if race == of => self.end(dispute, block, now, End::DepositLost),
			Event::DisputeVoid { race, dispute, .. } if race == of => self.end(dispute, block, now, End::Void),
			Event::ListDemanded { race, subject, by, .. } if race == of => {
				self.demanded.entry(subject).or_insert(by);
			}
			Event::CountRefuted { epoch, subject, reason } if epoch == of => {
				let by = match reason {
					Strike::Withheld => self.demanded.get(&subject).cloned(),
					_ => self.winner(&subject),
				};
				self.falls.insert(subject, Fall { block, reason, by });
			}
			_ => {}
		}
	}

	fn end(&mut self, id: DisputeId, block: u32, now: Moment, how: End) {
		if let Some(dispute) = self.disputes.get_mut(&id) {
			dispute.ended = Some((block, now, how));
		}
	}

	/// Who won a dispute against this Host.
	fn winner(&self, subject: &AccountId) -> Option<AccountId> {
		let won = |dispute: &&Dispute| dispute.subject == *subject && matches!(dispute.ended, Some((_, _, End::HostFell)));
		self.disputes.values().find(won).map(|dispute| dispute.challenger.clone())
	}

	/// Disputes that an account began.
	pub fn by<'a>(&'a self, challenger: &'a AccountId) -> impl Iterator<Item = &'a Dispute> + 'a {
		self.disputes.values().filter(move |dispute| dispute.challenger == *challenger)
	}
}
