//! Two random values an epoch that no one can choose: the *race* value seeds the Sprint, the *audit* value samples what
//! is checked.
//!
//! # Words
//! - *committee*: the Hosts with consensus weight in the epoch, the 64 heaviest at most.
//! - *dealing*: a member's commitments to its parts of both values, sent in Deal.
//! - *opening*: one of these parts, shown in the opening window of Open (race) or of Audit's first session (audit).
//! - *value*: what all openings make together; see [`pacer_beacon`].
//!
//! # Life cycle
//! Members deal in Deal. If those who dealt hold no more than half of the committee's weight, Deal is repeated in
//! SpareDeal for those who are missing; if that fails too, the epoch has no value and no Sprint. Then the set of
//! dealings is fixed. A value exists in the block in which the last dealer opens, else from the first block after the
//! opening window's session, provided that openers hold more than half of the committee's weight; otherwise there is
//! none. There is never a substitute: whoever could cause one would choose between two.
//!
//! # What is provisional
//! Commit and reveal lets the last one to open see the value first, and stay silent if it dislikes it: its silence
//! changes the value, or with half of the weight prevents it. Publicly verifiable secret sharing removes this
//! (`design/randomness.md`); then [`Dealing`] holds encrypted shares and an opening is a decrypted one, while the
//! phases, calls, traits and views stay.
//!
//! # Who runs it
//! The off-chain worker ([`offchain`]) of each member's node, with the node's own session key.
//!
//! # How the runtime wires it
//! This pallet needs a **higher index than pallet-session**, so that its `on_initialize` sees the new session and a
//! value that a phase's end brings exists before that block's extrinsics. With a lower one nothing breaks, but such a
//! value appears at the end of the block. pallet-sprint freezes weights inside the rotation of the first block of
//! Switch; the audit value is decided long before, if Audit has at least two sessions.
//!
//! # Invariants
//! 1. Only members of the epoch's committee have a dealing, only dealers an opening, and every opening fits its dealing.
//! 2. A value exists exactly if its status is `Drawn`, and follows from the stored dealings and openings.
//! 3. Nothing is opened while dealings can be added.
//! 4. Nothing is kept of more than three epochs.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(test)]
mod mock;
pub mod offchain;
mod protocol;
#[cfg(test)]
mod tests;
mod types;
mod views;
pub mod weights;

pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

use pacer_types::{AccountId, EpochIndex};

#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use frame_support::pallet_prelude::*;
	use frame_system::pallet_prelude::*;
	use pacer_types::{
		duty::DutyHeader,
		node_key,
		traits::{BeaconValue, DutyAuth, EpochClock, EpochWeights, HostRegistry, NodeKeyOwner},
		BlockNumber, Hash,
	};

	const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

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
		/// The clock.
		type Clock: EpochClock;
		/// Consensus weights, which make the committee.
		type Weights: EpochWeights;
		/// Registered Hosts.
		type Hosts: HostRegistry;
		/// Whose node a node key belongs to; wired to the session pallet. Used off chain only.
		type NodeKeyOwner: NodeKeyOwner;
		/// Checks what node keys sign.
		type Auth: DutyAuth;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
	}

	/// Committees.
	#[pallet::storage]
	pub type Committees<T> = StorageMap<_, Twox64Concat, EpochIndex, Members>;

	/// How far each epoch's randomness is.
	#[pallet::storage]
	pub type Rounds<T> = StorageMap<_, Twox64Concat, EpochIndex, Round>;

	/// Dealings by epoch and member.
	#[pallet::storage]
	pub type Dealings<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Dealing>;

	/// Openings by epoch, value and member.
	#[pallet::storage]
	pub type Openings<T> = StorageDoubleMap<_, Twox64Concat, (EpochIndex, BeaconValue), Blake2_128Concat, AccountId, [u8; 32]>;

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
		/// A committee may deal.
		DealingOpened {
			/// The epoch.
			epoch: EpochIndex,
			/// Members of the committee.
			members: u32,
		},
		/// A member dealt.
		Dealt {
			/// The epoch.
			epoch: EpochIndex,
			/// The member.
			host: AccountId,
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
		/// Too few dealt in the end: this epoch has no values.
		DealFailed {
			/// The epoch.
			epoch: EpochIndex,
			/// Weight of those who dealt.
			weight: u64,
			/// Weight of the committee.
			total: u64,
		},
		/// A member opened its part of a value.
		Opened {
			/// The epoch.
			epoch: EpochIndex,
			/// The value.
			which: BeaconValue,
			/// The member.
			host: AccountId,
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
		/// Too few opened: there will be no such value.
		ValueFailed {
			/// The epoch.
			epoch: EpochIndex,
			/// Which one.
			which: BeaconValue,
		},
	}

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
			if Self::advance() {
				T::WeightInfo::turn()
			} else {
				T::WeightInfo::track()
			}
		}

		fn on_finalize(_now: BlockNumberFor<T>) {
			// Does nothing, except where this pallet was wired below pallet-session.
			Self::advance();
		}

		fn offchain_worker(now: BlockNumberFor<T>) {
			Self::run_duties(now);
		}

		#[cfg(feature = "try-runtime")]
		fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
			Self::do_try_state()
		}
	}

	#[pallet::call]
	impl<T: Config> Pallet<T> {
		/// Commits to the member's parts of both values. Unsigned, by the key of a member's node, once, in Deal, or in
		/// SpareDeal if that repeats a failed Deal. Emits `Dealt`.
		#[pallet::call_index(0)]
		#[pallet::weight((T::WeightInfo::deal(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, key: &node_key::Public, race_commitment: &Hash, audit_commitment: &Hash, signature: &node_key::Signature| {
			Self::authorize_deal(header, key, race_commitment, audit_commitment, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn deal(
			origin: OriginFor<T>,
			header: DutyHeader,
			_key: node_key::Public,
			race_commitment: Hash,
			audit_commitment: Hash,
			_signature: node_key::Signature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_deal(header, Dealing { race: race_commitment, audit: audit_commitment });
			Ok(())
		}

		/// Shows the member's part of a value. Unsigned, by the key of a dealer's node, once for each value, in its
		/// opening window. Emits `Opened`, and `ValueDrawn` with the last one.
		#[pallet::call_index(1)]
		#[pallet::weight((T::WeightInfo::open(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, key: &node_key::Public, which: &BeaconValue, secret: &[u8; 32], signature: &node_key::Signature| {
			Self::authorize_open(header, key, *which, secret, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn open(
			origin: OriginFor<T>,
			header: DutyHeader,
			_key: node_key::Public,
			which: BeaconValue,
			secret: [u8; 32],
			_signature: node_key::Signature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_open(header, which, secret);
			Ok(())
		}
	}

	impl<T: Config> Pallet<T> {
		/// Checks the numbered invariants of the crate.
		#[cfg(any(test, feature = "try-runtime"))]
		pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
			for (epoch, host, _) in Dealings::<T>::iter() {
				let members = Committees::<T>::get(epoch).ok_or("1: a dealing without a committee")?;
				ensure!(members.iter().any(|m| m.host == host), "1: a dealing of a stranger");
			}
			for ((epoch, which), host, secret) in Openings::<T>::iter() {
				let dealing = Dealings::<T>::get(epoch, &host).ok_or("1: an opening without a dealing")?;
				ensure!(Self::opens(epoch, which, &host, &dealing, &secret), "1: an opening does not fit its dealing");
				let round = Rounds::<T>::get(epoch).ok_or("3: an opening without a round")?;
				ensure!(round.dealing_closed.is_some() && round.dealt, "3: opened while dealings could be added");
			}
			for (epoch, round) in Rounds::<T>::iter() {
				for which in [BeaconValue::Race, BeaconValue::Audit] {
					let value = Values::<T>::get((epoch, which));
					let drawn = round.status(which) == ValueStatus::Drawn;
					ensure!(value.is_some() == drawn, "2: a value without its status");
					ensure!(!drawn || value == Self::compute(epoch, which), "2: a value that does not follow");
				}
			}
			let rounds = Rounds::<T>::iter_keys().count();
			ensure!(rounds <= 3 && Committees::<T>::iter_keys().count() == rounds, "4: an old epoch is kept");
			ensure!(Values::<T>::iter_keys().all(|(e, _)| Rounds::<T>::contains_key(e)), "4: an old value is kept");
			Ok(())
		}
	}
}
