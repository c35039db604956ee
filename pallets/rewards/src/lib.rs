//! Settlement, subsidy, training fund and claims (`design/economy.md`, "Settlement at Switch").
//!
//! # Words
//! - *pot*: this pallet's account. All work pay, subsidy and the training fund lie there, on top of one existential
//!   deposit that it gets at genesis.
//! - *pending*: work pay of an epoch that is not settled for the Host yet.
//! - *claimable*: settled earnings; only the Host's wallet can move them, within [`CLAIM_WINDOW`] epochs.
//! - *outcome*: how an epoch ended for a Host.
//! - *lapsed*: not claimed in time, hence burned. *Forfeited*: earned by a Host that is not eligible.
//!
//! # Life cycle
//! The ledger pays for a passed inference with [`pacer_types::traits::Earnings::pay_work`]. From Switch on, a page of
//! Hosts a block, what is pending and the Host's share of the subsidy become claimable, if the Host is eligible. Work
//! pay that arrives later for a Host whose epoch is settled follows its outcome at once; later than [`KEPT_EPOCHS`]
//! epochs it is refused. A Host that is excluded later loses what it has not claimed of that epoch.
//!
//! # Invariants
//! 1. The pot holds at least its existential deposit, what is pending, claimable, and the fund. (More only if someone
//!    gave it something: the pot is an account that everybody may pay into.)
//! 2. Prices received + minted = pending + claimable + fund + burned + claimed, to the unit.
//! 3. The books' sums of pending and claimable are those of the maps.
//! 4. Never more than [`SUPPLY_CAP`] is minted.
//! 5. An account's claimed and claimable amounts never exceed what it earned, and no empty entry is kept.
//! 6. Outcomes are kept only for epochs from `PrunedTo` on; nothing is pending in a settled epoch.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(test)]
mod mock;
mod money;
mod settlement;
mod subsidy;
#[cfg(test)]
mod tests;
mod types;
pub mod weights;

pub use pallet::*;
pub use subsidy::{subsidy, INITIAL_SUBSIDY, SUPPLY_CAP};
pub use types::*;
pub use weights::WeightInfo;

use pacer_types::{AccountId, Balance};

#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use alloc::vec::Vec;
	use frame_support::{
		pallet_prelude::*,
		traits::fungible::{Inspect, Mutate},
		PalletId,
	};
	use frame_system::pallet_prelude::*;
	use pacer_types::{
		traits::{BeaconFaults, EpochClock, EpochWeights, HostRegistry, Ineligible, Standing},
		EpochIndex,
	};
	use sp_runtime::traits::AccountIdConversion;

	const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);
	/// Derives the pot's account.
	const PALLET_ID: PalletId = PalletId(*b"pcr/rwrd");

	/// The pallet.
	#[pallet::pallet]
	#[pallet::storage_version(STORAGE_VERSION)]
	pub struct Pallet<T>(_);

	/// What it needs.
	#[pallet::config]
	pub trait Config: frame_system::Config<AccountId = AccountId, RuntimeEvent: From<Event<Self>>> {
		/// The token.
		type Currency: Inspect<AccountId, Balance = Balance> + Mutate<AccountId>;
		/// The clock.
		type Clock: EpochClock;
		/// The Hosts.
		type Hosts: HostRegistry;
		/// The weights by which subsidy is shared.
		type Weights: EpochWeights;
		/// Who is eligible.
		type Standing: Standing;
		/// Who missed duties of the randomness.
		type BeaconFaults: BeaconFaults;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
	}

	/// Sums over everything.
	#[pallet::storage]
	pub type Books<T> = StorageValue<_, Sums, ValueQuery>;

	/// Work pay that waits for settlement, by epoch and Host.
	#[pallet::storage]
	pub type Pending<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Balance, ValueQuery>;

	/// Settled earnings that wait for a claim, by account and epoch.
	#[pallet::storage]
	pub type Claimable<T> = StorageMap<_, Blake2_128Concat, AccountId, OpenEarnings, ValueQuery>;

	/// What accounts earned and claimed since they are known.
	#[pallet::storage]
	pub type AccountTotals<T> = StorageMap<_, Blake2_128Concat, AccountId, Totals, ValueQuery>;

	/// How an epoch ended for each Host.
	#[pallet::storage]
	pub type Outcomes<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Outcome>;

	/// Who exposed frauds of an epoch that is not settled yet.
	#[pallet::storage]
	pub type Exposers<T> = StorageMap<_, Twox64Concat, EpochIndex, BoundedVec<AccountId, ConstU32<MAX_EXPOSERS>>, ValueQuery>;

	/// The settlement under way.
	#[pallet::storage]
	pub type Settling<T> = StorageValue<_, Progress>;

	/// The search for lapsed earnings under way.
	#[pallet::storage]
	pub type Sweeping<T> = StorageValue<_, Sweep>;

	/// First epoch that is not settled.
	#[pallet::storage]
	pub type SettledTo<T> = StorageValue<_, EpochIndex, ValueQuery>;

	/// First epoch whose outcomes are not pruned.
	#[pallet::storage]
	pub type PrunedTo<T> = StorageValue<_, EpochIndex, ValueQuery>;

	/// Gives the pot its existential deposit. Nothing to configure; balances must be built before.
	#[pallet::genesis_config]
	#[derive(frame_support::DefaultNoBound)]
	pub struct GenesisConfig<T: Config> {
		#[serde(skip)]
		#[allow(missing_docs)]
		pub _config: PhantomData<T>,
	}

	#[pallet::genesis_build]
	impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
		fn build(&self) {
			let pot = Pallet::<T>::pot();
			if T::Currency::total_balance(&pot) == 0 {
				let minted = T::Currency::mint_into(&pot, T::Currency::minimum_balance());
				assert!(minted.is_ok(), "the pot needs its existential deposit");
			}
		}
	}

	/// What happened.
	#[pallet::event]
	#[pallet::generate_deposit(pub(super) fn deposit_event)]
	pub enum Event<T: Config> {
		/// Earnings of a Host became claimable.
		Settled {
			/// The epoch they were earned in.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// For work.
			work: Balance,
			/// Newly minted.
			subsidy: Balance,
		},
		/// A Host gets nothing for an epoch.
		Ineligible {
			/// The epoch.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// Why.
			reason: Ineligible,
		},
		/// Work pay was taken from a Host that is not eligible.
		Forfeited {
			/// The epoch.
			epoch: EpochIndex,
			/// The Host.
			host: AccountId,
			/// How much.
			amount: Balance,
		},
		/// Someone who exposed a fraud earned a part of what was forfeited.
		BountyPaid {
			/// The epoch.
			epoch: EpochIndex,
			/// Who exposed it.
			who: AccountId,
			/// How much.
			amount: Balance,
		},
		/// All Hosts of an epoch are settled.
		EpochSettled {
			/// The epoch.
			epoch: EpochIndex,
			/// What was minted.
			subsidy: Balance,
			/// Eligible Hosts with weight.
			eligible: u32,
		},
		/// Earnings were claimed.
		Claimed {
			/// Who claimed.
			host: AccountId,
			/// The epochs that were paid.
			epochs: Vec<EpochIndex>,
			/// The sum.
			amount: Balance,
		},
		/// Earnings were not claimed in time and are burned.
		Lapsed {
			/// The epoch they were earned in.
			epoch: EpochIndex,
			/// Who earned them.
			host: AccountId,
			/// How much.
			amount: Balance,
		},
	}

	/// Why something fails.
	#[pallet::error]
	pub enum Error<T> {
		/// None of these epochs holds anything that the caller can claim now.
		NothingToClaim,
		/// The epoch lies in the future, or too far back for anything to be paid.
		EpochClosed,
		/// A price must go to someone.
		NoWorkers,
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
		/// Pays the caller what it earned in these epochs. Epochs without claimable earnings are passed over.
		///
		/// By the wallet of whoever earned. Free of fees when it pays anything; otherwise it fails and costs its fee.
		#[pallet::call_index(0)]
		#[pallet::weight(T::WeightInfo::claim(epochs.len() as u32))]
		pub fn claim(
			origin: OriginFor<T>,
			epochs: BoundedVec<EpochIndex, ConstU32<MAX_CLAIM_EPOCHS>>,
		) -> DispatchResultWithPostInfo {
			let host = ensure_signed(origin)?;
			let (epochs, amount) = Self::pay_out(&host, &epochs)?;
			Self::deposit_event(Event::Claimed { host, epochs, amount });
			Ok(Pays::No.into())
		}
	}

	impl<T: Config> Pallet<T> {
		/// The account that holds the money.
		pub fn pot() -> AccountId {
			PALLET_ID.into_account_truncating()
		}

		/// Checks the numbered invariants of the crate.
		#[cfg(any(test, feature = "try-runtime"))]
		pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
			Self::check_conservation().map_err(sp_runtime::TryRuntimeError::Other)?;
			for (who, open) in Claimable::<T>::iter() {
				let totals = AccountTotals::<T>::get(&who);
				let waiting = open.values().fold(0u128, |sum, amount| sum.saturating_add(*amount));
				ensure!(!open.is_empty() && open.values().all(|amount| *amount > 0), "5: an empty entry is kept");
				ensure!(totals.claimed.saturating_add(waiting) <= totals.earned, "5: more waits or was claimed than was earned");
			}
			let kept = PrunedTo::<T>::get();
			ensure!(Outcomes::<T>::iter_keys().all(|(epoch, _)| epoch >= kept), "6: a pruned outcome is kept");
			let settled = SettledTo::<T>::get();
			ensure!(Pending::<T>::iter_keys().all(|(epoch, _)| epoch >= settled), "6: something is pending in a settled epoch");
			Ok(())
		}
	}
}
