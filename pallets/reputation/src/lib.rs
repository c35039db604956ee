//! Reputation and eligibility of Hosts (`design/economy.md`; evidence: `design/inference.md`, "Verdicts").
//!
//! # Words
//! - *reputation*: epochs in which a Host raced, was eligible and was not caught, at most [`REPUTATION_CAP`]. It lowers
//!   how often a Host's answers are checked.
//! - *evidence*: the sequential test over the checks of a Host's answers in one epoch; beyond a bound it excludes.
//! - *duty seed*: the VRF output that decides which answers a Host must verify; revealed in Audit.
//! - *eligible*: whether a Host may be paid for an epoch. Accuracy, work proportion, validation proportion, seed.
//!
//! # Life cycle
//! During an epoch the ledger notes checks and frauds. In Audit, Hosts reveal their duty seeds. From Switch on, a page of
//! Hosts a block, eligibility is decided and reputations move. [`KEPT_EPOCHS`] epochs later nothing of the epoch is left
//! but reputations, and those are deleted after [`ABSENCE_EPOCHS`] epochs without a race.
//!
//! # Invariants
//! 1. No reputation exceeds [`REPUTATION_CAP`].
//! 2. A Host that is excluded in an epoch is not eligible in it.
//! 3. Evidence, seeds and decisions are kept only for epochs from `PrunedTo` on.
//! 4. There are never more confirmed fails than checks.
//! 5. The list of racers exists exactly while a settlement is under way.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(test)]
mod mock;
mod settlement;
mod standing;
#[cfg(test)]
mod tests;
mod types;
pub mod weights;

pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

use pacer_types::AccountId;

#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use frame_support::pallet_prelude::*;
	use frame_system::pallet_prelude::*;
	use pacer_types::{
		duty::{CallKind, DutyHeader, Rejection},
		duty_seed,
		traits::{Beacon, DutyAuth, EpochClock, EpochWeights, HostRegistry, Ineligible, OnExcluded, WorkRecord},
		DutySignature, EpochIndex, Hash, Phase,
	};

	const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

	/// The pallet.
	#[pallet::pallet]
	#[pallet::storage_version(STORAGE_VERSION)]
	pub struct Pallet<T>(_);

	/// What it needs.
	#[pallet::config]
	pub trait Config: frame_system::Config<AccountId = AccountId, Hash = Hash, RuntimeEvent: From<Event<Self>>> {
		/// The clock.
		type Clock: EpochClock;
		/// The Hosts and their keys.
		type Hosts: HostRegistry;
		/// The door for duty keys.
		type Auth: DutyAuth;
		/// The weights of epochs.
		type Weights: EpochWeights;
		/// The race values that enter duty seeds.
		type Beacon: Beacon;
		/// Who did what.
		type Work: WorkRecord;
		/// Hears of exclusions.
		type OnExcluded: OnExcluded;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
	}

	/// Reputation of every Host that raced in the last [`ABSENCE_EPOCHS`] epochs.
	#[pallet::storage]
	pub type Standings<T> = StorageMap<_, Blake2_128Concat, AccountId, Record>;

	/// What the checks of their answers say of Hosts, by epoch.
	#[pallet::storage]
	pub type Accuracies<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Accuracy, ValueQuery>;

	/// Revealed duty seeds, by epoch.
	#[pallet::storage]
	pub type Seeds<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, [u8; 32]>;

	/// Who was found eligible at Switch, by epoch.
	#[pallet::storage]
	pub type Decisions<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Result<(), Ineligible>>;

	/// The settlement under way.
	#[pallet::storage]
	pub type Settling<T> = StorageValue<_, Progress>;

	/// Who raced in the epoch that is being settled.
	#[pallet::storage]
	pub type SettlingRacers<T> = StorageValue<_, Racers, ValueQuery>;

	/// First epoch that is not pruned.
	#[pallet::storage]
	pub type PrunedTo<T> = StorageValue<_, EpochIndex, ValueQuery>;

	/// What happened.
	#[pallet::event]
	#[pallet::generate_deposit(pub(super) fn deposit_event)]
	pub enum Event<T: Config> {
		/// A Host revealed its duty seed.
		DutySeedRevealed {
			/// The epoch whose duties it decided.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// The seed.
			seed: [u8; 32],
		},
		/// A Host is excluded for an epoch: no more work, no earnings, no reputation.
		Excluded {
			/// The epoch.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// Why.
			cause: Cause,
		},
		/// A Host's reputation changed.
		ReputationChanged {
			/// The Host.
			host: AccountId,
			/// The epoch that changed it.
			epoch: EpochIndex,
			/// What it is now.
			reputation: u32,
		},
		/// A Host stayed away for so long that its reputation was deleted.
		Forgotten {
			/// The Host.
			host: AccountId,
		},
	}

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
			Self::settle_page()
		}

		fn on_idle(_now: BlockNumberFor<T>, left: Weight) -> Weight {
			Self::prune(left)
		}

		#[cfg(feature = "try-runtime")]
		fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
			Self::do_try_state()
		}
	}

	#[pallet::call]
	impl<T: Config> Pallet<T> {
		/// Reveals the duty seed of the current epoch. Unsigned, by the duty key, once an epoch, in Audit.
		///
		/// Checked before it enters a block: the signature by the duty key in force, and the VRF proof under the key that
		/// was in force when the epoch's duties were fixed ([`pacer_types::duty_seed`]).
		#[pallet::call_index(0)]
		#[pallet::weight((T::WeightInfo::reveal_duty_seed(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, pre_output: &[u8; 32], proof: &[u8; 64], signature: &DutySignature| {
			Self::authorize_reveal(header, pre_output, proof, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn reveal_duty_seed(
			origin: OriginFor<T>,
			header: DutyHeader,
			pre_output: [u8; 32],
			_proof: [u8; 64],
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			// The same computation succeeded when the call was authorised in this block.
			let seed = Self::seed_inputs(header.epoch, &header.host)
				.and_then(|(key, value)| duty_seed::seed_from(&key, &Self::genesis_hash(), header.epoch, &value, &pre_output));
			if let Some(seed) = seed {
				Seeds::<T>::insert(header.epoch, &header.host, seed);
				Self::deposit_event(Event::DutySeedRevealed { epoch: header.epoch, host: header.host, seed });
			}
			Ok(())
		}
	}

	impl<T: Config> Pallet<T> {
		fn genesis_hash() -> Hash {
			frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default())
		}

		/// First epoch of which anything is kept.
		pub(crate) fn first_kept() -> EpochIndex {
			T::Clock::epoch().saturating_sub(KEPT_EPOCHS)
		}

		fn seed_inputs(epoch: EpochIndex, who: &AccountId) -> Option<(pacer_types::DutyKey, [u8; 32])> {
			T::Hosts::duty_key_for_seed(who, epoch).zip(Self::seed_source(epoch))
		}

		fn authorize_reveal(
			header: &DutyHeader,
			pre_output: &[u8; 32],
			proof: &[u8; 64],
			signature: &DutySignature,
		) -> Result<ValidTransaction, TransactionValidityError> {
			let reject = |why: Rejection| -> Result<(), TransactionValidityError> { Err(InvalidTransaction::from(why).into()) };
			let valid = T::Auth::authorize_once(CallKind::RevealDutySeed, header, &(), &(pre_output, proof), signature, || {
				if Seeds::<T>::contains_key(header.epoch, &header.host) {
					return Err(InvalidTransaction::Stale.into());
				}
				if T::Clock::phase() != Phase::Audit {
					return reject(Rejection::WrongPhase);
				}
				if !Self::has_work(header.epoch, &header.host) {
					return reject(Rejection::NotEntitled);
				}
				Ok(())
			})?;
			let Some((key, value)) = Self::seed_inputs(header.epoch, &header.host) else {
				return Err(InvalidTransaction::from(Rejection::UnknownSubject).into());
			};
			duty_seed::verify(&key, &Self::genesis_hash(), header.epoch, &value, pre_output, proof)
				.map(|_| valid)
				.ok_or_else(|| InvalidTransaction::BadProof.into())
		}

		/// Checks the numbered invariants of the crate.
		#[cfg(any(test, feature = "try-runtime"))]
		pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
			ensure!(Standings::<T>::iter_values().all(|r| r.reputation <= REPUTATION_CAP), "1: a reputation above the cap");
			let excluded_is_eligible = |(epoch, who, e): (EpochIndex, AccountId, Accuracy)| {
				e.excluded && Decisions::<T>::get(epoch, who) == Some(Ok(()))
			};
			ensure!(!Accuracies::<T>::iter().any(excluded_is_eligible), "2: an excluded Host is eligible");
			let kept = PrunedTo::<T>::get();
			let mut epochs = Accuracies::<T>::iter_keys().map(|(e, _)| e).chain(Seeds::<T>::iter_keys().map(|(e, _)| e));
			ensure!(
				epochs.all(|e| e >= kept) && Decisions::<T>::iter_keys().all(|(e, _)| e >= kept),
				"3: something pruned is kept"
			);
			ensure!(Accuracies::<T>::iter_values().all(|e| e.fails <= e.evidence.checks), "4: more fails than checks");
			ensure!(SettlingRacers::<T>::exists() == Settling::<T>::exists(), "5: racers without a settlement");
			Ok(())
		}
	}
}
