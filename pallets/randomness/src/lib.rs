//! Two random values an epoch that no one can predict, choose or prevent: the *race* value seeds the Sprint, the *audit*
//! value samples what is checked. Publicly verifiable secret sharing; the mathematics are [`pacer_beacon`].
//!
//! # Words
//! - *committee*: the Hosts to which their consensus weight of the epoch gives at least one of 128 *slots*; at most 64.
//! - *key*: a member's encryption key of one epoch. Slots of members without one are *dead*.
//! - *dealing*: a member's secret, shared among all live slots so that anyone can check it and 65 slots can open it.
//! - *sum*: of all dealings, slot by slot. Only it is opened, never a dealing.
//! - *opening*: the shares of the sum that a member's slots hold, decrypted, with one proof.
//! - *value*: what any 65 opened slots make, hashed with the set of dealings.
//!
//! # Life cycle
//! 1. **Keys.** The epoch's first block fixes the committee. Until Deal begins, each member registers a key, once.
//! 2. **Deal.** Keys are fixed. With fewer than 65 live slots there are no values in this epoch. Each member with a key deals both
//!    values in one call; what verifies is added to the sums. If the dealers hold no more than half of the committee's
//!    weight, Deal is repeated in SpareDeal for those who are missing; if that fails too, the epoch has no values and no
//!    Sprint. Else the set of dealings is fixed, for ever.
//! 3. **Open.** Members with keys open the sum of each value in its window: the last slots of Open (race) and of Audit's
//!    first session (audit). A value exists in the block with the opening of the 65th slot. If there is none when the
//!    window ends, there never will be: a later race value would give a head start to whoever could have opened alone,
//!    and a later audit value would leave too little time to demand and dispute what it samples. There is no substitute
//!    value: whoever could cause one would choose between two.
//!
//! # Who says what, once
//! The three calls are unsigned, authorized by the member's node key. Authorization is cheap: phase, member, not done
//! yet, exact length, signature last. Dispatch decodes and verifies, always succeeds and always uses up the turn: what
//! was signed and does not verify is noted in [`Rejections`] and counts as missing. So each member can cost the chain
//! one verification for each duty and no more, and nothing can be replayed.
//!
//! # Faults
//! No key, or a key and no dealing: one. Each value that was to be opened and was not: one; members without a key could
//! not open and so failed that too. See [`Pallet::faults`].
//!
//! # Who runs it
//! The off-chain worker ([`offchain`]) of each member's node, with the node's own session key.
//!
//! # How the runtime wires it
//! This pallet needs a **higher index than pallet-session**, so that its `on_initialize` sees the new session. With a
//! lower one nothing breaks, but phases turn at the end of their first block.
//!
//! # Storage version
//! 2. Version 1 held commitments and reveals, on networks that lived for a day; there is no migration, because no public
//! network has begun.
//!
//! # Invariants
//! 1. Only members of the epoch's committee have a rejection, only those with a key a dealing or an opening, the latter
//!    of all their slots and no others. No duty is both fulfilled and rejected.
//! 2. A value exists exactly if its status is `Drawn`, and follows from the stored dealings and any 65 opened slots; with
//!    fewer it is not `Drawn`, with more it is.
//! 3. Nothing is opened while dealings can be added; nothing is dealt before keys are fixed.
//! 4. Nothing is kept of more than three epochs.
//! 5. While there can be dealings or openings both sums exist, one point for each live slot; the counter of opened slots
//!    is right.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
pub mod benchmarking;
mod committee;
mod dealing;
#[cfg(test)]
mod mock;
pub mod offchain;
mod opening;
mod phases;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "try-runtime"))]
mod try_state;
mod types;
mod views;
pub mod weights;

pub use committee::committee_hash;
pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

use pacer_types::{AccountId, EpochIndex};

/// Target of log lines.
pub(crate) const LOG: &str = "pacer::randomness";

#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use frame_support::pallet_prelude::*;
	use frame_system::pallet_prelude::*;
	use pacer_beacon::{EncryptionKey, KeyProof};
	use pacer_types::{
		beacon::{BeaconDuty, BeaconFault},
		duty::DutyHeader,
		node_key,
		traits::{BeaconValue, DutyAuth, EpochClock, EpochWeights, HostRegistry, NodeKeyOwner},
		BlockNumber, Hash,
	};

	const STORAGE_VERSION: StorageVersion = StorageVersion::new(2);

	/// The pallet.
	#[pallet::pallet]
	#[pallet::storage_version(STORAGE_VERSION)]
	pub struct Pallet<T>(_);

	/// What it needs.
	#[pallet::config]
	pub trait Config:
		frame_system::Config<AccountId = AccountId, Hash = Hash, RuntimeEvent: From<Event<Self>>>
		+ frame_system::offchain::CreateAuthorizedTransaction<Call<Self>>
	{
		/// Checks what node keys sign.
		type Auth: DutyAuth;
		/// Sets the scene of benchmarks.
		#[cfg(feature = "runtime-benchmarks")]
		type BenchmarkHelper: crate::benchmarking::BenchmarkHelper;
		/// The clock.
		type Clock: EpochClock;
		/// Registered Hosts.
		type Hosts: HostRegistry;
		/// Whose node a node key belongs to; wired to the session pallet. Used off chain only.
		type NodeKeyOwner: NodeKeyOwner;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
		/// Consensus weights, which make the committee.
		type Weights: EpochWeights;
	}

	/// Committees with their keys.
	#[pallet::storage]
	pub type Committees<T> = StorageMap<_, Twox64Concat, EpochIndex, Members>;

	/// How far each epoch's randomness is.
	#[pallet::storage]
	pub type Rounds<T> = StorageMap<_, Twox64Concat, EpochIndex, Round>;

	/// Hashes of the dealings that hold, by epoch and member.
	#[pallet::storage]
	pub type Dealings<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Dealt>;

	/// Sums of these dealings.
	#[pallet::storage]
	pub type Sums<T> = StorageMap<_, Twox64Concat, (EpochIndex, BeaconValue), SumBytes>;

	/// Opened shares that hold, by epoch, value and member.
	#[pallet::storage]
	pub type Openings<T> = StorageDoubleMap<_, Twox64Concat, (EpochIndex, BeaconValue), Blake2_128Concat, AccountId, Shares>;

	/// What members signed and does not hold, by epoch, member and duty.
	#[pallet::storage]
	pub type Rejections<T> =
		StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, (AccountId, BeaconDuty), BeaconFault>;

	/// Values.
	#[pallet::storage]
	pub type Values<T> = StorageMap<_, Twox64Concat, (EpochIndex, BeaconValue), [u8; 32]>;

	/// The newest value, and the block that brought it.
	#[pallet::storage]
	pub type Latest<T> = StorageValue<_, ([u8; 32], BlockNumber)>;

	/// What happened.
	#[pallet::event]
	#[pallet::generate_deposit(pub(super) fn deposit_event)]
	pub enum Event<T: Config> {
		/// The committee of an epoch is known.
		CommitteeFixed {
			/// The epoch.
			epoch: EpochIndex,
			/// Its members.
			members: u32,
		},
		/// A member registered its key.
		KeyRegistered {
			/// The epoch.
			epoch: EpochIndex,
			/// The member.
			host: AccountId,
		},
		/// A member's key does not hold: it has none in this epoch.
		KeyRejected {
			/// The epoch.
			epoch: EpochIndex,
			/// The member.
			host: AccountId,
			/// What was wrong.
			fault: BeaconFault,
		},
		/// Keys are fixed, members may deal.
		DealingOpened {
			/// The epoch.
			epoch: EpochIndex,
			/// Members with keys.
			keys: u32,
			/// Their slots.
			slots: u32,
		},
		/// A member dealt.
		Dealt {
			/// The epoch.
			epoch: EpochIndex,
			/// The member.
			host: AccountId,
		},
		/// A member's dealing does not hold: it does not deal in this epoch.
		DealingRejected {
			/// The epoch.
			epoch: EpochIndex,
			/// The member.
			host: AccountId,
			/// What was wrong.
			fault: BeaconFault,
		},
		/// Too few dealt: those who are missing may deal once more.
		DealRepeated {
			/// The epoch.
			epoch: EpochIndex,
			/// Weight of those who dealt.
			weight: u64,
			/// Weight of the committee.
			total: u64,
		},
		/// The set of dealings is fixed.
		DealingClosed {
			/// The epoch.
			epoch: EpochIndex,
			/// Members that dealt.
			dealers: u32,
		},
		/// This epoch has no values.
		DealFailed {
			/// The epoch.
			epoch: EpochIndex,
			/// Why.
			reason: DealFailure,
		},
		/// A member opened its shares of a value.
		Opened {
			/// The epoch.
			epoch: EpochIndex,
			/// The value.
			which: BeaconValue,
			/// The member.
			host: AccountId,
			/// Its slots.
			slots: u32,
		},
		/// A member's opening does not hold: it does not open this value.
		OpeningRejected {
			/// The epoch.
			epoch: EpochIndex,
			/// The value.
			which: BeaconValue,
			/// The member.
			host: AccountId,
			/// What was wrong.
			fault: BeaconFault,
		},
		/// A value exists.
		ValueDrawn {
			/// The epoch.
			epoch: EpochIndex,
			/// Which one.
			which: BeaconValue,
			/// The value.
			value: [u8; 32],
		},
		/// Too few slots were opened in time: there will be no such value.
		ValueFailed {
			/// The epoch.
			epoch: EpochIndex,
			/// Which one.
			which: BeaconValue,
			/// The slots that were opened.
			slots: u32,
		},
	}

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
			// `on_finalize` looks once more.
			let changed = if Self::advance() { T::WeightInfo::turn() } else { T::WeightInfo::track() };
			changed.saturating_add(T::WeightInfo::track())
		}

		fn on_finalize(_now: BlockNumberFor<T>) {
			// Does nothing, except where this pallet was wired below pallet-session.
			Self::advance();
		}

		fn offchain_worker(now: BlockNumberFor<T>) {
			Self::run_duties(now);
		}

		fn integrity_test() {
			use pacer_beacon::{Sum, SLOTS, THRESHOLD};
			assert!(Sum::new(SLOTS).encode().len() <= MAX_SUM as usize, "a sum of all slots fits");
			assert!(THRESHOLD > SLOTS / 2 && THRESHOLD < SLOTS, "two disjoint halves cannot both open");
		}

		#[cfg(feature = "try-runtime")]
		fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
			Self::do_try_state()
		}
	}

	#[pallet::call]
	impl<T: Config> Pallet<T> {
		/// Registers the member's key of the epoch. Unsigned, by the key of a member's node, once, before Deal. Emits
		/// `KeyRegistered`, or `KeyRejected` if the proof that its owner knows the secret half does not hold.
		#[pallet::call_index(0)]
		#[pallet::weight((T::WeightInfo::register_key(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, key: &node_key::Public, encryption_key: &EncryptionKey, proof: &KeyProof, signature: &node_key::Signature| {
			Self::authorize_register(header, key, encryption_key, proof, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn register_key(
			origin: OriginFor<T>,
			header: DutyHeader,
			_key: node_key::Public,
			encryption_key: EncryptionKey,
			proof: KeyProof,
			_signature: node_key::Signature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_register(header, encryption_key, proof);
			Ok(())
		}

		/// Deals both values: `pacer_beacon::Dealing`s, encoded, of the exact length that the committee needs. Unsigned,
		/// by the node key of a member with a key, once, in Deal, or in SpareDeal if that repeats a failed Deal. Counts if
		/// both hold. Emits `Dealt` or `DealingRejected`.
		#[pallet::call_index(1)]
		#[pallet::weight((T::WeightInfo::deal(MAX_MEMBERS, weights::slots_of_dealing(race.len())), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, key: &node_key::Public, race: &DealingBytes, audit: &DealingBytes, signature: &node_key::Signature| {
			Self::authorize_deal(header, key, race, audit, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize_dealing())]
		pub fn deal(
			origin: OriginFor<T>,
			header: DutyHeader,
			_key: node_key::Public,
			race: DealingBytes,
			audit: DealingBytes,
			_signature: node_key::Signature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_deal(header, &race, &audit);
			Ok(())
		}

		/// Opens the member's shares of a value: a `pacer_beacon::Opening`, encoded, of the exact length that its slots
		/// need. Unsigned, by the node key of a member with a key, once for each value, in its window. Emits `Opened` or
		/// `OpeningRejected`, and `ValueDrawn` when enough slots are open.
		#[pallet::call_index(2)]
		#[pallet::weight((T::WeightInfo::open_last(MAX_MEMBERS, weights::slots_of_opening(opening.len())), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, key: &node_key::Public, which: &BeaconValue, opening: &OpeningBytes, signature: &node_key::Signature| {
			Self::authorize_open(header, key, *which, opening, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn open(
			origin: OriginFor<T>,
			header: DutyHeader,
			_key: node_key::Public,
			which: BeaconValue,
			opening: OpeningBytes,
			_signature: node_key::Signature,
		) -> DispatchResultWithPostInfo {
			ensure_authorized(origin)?;
			let drawn = Self::do_open(header, which, &opening);
			let usual = T::WeightInfo::open(weights::slots_of_opening(opening.len()));
			Ok(((!drawn).then_some(usual), Pays::No).into())
		}
	}
}
