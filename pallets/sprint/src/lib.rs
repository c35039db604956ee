//! The Sprint on chain: the epoch's clock, the race, and the weights that come out of it.
//!
//! # Words
//! - *epoch*: `K` BABE sessions; *phase*: a part of it, in whole sessions ([`pacer_types::clock`]).
//! - *race*: the Sprint of an epoch; Hosts *commit* to the number of nonces they found and the root of their list.
//! - *work weight*: the count that stood. *Consensus weight*: what is left of it after mean and cap.
//! - *frozen*: fixed for an epoch, in the first block of the Switch before it.
//! - *skipped*: a race that does not count; the weights stay for one more epoch.
//!
//! - *sample*: the positions of a list that everyone checks; unknown to all until commits are closed.
//! - *dispute*: a doubt about one position, decided by recomputing one step, or by silence.
//! - *demand*: makes a Host that withholds its list post the sample on chain.
//! - *struck*: a Host whose count was refuted; it is zero ([`Strike`] says why).
//!
//! # Life cycle
//! The race value opens the race; `commit` in Race, the last one counts. In Audit, once the audit value and the VRF
//! outputs of two blocks are there, everybody recomputes samples; a count stands unless it is refuted, and one honest
//! checker is enough to refute it: `challenge`, `answer`, `refute`, each within `D` slots. The first block of Switch
//! decides what is left and freezes the next epoch's weights. Whatever goes wrong in between only skips the race
//! ([`SkipReason`]): a chain must not die of it. A fake that is found later can be disputed in the Inference of the
//! next epoch, and then costs the earnings of that epoch.
//!
//! What duty keys say comes as unsigned transactions and takes deposits out of the Host's bond; wallets have calls of
//! their own with the suffix `_signed`.
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
//! 4. A commitment claims at least one nonce and locks at most `BondPerCount` for each.
//! 5. What is open (disputes, demands) and the deadlines in `Due` are the same, and `Due` is in the order of time.
//! 6. Deposits on hold are those of what is open; the counts of open disputes are right and within their caps.
//! 7. A struck Host has no locked bond and no open dispute, save those that `Ending` says are about to end. No dispute
//!    about a race outlives its Switch, save late ones about the race before.
//! 8. A demand weighs what its voices weigh; what was posted is strictly ascending; no struck Host has to post.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "runtime-benchmarks")]
pub mod benchmarking;
mod clock;
mod demand;
mod dispute;
mod events;
mod freeze;
#[cfg(any(test, feature = "try-runtime"))]
mod invariants;
#[cfg(test)]
mod mock;
mod race;
mod refusal;
mod sample;
mod settle;
mod storage;
#[cfg(test)]
mod tests;
mod types;
mod views;
pub mod weights;

pub use demand::Posted;
pub use pallet::*;
pub use settle::{EXPOSER_PERCENT, SETTLED_PER_BLOCK};
pub use types::*;
pub use weights::WeightInfo;

use frame_support::pallet_macros::import_section;
use pacer_types::{AccountId, Balance, EpochIndex};

#[import_section(events::events)]
#[import_section(storage::storage)]
#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use alloc::vec::Vec;
	use frame_support::{
		pallet_prelude::*,
		traits::{
			fungible::{Inspect, InspectHold, Mutate, MutateHold},
			Contains,
		},
	};
	use frame_system::pallet_prelude::*;
	use pacer_sprint::{Opening, Preset, Step};
	use pacer_types::{
		duty::DutyHeader,
		traits::{Beacon, Bounties, DutyAuth, Earnings, HostBonds, HostRegistry, OnEpoch, SlotSource, Standing},
		weights::HostWeight,
		ClockParams, DisputeId, DutySignature, Hash, Phase, Slot,
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
		/// Holds the deposits of wallets.
		type Currency: Inspect<AccountId, Balance = Balance>
			+ Mutate<AccountId>
			+ InspectHold<AccountId, Reason = Self::RuntimeHoldReason>
			+ MutateHold<AccountId>;
		/// The reason under which deposits are held.
		type RuntimeHoldReason: From<HoldReason>;
		/// What a Host earned in the epoch so far: a refuted count costs it.
		type Earnings: Earnings;
		/// Takes note of frauds found after Switch.
		type Standing: Standing;
		/// Remembers who exposed a fraud.
		type Bounties: Bounties;
		/// What a Host must have at stake for each nonce it claims, until the race is decided: earnings of the epoch, and
		/// its bond for the rest.
		#[pallet::constant]
		type BondPerCount: Get<Balance>;
		/// Largest count.
		#[pallet::constant]
		type MaxCount: Get<u32>;
		/// What a challenge, and a demand made alone, lock until they end.
		#[pallet::constant]
		type ChallengeDeposit: Get<Balance>;
		/// Most disputes that one challenger may have open.
		#[pallet::constant]
		type MaxOpenPerChallenger: Get<u32>;
		/// Most disputes that all wallets together may have open. Hosts always have room of their own.
		#[pallet::constant]
		type MaxWalletDisputes: Get<u32>;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
		/// Sets the scene for benchmarks.
		#[cfg(feature = "runtime-benchmarks")]
		type BenchmarkHelper: crate::benchmarking::BenchmarkHelper;
	}

	/// Why money is held.
	#[pallet::composite_enum]
	pub enum HoldReason {
		/// The deposit of a wallet that disputes.
		Deposit,
	}

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

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
			Self::sync();
			T::WeightInfo::track().saturating_add(Self::sweep())
		}

		fn on_finalize(_now: BlockNumberFor<T>) {
			Self::sync();
			Self::note_block();
			Self::note_salt();
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
			assert!(T::ChallengeDeposit::get() > 0, "a false dispute would cost nothing");
			assert!(T::MaxOpenPerChallenger::get() > 0 && T::MaxWalletDisputes::get() > 0, "nobody could dispute");
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

		/// Doubts `position` of the list of `subject`. Unsigned, by a Host's duty key, once for each position; locks
		/// `ChallengeDeposit` of its bond. From the audit value to the end of Audit's first half, a little longer for
		/// positions posted after a demand; or in the next epoch's Inference. Emits `Challenged`.
		#[pallet::call_index(1)]
		#[pallet::weight((T::WeightInfo::challenge(), DispatchClass::Operational, Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, race: &EpochIndex, subject: &AccountId, position: &u32, signature: &DutySignature| {
			Self::authorize_challenge(header, *race, subject, *position, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn challenge(
			origin: OriginFor<T>,
			header: DutyHeader,
			race: EpochIndex,
			subject: AccountId,
			position: u32,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_challenge(race, Party { who: header.host, wallet: false }, subject, position);
			Ok(())
		}

		/// Opens the challenged position and claims the states of its nonce: `L + 2` hashes, of `x_0 .. x_L` and of `y`.
		/// Unsigned, by the duty key of the Host, within `D` slots of the challenge. Emits `Answered`.
		#[pallet::call_index(2)]
		#[pallet::weight((T::WeightInfo::answer(), DispatchClass::Operational, Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, race: &EpochIndex, dispute: &DisputeId, opening: &Opening, hashes: &StateHashes, signature: &DutySignature| {
			Self::authorize_answer(header, *race, *dispute, opening, hashes, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize_proof())]
		pub fn answer(
			origin: OriginFor<T>,
			_header: DutyHeader,
			race: EpochIndex,
			dispute: DisputeId,
			opening: Opening,
			hashes: StateHashes,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_answer(race, dispute, opening.nonce, hashes);
			Ok(())
		}

		/// Names a false step of an answer; the runtime recomputes it and decides. Unsigned, by the duty key of the Host
		/// that challenged, within `D` slots of the answer. Emits `DisputeWon` and `CountRefuted`, or `DisputeLost`.
		#[pallet::call_index(3)]
		#[pallet::weight((Pallet::<T>::refute_weight(step), DispatchClass::Operational, Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, race: &EpochIndex, dispute: &DisputeId, step: &Step, signature: &DutySignature| {
			Self::authorize_refute(header, *race, *dispute, step, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize_proof())]
		pub fn refute(
			origin: OriginFor<T>,
			_header: DutyHeader,
			race: EpochIndex,
			dispute: DisputeId,
			step: Step,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_refute(race, dispute, &step);
			Ok(())
		}

		/// Demands that `subject` posts the openings of its sampled positions. Unsigned, by a Host's duty key: as one
		/// voice among [`pacer_types::duty::DEMAND_SHARE`] percent of the consensus weight, or alone `with_deposit`.
		/// Emits `ListDemanded` when it is strong enough.
		#[pallet::call_index(4)]
		#[pallet::weight((T::WeightInfo::demand_list(), DispatchClass::Operational, Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, subject: &AccountId, with_deposit: &bool, signature: &DutySignature| {
			Self::authorize_demand(header, subject, *with_deposit, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn demand_list(
			origin: OriginFor<T>,
			header: DutyHeader,
			subject: AccountId,
			with_deposit: bool,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_demand(header.epoch, Party { who: header.host, wallet: false }, subject, with_deposit);
			Ok(())
		}

		/// Posts openings that were demanded: sampled positions that are not posted yet, ascending. Unsigned, by the
		/// duty key of the Host, within `D` slots of the demand. Emits `ListPosted`.
		#[pallet::call_index(5)]
		#[pallet::weight((T::WeightInfo::post_openings(), DispatchClass::Operational, Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, openings: &Posted, signature: &DutySignature| {
			Self::authorize_post(header, openings, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize_proof())]
		pub fn post_openings(
			origin: OriginFor<T>,
			header: DutyHeader,
			openings: Posted,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::do_post(header.epoch, header.host, &openings);
			Ok(())
		}

		/// As `challenge`, by a wallet, on whose account the deposit is held.
		#[pallet::call_index(6)]
		#[pallet::weight(T::WeightInfo::challenge())]
		pub fn challenge_signed(origin: OriginFor<T>, race: EpochIndex, subject: AccountId, position: u32) -> DispatchResult {
			let by = Party { who: ensure_signed(origin)?, wallet: true };
			Self::check_challenge(race, &by, &subject, position).map_err(Error::<T>::from)?;
			Self::do_challenge(race, by, subject, position);
			Ok(())
		}

		/// As `refute`, by the wallet that challenged. Costs nothing if the step is false.
		#[pallet::call_index(7)]
		#[pallet::weight((Pallet::<T>::refute_weight(step), DispatchClass::Operational))]
		pub fn refute_signed(
			origin: OriginFor<T>,
			race: EpochIndex,
			dispute: DisputeId,
			step: Step,
		) -> DispatchResultWithPostInfo {
			let by = Party { who: ensure_signed(origin)?, wallet: true };
			if let Err(refusal) = Self::check_refute(&by, race, dispute, &step) {
				// Nothing was recomputed: the block gets the room back that was set aside for it.
				let error = Error::<T>::from(refusal).into();
				return Err(sp_runtime::DispatchErrorWithPostInfo {
					post_info: Some(T::WeightInfo::authorize_proof()).into(),
					error,
				});
			}
			let won = Self::do_refute(race, dispute, &step);
			Ok(if won { Pays::No.into() } else { Pays::Yes.into() })
		}

		/// As `demand_list` with a deposit, by a wallet.
		#[pallet::call_index(8)]
		#[pallet::weight(T::WeightInfo::demand_list())]
		pub fn demand_list_signed(origin: OriginFor<T>, race: EpochIndex, subject: AccountId) -> DispatchResult {
			let by = Party { who: ensure_signed(origin)?, wallet: true };
			Self::check_demand(race, &by, &subject, true).map_err(Error::<T>::from)?;
			Self::do_demand(race, by, subject, true);
			Ok(())
		}
	}

	impl<T: Config> Pallet<T> {
		/// Weight of recomputing a step: that of the network that is raced, whose dearest step is a layer.
		fn refute_weight(step: &Step) -> Weight {
			match step {
				Step::Input | Step::Order { .. } => T::WeightInfo::refute(Preset::Dev),
				Step::Layer { .. } | Step::Output { .. } => {
					let preset = Preset::from_index(RaceRules::<T>::get().preset).unwrap_or(Preset::Whitepaper);
					T::DbWeight::get().reads(1).saturating_add(T::WeightInfo::refute(preset))
				}
			}
		}
	}
}
