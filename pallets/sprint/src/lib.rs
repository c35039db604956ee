//! The Sprint on chain: the epoch's clock, the race, and the weights that come out of it.
//!
//! # Words
//! - *epoch*: `K` BABE sessions; *phase*: a part of it, in whole sessions ([`pacer_types::clock`]).
//! - *race*: the Sprint of an epoch; Hosts *commit* to the number of nonces they found and the root of their list.
//! - *work weight*: the count that stood. *Consensus weight*: what is left of it after mean and cap.
//! - *frozen*: fixed for an epoch, in the first block of the Switch before it.
//! - *skipped*: a race that does not count; the weights stay for one more epoch.
//!
//! # Life cycle
//! The race value opens the race; `commit` in Race, the last one counts; in Audit, once the audit value is there, Hosts
//! recompute samples and [`verdict`] decides which counts stand; the first block of Switch freezes the next epoch's
//! weights. Whatever goes wrong in between only skips the race ([`SkipReason`]): a chain must not die of it.
//!
//! # How the runtime wires it
//! - This pallet needs a **lower index than pallet-session** (its genesis must be built first).
//! - The session manager answers `new_session(i)` and `new_session_genesis(i)` with [`Pallet::validators_for`], and
//!   the session handlers of BABE and GRANDPA take the weights of a session from [`Pallet::weights_for_session`].
//! - pallet-session rotates in its own `on_initialize`, hence after this pallet's. Nothing depends on it: whoever
//!   first sees a new session (`validators_for` in the rotation, else the next hook) does what its first block
//!   has to do, once. Inside the rotation `EpochClock::now()` names the new session, phase and epoch, while BABE still
//!   reports the start of the old session.
//!
//! # Invariants
//! 1. A list of weights is strictly ascending by account; every work weight is positive and 1 <= consensus <= work.
//! 2. `Totals` are the sums of `Weights`, and exist for the same epochs.
//! 3. Frozen weights never change, and nothing is kept of epochs before `NextPruned`.
//! 4. A commitment claims at least one nonce and locks `BondPerCount` for each.
//! 5. A tally is the weight of those whose bits are set, and every one of them has weight.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod clock;
mod freeze;
#[cfg(test)]
mod mock;
mod race;
#[cfg(test)]
mod tests;
mod types;
pub mod verdict;
mod views;
pub mod weights;

pub use pallet::*;
pub use types::*;
pub use verdict::{CountJudge, CountVerdict, Judge, MajorityVote};
pub use weights::WeightInfo;

use pacer_types::{AccountId, Balance, EpochIndex};

#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use alloc::vec::Vec;
	use frame_support::{pallet_prelude::*, traits::Contains};
	use frame_system::pallet_prelude::*;
	use pacer_types::{
		duty::DutyHeader,
		traits::{Beacon, DutyAuth, HostBonds, HostRegistry, OnEpoch, SlotSource},
		weights::HostWeight,
		ClockParams, DutySignature, Hash, Phase,
	};

	const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

	/// The pallet.
	#[pallet::pallet]
	#[pallet::storage_version(STORAGE_VERSION)]
	pub struct Pallet<T>(_);

	/// What it needs.
	#[pallet::config]
	pub trait Config: frame_system::Config<AccountId = AccountId, Hash = Hash, RuntimeEvent: From<Event<Self>>> {
		/// Session and slot.
		type Slots: SlotSource;
		/// Registered Hosts.
		type Hosts: HostRegistry;
		/// Their bonds.
		type Bonds: HostBonds;
		/// Checks what duty keys sign.
		type Auth: DutyAuth;
		/// The race value and the audit value.
		type Beacon: Beacon;
		/// Accounts with session keys: only these can get weight.
		type SessionKeys: Contains<AccountId>;
		/// Hears of races and epochs.
		type OnEpoch: OnEpoch;
		/// Bond that a Host locks for each nonce it claims, until the race is decided.
		#[pallet::constant]
		type BondPerCount: Get<Balance>;
		/// Largest count.
		#[pallet::constant]
		type MaxCount: Get<u32>;
		/// Whether a Host may judge its own count: on a network of one Host only.
		type AllowSelf: Get<bool>;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
	}

	/// The clock's parameters; set at genesis, for ever.
	#[pallet::storage]
	pub type Params<T> = StorageValue<_, ClockParams, ValueQuery, DefaultParams>;

	/// The clock of a chain whose genesis says nothing.
	#[pallet::type_value]
	pub fn DefaultParams() -> ClockParams {
		ClockParams::PRODUCTION
	}

	/// What the race is; set at genesis, for ever.
	#[pallet::storage]
	pub type RaceRules<T> = StorageValue<_, Rules, ValueQuery>;

	/// Frozen weights.
	#[pallet::storage]
	pub type Weights<T> = StorageMap<_, Twox64Concat, EpochIndex, WeightList>;

	/// Sums of the frozen weights: work, consensus.
	#[pallet::storage]
	pub type Totals<T> = StorageMap<_, Twox64Concat, EpochIndex, (u64, u64), ValueQuery>;

	/// Claims by epoch and Host.
	#[pallet::storage]
	pub type Commits<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Commitment>;

	/// Votes on claims by epoch and Host that is judged.
	#[pallet::storage]
	pub type Tallies<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Tally>;

	/// Races that do not count.
	#[pallet::storage]
	pub type Skips<T> = StorageMap<_, Twox64Concat, EpochIndex, SkipReason>;

	/// Counts of the last races, for the mean. Empty where the mean is over one race.
	#[pallet::storage]
	pub type Recents<T> = StorageMap<_, Blake2_128Concat, AccountId, Recent>;

	/// Hosts that get no weight from the next race that counts.
	#[pallet::storage]
	pub type Penalties<T> = StorageMap<_, Blake2_128Concat, AccountId, ()>;

	/// The session that runs.
	#[pallet::storage]
	pub type Tracked<T> = StorageValue<_, Track>;

	/// First epoch of which something may be left in state.
	#[pallet::storage]
	pub type NextPruned<T> = StorageValue<_, EpochIndex, ValueQuery>;

	/// Clock, race and first weights.
	#[pallet::genesis_config]
	pub struct GenesisConfig<T: Config> {
		/// Lengths of slots, sessions and phases.
		pub clock: ClockParams,
		/// Index of the network in `pacer_sprint::Preset`.
		pub preset: u8,
		/// Squared cosine in Q32 that makes a vector appropriate.
		pub threshold: u64,
		/// Fewest Hosts with standing counts for which weights change.
		pub min_hosts: u32,
		/// Races over which consensus weight takes the mean: 1 to [`MAX_MEAN`].
		pub mean_of: u32,
		/// Work weights of the first epoch.
		pub weights: Vec<(AccountId, u64)>,
		#[serde(skip)]
		#[allow(missing_docs)]
		pub _config: PhantomData<T>,
	}

	impl<T: Config> Default for GenesisConfig<T> {
		fn default() -> Self {
			let Rules { preset, threshold, min_hosts, mean_of } = Rules::default();
			let clock = ClockParams::PRODUCTION;
			Self { clock, preset, threshold, min_hosts, mean_of, weights: Vec::new(), _config: PhantomData }
		}
	}

	#[pallet::genesis_build]
	impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
		fn build(&self) {
			assert!(self.clock.is_valid(), "the clock's parameters are out of range");
			assert!(pacer_sprint::Preset::from_index(self.preset).is_some(), "no such preset");
			assert!(self.threshold > 0, "a threshold of zero lets everything pass");
			assert!((1..=MAX_MEAN).contains(&self.mean_of), "the mean is over 1 to 5 races");
			Params::<T>::put(self.clock);
			let Self { preset, threshold, min_hosts, mean_of, .. } = *self;
			RaceRules::<T>::put(Rules { preset, threshold, min_hosts, mean_of });
			assert!(Pallet::<T>::put_genesis_weights(&self.weights), "weights at genesis are positive, one per Host");
		}
	}

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
		/// A Host judged another's count.
		CountJudged {
			/// The epoch.
			epoch: EpochIndex,
			/// Who judged.
			voter: AccountId,
			/// Whose count.
			subject: AccountId,
			/// Whether it stands.
			stands: bool,
			/// Consensus weight of the voter.
			weight: u64,
		},
		/// A count is refuted: it will be zero.
		CountRefuted {
			/// The epoch.
			epoch: EpochIndex,
			/// Whose count.
			subject: AccountId,
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

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
			Self::sync();
			T::WeightInfo::track()
		}

		fn on_finalize(_now: BlockNumberFor<T>) {
			Self::sync();
			Self::note_block();
		}

		fn on_idle(_now: BlockNumberFor<T>, left: Weight) -> Weight {
			Self::prune(left)
		}

		#[cfg(feature = "try-runtime")]
		fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
			Self::do_try_state()
		}

		fn integrity_test() {
			assert!(T::MaxCount::get() > 0, "nobody could commit");
		}
	}

	#[pallet::call]
	impl<T: Config> Pallet<T> {
		/// Commits to `count` nonces under `root`. Unsigned, by the Host's duty key, in Race, as often as it likes.
		///
		/// The Host must be allowed to race and its bond must cover `BondPerCount * count`. Emits `Committed`.
		#[pallet::call_index(0)]
		#[pallet::weight((T::WeightInfo::commit(), Pays::No))]
		#[pallet::authorize(|source: TransactionSource, header: &DutyHeader, count: &u32, root: &Hash, signature: &DutySignature| {
			Self::authorize_commit(source, header, *count, root, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn commit(
			origin: OriginFor<T>,
			header: DutyHeader,
			count: u32,
			root: Hash,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			T::Auth::mark(pacer_types::Lane::Consensus, &header);
			Self::do_commit(header, count, root);
			Ok(())
		}

		/// Says whether the count of `subject` stands. Unsigned, by the duty key of a Host with consensus weight, once
		/// for each subject, in Audit after the audit value. Emits `CountJudged`, and `CountRefuted` when it decides.
		#[pallet::call_index(1)]
		#[pallet::weight((T::WeightInfo::vote_count(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, subject: &AccountId, stands: &bool, signature: &DutySignature| {
			Self::authorize_vote(header, subject, *stands, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn vote_count(
			origin: OriginFor<T>,
			header: DutyHeader,
			subject: AccountId,
			stands: bool,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_vote(header, subject, stands);
			Ok(())
		}
	}

	impl<T: Config> Pallet<T> {
		/// Checks the numbered invariants of the crate.
		#[cfg(any(test, feature = "try-runtime"))]
		pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
			let first = NextPruned::<T>::get();
			let mut epochs = 0usize;
			for (epoch, list) in Weights::<T>::iter() {
				epochs = epochs.saturating_add(1);
				let ascending = list.windows(2).all(|pair| matches!(pair, [a, b] if a.host < b.host));
				ensure!(ascending, "1: weights are not strictly ascending");
				ensure!(list.iter().all(|w| w.consensus >= 1 && w.consensus <= w.work), "1: a weight is out of range");
				ensure!(Totals::<T>::get(epoch) == Self::sums(&list), "2: totals are not the sums of the weights");
				ensure!(epoch >= first, "3: old weights are kept");
			}
			ensure!(Totals::<T>::iter_keys().count() == epochs, "2: totals without weights");
			let (bond, most) = (T::BondPerCount::get(), T::MaxCount::get());
			for (epoch, _, commit) in Commits::<T>::iter() {
				ensure!(epoch >= first, "3: an old commitment is kept");
				ensure!(commit.count > 0 && commit.count <= most, "4: a count is out of range");
				let due = bond.saturating_mul(u128::from(commit.count));
				ensure!(commit.bond == due || Self::is_decided(epoch), "4: a bond is not what the count needs");
			}
			for (epoch, _, tally) in Tallies::<T>::iter() {
				ensure!(epoch >= first, "3: an old tally is kept");
				let Some(list) = Weights::<T>::get(epoch) else { continue };
				let places = 0..(tally.voted.len() as u32).saturating_mul(8);
				let voted = places.filter(|place| tally.has_voted(*place));
				let sum = voted.map(|place| list.get(place as usize).map(|w| w.consensus)).sum::<Option<u64>>();
				ensure!(sum == Some(tally.stands.saturating_add(tally.refuted)), "5: a tally is not the weight of its voters");
			}
			ensure!(Recents::<T>::iter_keys().count() <= pacer_types::MAX_HOSTS as usize * MAX_MEAN as usize, "3: too many recent counts");
			Ok(())
		}
	}
}
