//! What the pallet tells; part of the pallet's module by `import_section`.

use frame_support::pallet_macros::pallet_section;

/// Events and errors of the pallet.
#[pallet_section]
mod events {
	/// What happened.
	#[pallet::event]
	#[pallet::generate_deposit(pub(super) fn deposit_event)]
	pub enum Event<T: Config> {
		/// A phase began.
		PhaseChanged {
			/// The epoch.
			epoch: EpochIndex,
			/// The phase.
			phase: Phase,
		},
		/// A Host committed to its nonces; replaces its earlier commitment of the epoch.
		Committed {
			/// The epoch.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// Nonces it claims.
			count: u32,
			/// Root of their range tree.
			root: Hash,
		},
		/// A commitment was dropped because its bond could not be locked; the earlier one stays.
		CommitDropped {
			/// The epoch.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// Nonces it claims.
			count: u32,
		},
		/// A position of a list is in doubt; the Host has to answer.
		Challenged {
			/// Epoch of the race.
			race: EpochIndex,
			/// Number of the dispute.
			dispute: DisputeId,
			/// Whose list.
			subject: AccountId,
			/// Who doubts it.
			challenger: AccountId,
			/// Index in the list.
			position: u32,
			/// Last slot to answer in.
			deadline: Slot,
		},
		/// A challenge was dropped because its deposit could not be locked.
		ChallengeDropped {
			/// Epoch of the race.
			race: EpochIndex,
			/// Whose list.
			subject: AccountId,
			/// Who doubts it.
			challenger: AccountId,
			/// Index in the list.
			position: u32,
		},
		/// A challenged Host opened the position; the challenger has to refute it.
		Answered {
			/// Epoch of the race.
			race: EpochIndex,
			/// Number of the dispute.
			dispute: DisputeId,
			/// The nonce at the position.
			nonce: u64,
			/// Last slot to refute in.
			deadline: Slot,
		},
		/// A challenger was right; its deposit is returned.
		DisputeWon {
			/// Epoch of the race.
			race: EpochIndex,
			/// Number of the dispute.
			dispute: DisputeId,
			/// Whose list.
			subject: AccountId,
			/// What was wrong.
			reason: Strike,
		},
		/// A challenger was wrong or silent; its deposit is burned.
		DisputeLost {
			/// Epoch of the race.
			race: EpochIndex,
			/// Number of the dispute.
			dispute: DisputeId,
			/// Whose list.
			subject: AccountId,
			/// Who was wrong.
			challenger: AccountId,
			/// What was burned.
			deposit: Balance,
		},
		/// A dispute ended undecided; the deposit is returned.
		DisputeVoid {
			/// Epoch of the race.
			race: EpochIndex,
			/// Number of the dispute.
			dispute: DisputeId,
			/// Whose list.
			subject: AccountId,
		},
		/// A Host has to post the openings of its sampled positions.
		ListDemanded {
			/// Epoch of the race.
			race: EpochIndex,
			/// Whose list.
			subject: AccountId,
			/// Whose voice or deposit decided.
			by: AccountId,
			/// Last slot to post in.
			deadline: Slot,
		},
		/// A Host posted openings that were demanded.
		ListPosted {
			/// Epoch of the race.
			race: EpochIndex,
			/// Whose list.
			subject: AccountId,
			/// Sampled positions that are still missing; with none the demand is met.
			missing: u32,
		},
		/// A count is refuted: it is zero.
		CountRefuted {
			/// The epoch.
			epoch: EpochIndex,
			/// Whose count.
			subject: AccountId,
			/// Why.
			reason: Strike,
		},
		/// The race of an epoch does not count; weights stay for one more epoch.
		SprintSkipped {
			/// The epoch.
			epoch: EpochIndex,
			/// Why.
			reason: SkipReason,
		},
		/// The weights of an epoch are fixed.
		WeightsFrozen {
			/// The epoch in which they will be used.
			epoch: EpochIndex,
			/// The weights.
			weights: Vec<HostWeight>,
		},
		/// A Host will get no weight from the next race that counts.
		Penalised {
			/// The Host.
			host: AccountId,
		},
	}

	/// Why a call of a wallet fails.
	#[pallet::error]
	pub enum Error<T> {
		/// It was asked or decided already.
		AlreadyDone,
		/// Not in this phase, or too late in it.
		NotNow,
		/// There are as many open disputes as there may be.
		NoRoom,
		/// The step does not speak of what the Host answered.
		Malformed,
		/// Not by this account, or about itself.
		NotEntitled,
		/// There is no such claim, position or dispute, or the count fell already.
		NoSuchThing,
		/// The account cannot put down the deposit.
		DepositTooSmall,
	}
}
