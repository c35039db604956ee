//! The ledger of inferences: models and prices, Developers' deposits, batched records of starts, results and verdicts,
//! refunds, re-verification, and payment (`design/inference.md`, `design/economy.md`).
//!
//! # Words
//! - *payer*: whose deposit an inference is paid from, and on whose sequence of ids it is: a Developer for requests it
//!   signs, or a (Developer, transfer agent) pair for API keys.
//! - *record*: one start, result or verdict; *batch*: the starts under one signature, and everything that follows.
//! - *recheck*: a re-verification by all Hosts that serve the model.
//! - *draw seed*: the beacon value that was newest when the epoch began; executors are drawn with it all epoch, so a
//!   draw does not change between a transfer agent's request and its record.
//!
//! # Life cycle of an inference
//! `start_many` (reserves the maximum cost) -> `finish_many` (fixes price and probability of verification) ->
//! `verdict_many` within the verdict window -> sealed and paid; or refunded: after `ExpirySlots` without a result, or
//! when more than half of the weight fails it in a recheck, which one failing verdict opens and `vote_inference`
//! decides.
//!
//! # Sealing
//! A batch is sealed when no entry waits for a result or a recheck, its verdict windows are over, and the duty seeds of
//! its epoch can be known: in the last session of Audit, or any time after its epoch; never in Switch, when rewards are
//! settled. Only then can the chain tell a validator that was drawn from a volunteer: only drawn ones share the pay and
//! keep their count of verdicts. Then, too, missed duties are counted, for a sample of about [`AUDIT_SAMPLE`]
//! inferences an epoch chosen by the audit value (all of them in a small epoch), and only if the batch is sealed within
//! its own epoch. Sealed after its epoch, a batch is paid in the epoch of that moment.
//!
//! # Not yet here
//! The transfer agent's countersignature of results, `contest` (so a transfer agent is trusted with the signed requests
//! it claims), reports by Developers, evidence that earlier candidates refused (attempts up to
//! [`pacer_types::ledger::MAX_ATTEMPT`] are accepted as stated; missed work counts by expiry only, so an executor must
//! watch the chain for starts it was drawn for), and proofs of single missed duties. A failing verdict by a Host that
//! was not drawn costs it nothing yet, although it makes everybody verify.
//!
//! # Invariants
//! 1. The pot holds what the accounts have, free and reserved, and its minimum balance; more only as a gift.
//! 2. An account's reservation is the sum, over its inferences in open batches, of the maximum cost of those without a
//!    result and the price of those with one that did not fail; it also counts them, and stays while there are any.
//! 3. `Batch::unfinished` and `Batch::rechecks` count its entries; there is a recheck for each of the latter.
//! 4. `Places` lists the open batches, each at its `place`; `OpenRecords` is the number of their records.
//! 5. A payer belongs to the account that lists it, and `PayerIndex` finds it. Sequence numbers are used once.
//! 6. Work counts, totals and sealed batches are kept for the current epoch and the two before it only.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod events;
mod finish;
mod invariants;
#[cfg(test)]
mod mock;
mod payers;
mod queue;
mod recheck;
mod seal;
mod start;
mod storage;
#[cfg(test)]
mod tests;
mod types;
mod verdict;
mod views;
pub mod weights;

pub use pallet::*;
pub use types::*;
pub use views::LedgerBalance;
pub use weights::WeightInfo;

use frame_support::pallet_macros::import_section;
use pacer_types::{AccountId, Balance, Hash};

#[import_section(events::events)]
#[import_section(storage::storage)]
#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use alloc::vec::Vec;
	use frame_support::{
		dispatch::PostDispatchInfo,
		pallet_prelude::*,
		traits::fungible::{Inspect, Mutate},
		PalletId,
	};
	use frame_system::pallet_prelude::*;
	use pacer_types::{
		duty::{CallKind, DutyHeader},
		ledger::{BatchKey, EpochTotals, FinishRecord, StartRecord, VerdictRecord},
		traits::{Beacon, Bounties, DutyAuth, Earnings, EpochClock, EpochWeights, HostRegistry, Standing, WorkCounts},
		DutySignature, EpochIndex, Lane, ModelId, Slot,
	};
	use sp_core::sr25519;

	const STORAGE_VERSION: StorageVersion = StorageVersion::new(1);

	/// The pallet.
	#[pallet::pallet]
	#[pallet::storage_version(STORAGE_VERSION)]
	pub struct Pallet<T>(_);

	/// What it needs.
	#[pallet::config]
	pub trait Config: frame_system::Config<AccountId = AccountId, Hash = Hash, RuntimeEvent: From<Event<Self>>> {
		/// The money.
		type Currency: Inspect<AccountId, Balance = Balance> + Mutate<AccountId>;
		/// Checks what duty keys sign.
		type Auth: DutyAuth;
		/// The clock.
		type Clock: EpochClock;
		/// The Hosts and what they serve.
		type Hosts: HostRegistry;
		/// Their weights.
		type Weights: EpochWeights;
		/// Random values.
		type Beacon: Beacon;
		/// Reputation, exclusion and duty seeds.
		type Standing: Standing;
		/// Takes the pay of passed inferences.
		type Earnings: Earnings;
		/// Hears who exposed a fraud.
		type Bounties: Bounties;
		/// Who registers models and sets prices.
		type AdminOrigin: EnsureOrigin<Self::RuntimeOrigin>;
		/// Makes the account of the pot.
		#[pallet::constant]
		type PalletId: Get<PalletId>;
		/// Least that may be funded at once.
		#[pallet::constant]
		type MinDeposit: Get<Balance>;
		/// Slots after which an inference without a result hangs.
		#[pallet::constant]
		type ExpirySlots: Get<Slot>;
		/// Slots between two scans for hanging inferences.
		#[pallet::constant]
		type ScanSlots: Get<Slot>;
		/// Slots after a result in which verdicts are accepted.
		#[pallet::constant]
		type VerdictWindow: Get<Slot>;
		/// Slots after which an undecided recheck passes.
		#[pallet::constant]
		type VoteWindow: Get<Slot>;
		/// Whether a single Host may be transfer agent, executor and validator at once: for networks of one Host.
		#[pallet::constant]
		type AllowSelf: Get<bool>;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
	}

	/// Models at genesis; their ids are their positions.
	#[pallet::genesis_config]
	#[derive(frame_support::DefaultNoBound)]
	pub struct GenesisConfig<T: Config> {
		/// The models.
		pub models: Vec<GenesisModel>,
		#[serde(skip)]
		#[allow(missing_docs)]
		pub _config: PhantomData<T>,
	}

	#[pallet::genesis_build]
	impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
		fn build(&self) {
			for model in &self.models {
				let info = ModelInfo {
					name: BoundedVec::truncate_from(model.name.clone().into_bytes()),
					weights_hash: model.weights_hash,
					prompt_price: model.prompt_price,
					completion_price: model.completion_price,
					thresholds: BoundedVec::truncate_from(model.thresholds.clone()),
				};
				assert!(Pallet::<T>::insert_model(info).is_ok(), "a model at genesis needs a name of its own");
			}
			// The pot's minimum balance, so that it survives when the last deposit is withdrawn.
			let pot = Pallet::<T>::pot();
			let missing = T::Currency::minimum_balance().saturating_sub(T::Currency::total_balance(&pot));
			assert!(T::Currency::mint_into(&pot, missing).is_ok(), "the pot needs its minimum balance");
		}
	}

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_initialize(now: BlockNumberFor<T>) -> Weight {
			let clock = T::Clock::now();
			Self::enter_epoch(clock.epoch)
				.saturating_add(Self::salt_payers(now))
				.saturating_add(Self::close_overdue_rechecks(clock.slot))
				.saturating_add(Self::expire_hanging(clock.slot))
		}

		fn on_idle(_now: BlockNumberFor<T>, left: Weight) -> Weight {
			let used = Self::seal_ready(left);
			used.saturating_add(Self::prune(left.saturating_sub(used)))
		}

		#[cfg(feature = "try-runtime")]
		fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
			Self::do_try_state()
		}

		fn integrity_test() {
			assert!(T::MinDeposit::get() >= T::Currency::minimum_balance(), "a deposit must be worth an account");
			assert!(
				T::ExpirySlots::get() > 0 && T::VerdictWindow::get() > 0 && T::VoteWindow::get() > 0,
				"windows are not empty"
			);
		}
	}

	#[pallet::call]
	impl<T: Config> Pallet<T> {
		/// Registers a model. By the admin.
		#[pallet::call_index(0)]
		#[pallet::weight(T::WeightInfo::set_model())]
		pub fn register_model(origin: OriginFor<T>, info: ModelInfo) -> DispatchResult {
			T::AdminOrigin::ensure_origin(origin)?;
			let (prompt_price, completion_price) = (info.prompt_price, info.completion_price);
			let model = Self::insert_model(info)?;
			Self::deposit_event(Event::ModelSet { model, prompt_price, completion_price });
			Ok(())
		}

		/// Changes prices and thresholds of a model, for results recorded from now on. By the admin.
		#[pallet::call_index(1)]
		#[pallet::weight(T::WeightInfo::set_model())]
		pub fn update_model(
			origin: OriginFor<T>,
			model: ModelId,
			prompt_price: Balance,
			completion_price: Balance,
			thresholds: Thresholds,
		) -> DispatchResult {
			T::AdminOrigin::ensure_origin(origin)?;
			Models::<T>::try_mutate(model, |info| -> DispatchResult {
				let info = info.as_mut().ok_or(Error::<T>::UnknownModel)?;
				(info.prompt_price, info.completion_price, info.thresholds) = (prompt_price, completion_price, thresholds);
				Ok(())
			})?;
			Self::deposit_event(Event::ModelSet { model, prompt_price, completion_price });
			Ok(())
		}

		/// Adds to the caller's deposit. The first time, this makes its payer, which has its salt two blocks later.
		#[pallet::call_index(2)]
		#[pallet::weight(T::WeightInfo::fund())]
		pub fn fund(origin: OriginFor<T>, amount: Balance) -> DispatchResult {
			Self::do_fund(ensure_signed(origin)?, amount)
		}

		/// Takes from the caller's free deposit. When nothing is left, neither money nor inferences in open batches, all
		/// that is known of the caller is forgotten.
		#[pallet::call_index(3)]
		#[pallet::weight(T::WeightInfo::withdraw())]
		pub fn withdraw(origin: OriginFor<T>, amount: Balance) -> DispatchResult {
			Self::do_withdraw(ensure_signed(origin)?, amount)
		}

		/// Lets a transfer agent spend up to `cap_per_epoch` of the caller's deposit, for its API keys.
		#[pallet::call_index(4)]
		#[pallet::weight(T::WeightInfo::allow())]
		pub fn allow(origin: OriginFor<T>, ta: AccountId, cap_per_epoch: Balance) -> DispatchResult {
			Self::do_allow(ensure_signed(origin)?, ta, cap_per_epoch)
		}

		/// Takes the allowance back. What was started goes on.
		#[pallet::call_index(5)]
		#[pallet::weight(T::WeightInfo::allow())]
		pub fn revoke(origin: OriginFor<T>, ta: AccountId) -> DispatchResult {
			let developer = ensure_signed(origin)?;
			ensure!(Allowances::<T>::take(&developer, &ta).is_some(), Error::<T>::NoAllowance);
			Self::deposit_event(Event::Revoked { developer, ta });
			Ok(())
		}

		/// Registers a hot key that may sign requests for the caller.
		#[pallet::call_index(6)]
		#[pallet::weight(T::WeightInfo::request_key())]
		pub fn register_request_key(origin: OriginFor<T>, key: sr25519::Public) -> DispatchResult {
			Self::set_request_key(ensure_signed(origin)?, key, true)
		}

		/// The key may no longer sign requests.
		#[pallet::call_index(7)]
		#[pallet::weight(T::WeightInfo::request_key())]
		pub fn remove_request_key(origin: OriginFor<T>, key: sr25519::Public) -> DispatchResult {
			Self::set_request_key(ensure_signed(origin)?, key, false)
		}

		/// Seals a batch that is ready. By anyone; free if it was ready.
		#[pallet::call_index(8)]
		#[pallet::weight(T::WeightInfo::seal(pacer_types::ledger::MAX_BATCH))]
		pub fn seal(origin: OriginFor<T>, batch: BatchKey) -> DispatchResultWithPostInfo {
			ensure_signed(origin)?;
			let entries = Batches::<T>::get(&batch).ok_or(Error::<T>::UnknownBatch)?;
			ensure!(Self::is_ready(&entries, &T::Clock::now()), Error::<T>::NotReady);
			let weight = Self::seal_batch(&batch, entries);
			Ok(PostDispatchInfo { actual_weight: Some(weight), pays_fee: Pays::No })
		}

		/// A transfer agent records the inferences it passed on. Unsigned, by its duty key, lane Ledger. Records that
		/// cannot be accepted are reported by `RecordRejected`; the batch takes the agent's next number in any case, and
		/// a record's position in it is its position here.
		#[pallet::call_index(9)]
		#[pallet::weight((T::WeightInfo::start_many(records.len() as u32), Pays::No))]
		#[pallet::authorize(|source: TransactionSource, header: &DutyHeader, records: &Records<StartRecord>, signature: &DutySignature| {
			Self::authorize_records(source, CallKind::StartMany, header, records, signature)
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn start_many(
			origin: OriginFor<T>,
			header: DutyHeader,
			records: Records<StartRecord>,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			T::Auth::mark(Lane::Ledger, &header);
			Self::record_starts(header.host, records);
			Ok(())
		}

		/// An executor records results. Unsigned, by its duty key, lane Ledger.
		#[pallet::call_index(10)]
		#[pallet::weight((T::WeightInfo::finish_many(records.len() as u32), Pays::No))]
		#[pallet::authorize(|source: TransactionSource, header: &DutyHeader, records: &Records<(BatchKey, u16, FinishRecord)>, signature: &DutySignature| {
			Self::authorize_records(source, CallKind::FinishMany, header, records, signature)
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn finish_many(
			origin: OriginFor<T>,
			header: DutyHeader,
			records: Records<(BatchKey, u16, FinishRecord)>,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			T::Auth::mark(Lane::Ledger, &header);
			Self::record_results(header.host, records);
			Ok(())
		}

		/// A validator records what it found. Unsigned, by its duty key, lane Ledger.
		#[pallet::call_index(11)]
		#[pallet::weight((T::WeightInfo::verdict_many(records.len() as u32), Pays::No))]
		#[pallet::authorize(|source: TransactionSource, header: &DutyHeader, records: &Records<VerdictRecord>, signature: &DutySignature| {
			Self::authorize_records(source, CallKind::VerdictMany, header, records, signature)
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn verdict_many(
			origin: OriginFor<T>,
			header: DutyHeader,
			records: Records<VerdictRecord>,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			T::Auth::mark(Lane::Ledger, &header);
			Self::record_verdicts(header.host, records);
			Ok(())
		}

		/// A Host that serves the model votes in a re-verification. Unsigned, by its duty key, once per inference.
		/// Where fraud is claimed, `pass = false` confirms the fraud.
		#[pallet::call_index(12)]
		#[pallet::weight((T::WeightInfo::vote_inference(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, batch: &BatchKey, index: &u16, pass: &bool, signature: &DutySignature| {
			Self::authorize_vote(header, batch, *index, *pass, signature)
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn vote_inference(
			origin: OriginFor<T>,
			header: DutyHeader,
			batch: BatchKey,
			index: u16,
			pass: bool,
			_signature: DutySignature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Self::record_vote(header.host, InferenceKey { batch, index }, pass);
			Ok(())
		}
	}
}
