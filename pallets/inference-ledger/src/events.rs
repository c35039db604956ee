//! What the pallet tells; part of the pallet's module by `import_section`.

use frame_support::pallet_macros::pallet_section;

/// Events and errors of the pallet.
#[pallet_section]
mod events {
	/// What happened.
	#[pallet::event]
	#[pallet::generate_deposit(pub(super) fn deposit_event)]
	pub enum Event<T: Config> {
		/// A model was registered, or its prices or thresholds changed.
		ModelSet {
			/// Its id.
			model: ModelId,
			/// Price of 1,000 prompt tokens.
			prompt_price: Balance,
			/// Price of 1,000 completion tokens.
			completion_price: Balance,
		},
		/// A Developer added to its deposit.
		Funded {
			/// The Developer.
			developer: AccountId,
			/// What it added.
			amount: Balance,
		},
		/// A Developer took from its free deposit.
		Withdrawn {
			/// The Developer.
			developer: AccountId,
			/// What it took.
			amount: Balance,
		},
		/// A Developer lets a transfer agent spend.
		Allowed {
			/// The Developer.
			developer: AccountId,
			/// The transfer agent.
			ta: AccountId,
			/// Most per epoch.
			cap_per_epoch: Balance,
		},
		/// A Developer lets a transfer agent spend no more.
		Revoked {
			/// The Developer.
			developer: AccountId,
			/// The transfer agent.
			ta: AccountId,
		},
		/// A key may sign requests for a Developer, or no longer.
		RequestKeySet {
			/// The Developer.
			developer: AccountId,
			/// The key.
			key: sr25519::Public,
			/// Whether it may.
			active: bool,
		},
		/// A payer has its salt: inferences can be started.
		PayerReady {
			/// Index of the payer.
			payer: u32,
			/// Its salt.
			salt: Hash,
		},
		/// Inferences were recorded.
		BatchStarted {
			/// The batch.
			batch: BatchKey,
			/// How many records were accepted.
			accepted: u16,
		},
		/// A record of an accepted transaction was not accepted.
		RecordRejected {
			/// The kind of record.
			kind: CallKind,
			/// Who sent it.
			host: AccountId,
			/// The batch it speaks of.
			batch: BatchKey,
			/// The position it speaks of.
			index: u16,
			/// Why.
			reason: RecordError,
		},
		/// A result was recorded.
		Finished {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// Its price.
			cost: Balance,
			/// Probability of verification, ppb.
			verify_ppb: u32,
		},
		/// A verdict was recorded.
		Judged {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// Who judged.
			validator: AccountId,
			/// Whether it passed.
			passed: bool,
		},
		/// An inference hung: refunded.
		Expired {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// Who missed it.
			executor: AccountId,
		},
		/// A verdict failed: Hosts that serve the model vote.
		RecheckOpened {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// Whether fraud is claimed.
			fraud: bool,
			/// First slot in which it is too late.
			deadline: Slot,
		},
		/// A Host voted in a re-verification.
		Voted {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// Who voted.
			host: AccountId,
			/// Whether it passed.
			pass: bool,
		},
		/// A re-verification ended; a failed inference was refunded.
		RecheckClosed {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// How.
			outcome: Outcome,
		},
		/// A Host provably missed a verification duty.
		DutyMissed {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// The Host.
			host: AccountId,
		},
		/// A passed inference could not be paid out and was refunded.
		PaymentFailed {
			/// Batch of the inference.
			batch: BatchKey,
			/// Its position.
			index: u16,
			/// Why.
			error: DispatchError,
		},
		/// A batch was closed, and paid for.
		BatchSealed {
			/// The batch.
			batch: BatchKey,
			/// What remains of it.
			sealed: Sealed,
		},
	}

	/// Why a call of a wallet fails.
	#[pallet::error]
	pub enum Error<T> {
		/// There are as many models as there may be.
		TooManyModels,
		/// Another model has this name, or the name is empty.
		BadModelName,
		/// No such model.
		UnknownModel,
		/// Less than the least that may be funded.
		DepositTooSmall,
		/// The account has no deposit.
		NoAccount,
		/// More than is free.
		NotFree,
		/// The transfer agent is no Host.
		NotHost,
		/// The Developer allows this transfer agent nothing.
		NoAllowance,
		/// The Developer has as many payers or keys as it may.
		TooMany,
		/// The key is registered already.
		KeyTwice,
		/// No such key.
		UnknownKey,
		/// Too many payers wait for randomness: try again in the next block.
		TooManyNewPayers,
		/// No such open batch.
		UnknownBatch,
		/// The batch cannot be sealed yet.
		NotReady,
	}
}
