//! Hosts: who contributes hardware, under which keys, with what bond.
//!
//! # Words
//! - *Host*: an account with a bond, a duty key and the address of its agent.
//! - *duty key*: the hot key with which the Host's agent signs what it tells the chain.
//! - *node key*: the third session key, with which the Host's node signs heartbeats and randomness.
//! - *lane*: an independent sequence of nonces of a Host.
//!
//! # Life cycle
//! `register` (usually in one `utility.batch_all` with `session.set_keys`) before Deal lets the Host race in the same
//! epoch, later in the next. `leave` stops it from racing; two epochs later `withdraw` returns the bond and forgets it.
//!
//! # The door for duty keys
//! This pallet implements [`DutyAuth`] for all others, so there is one place that checks keys, epochs, nonces, validity
//! and signatures, in the order of their cost.
//!
//! # Invariants
//! 1. `DutyKeys` maps exactly the current duty keys of the Hosts to their owners.
//! 2. What is held on a Host's account for its bond equals `HostInfo::bond`, and `Locked` never exceeds it.
//! 3. There are at most [`MAX_HOSTS`] Hosts, and `HostCount` is their number.
//! 4. Heartbeats are kept for the current epoch and the one before only.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod auth;
#[cfg(test)]
mod mock;
mod offchain;
#[cfg(test)]
mod tests;
mod types;
pub mod weights;

pub use pallet::*;
pub use types::*;
pub use weights::WeightInfo;

use pacer_types::{AccountId, Balance, MAX_HOSTS};

#[frame_support::pallet]
pub mod pallet {
	use super::*;
	use alloc::vec::Vec;
	use frame_support::{
		pallet_prelude::*,
		traits::{
			fungible::{Inspect, InspectHold, Mutate, MutateHold},
			tokens::{Fortitude, Precision, Restriction},
		},
	};
	use frame_system::pallet_prelude::*;
	use pacer_types::{
		duty::{CallKind, DutyHeader},
		node_key,
		traits::{DutyAuth, EpochClock, EpochWeights, NodeKeyOwner},
		DutyKey, DutySignature, EpochIndex, Hash, Lane, Phase,
	};
	use sp_runtime::traits::Verify;

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
		/// Holds the bonds.
		type Currency: Inspect<AccountId, Balance = Balance>
			+ Mutate<AccountId>
			+ InspectHold<AccountId, Reason = Self::RuntimeHoldReason>
			+ MutateHold<AccountId>;
		/// The reason under which bonds are held.
		type RuntimeHoldReason: From<HoldReason>;
		/// The clock.
		type Clock: EpochClock;
		/// Weights, which are the quota of the ledger's lane.
		type Weights: EpochWeights;
		/// Whose node key it is; wired to the session pallet.
		type NodeKeyOwner: NodeKeyOwner;
		/// Bond of a Host.
		#[pallet::constant]
		type HostBond: Get<Balance>;
		/// Weights of calls.
		type WeightInfo: WeightInfo;
	}

	/// Why money is held.
	#[pallet::composite_enum]
	pub enum HoldReason {
		/// The bond of a Host.
		Bond,
	}

	/// The Hosts.
	#[pallet::storage]
	pub type Hosts<T> = StorageMap<_, Blake2_128Concat, AccountId, HostInfo>;

	/// Number of Hosts.
	#[pallet::storage]
	pub type HostCount<T> = StorageValue<_, u32, ValueQuery>;

	/// Owner of each duty key in force.
	#[pallet::storage]
	pub type DutyKeys<T> = StorageMap<_, Blake2_128Concat, DutyKey, AccountId>;

	/// Next nonce of each lane.
	#[pallet::storage]
	pub type Nonces<T> = StorageDoubleMap<_, Blake2_128Concat, AccountId, Twox64Concat, Lane, u64, ValueQuery>;

	/// Hosts whose node was seen in an epoch.
	#[pallet::storage]
	pub type Heartbeats<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, ()>;

	/// Part of each bond that is locked by deposits.
	#[pallet::storage]
	pub type Locked<T> = StorageMap<_, Blake2_128Concat, AccountId, Balance, ValueQuery>;

	/// Hosts at genesis: account, duty key, endpoint, models.
	#[pallet::genesis_config]
	#[derive(frame_support::DefaultNoBound)]
	pub struct GenesisConfig<T: Config> {
		/// The Hosts.
		pub hosts: Vec<GenesisHost>,
		#[serde(skip)]
		#[allow(missing_docs)]
		pub _config: PhantomData<T>,
	}

	#[pallet::genesis_build]
	impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
		fn build(&self) {
			for host in &self.hosts {
				let endpoint = BoundedVec::truncate_from(host.endpoint.clone().into_bytes());
				let models = BoundedVec::truncate_from(host.models.clone());
				assert!(
					Pallet::<T>::insert_host(&host.account, host.duty_key, endpoint, models, 0).is_ok(),
					"a Host at genesis needs a bond, a valid endpoint and a duty key of its own"
				);
			}
		}
	}

	/// What happened.
	#[pallet::event]
	#[pallet::generate_deposit(pub(super) fn deposit_event)]
	pub enum Event<T: Config> {
		/// A Host registered; it may race from this epoch on.
		Registered {
			/// The Host.
			host: AccountId,
			/// Its duty key.
			duty_key: DutyKey,
			/// First epoch in which it may race.
			races_from: EpochIndex,
		},
		/// A Host changed the address of its agent or the models it serves.
		Updated {
			/// The Host.
			host: AccountId,
		},
		/// A Host changed its duty key.
		DutyKeyChanged {
			/// The Host.
			host: AccountId,
			/// The new key.
			duty_key: DutyKey,
		},
		/// A Host leaves: it no longer races, and may withdraw its bond from this epoch on.
		Leaving {
			/// The Host.
			host: AccountId,
			/// First epoch in which it may withdraw.
			withdraw_from: EpochIndex,
		},
		/// A Host withdrew its bond and is forgotten.
		Withdrawn {
			/// The Host.
			host: AccountId,
			/// What it got back.
			bond: Balance,
		},
		/// A Host's node is alive in this epoch.
		HeartbeatSeen {
			/// The Host.
			host: AccountId,
			/// The epoch.
			epoch: EpochIndex,
		},
		/// Part of a bond was burned.
		BondForfeited {
			/// The Host.
			host: AccountId,
			/// What was burned.
			amount: Balance,
		},
		/// Part of a bond was paid to another account.
		BondPaid {
			/// The Host.
			host: AccountId,
			/// Who got it.
			to: AccountId,
			/// How much.
			amount: Balance,
		},
	}

	/// Why a call of a wallet fails.
	#[pallet::error]
	pub enum Error<T> {
		/// The account is a Host already.
		AlreadyRegistered,
		/// The account is no Host.
		NotRegistered,
		/// Another Host uses this duty key.
		DutyKeyTaken,
		/// The proof is not a signature by the duty key over this account.
		BadProof,
		/// The endpoint is no http or https URL of printable ASCII.
		BadEndpoint,
		/// A model is named twice.
		RepeatedModel,
		/// There are as many Hosts as there may be.
		TooManyHosts,
		/// An earlier change of the duty key is not in force for duties yet.
		DutyKeyChangePending,
		/// The Host has to leave first, and to wait.
		NotYet,
		/// Part of the bond is locked.
		BondLocked,
		/// The Host is leaving.
		IsLeaving,
	}

	#[pallet::hooks]
	impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
		fn on_idle(_now: BlockNumberFor<T>, left: Weight) -> Weight {
			Self::prune_heartbeats(left)
		}

		fn offchain_worker(now: BlockNumberFor<T>) {
			Self::send_heartbeat(now);
		}

		#[cfg(feature = "try-runtime")]
		fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
			Self::do_try_state()
		}

		fn integrity_test() {
			assert!(T::HostBond::get() > 0, "a Host without a bond has nothing to lose");
		}
	}

	#[pallet::call]
	impl<T: Config> Pallet<T> {
		/// Makes the caller a Host and holds `HostBond` on its account.
		///
		/// `proof` is a signature by `duty_key` over [`possession_hash`], so that nobody can block another's key.
		#[pallet::call_index(0)]
		#[pallet::weight(T::WeightInfo::register())]
		pub fn register(
			origin: OriginFor<T>,
			duty_key: DutyKey,
			endpoint: Endpoint,
			models: Models,
			proof: DutySignature,
		) -> DispatchResult {
			let who = ensure_signed(origin)?;
			ensure!(proof.verify(&Self::possession_hash(&who)[..], &duty_key), Error::<T>::BadProof);
			let now = T::Clock::now();
			let races_from = Self::next_race(now.phase, now.epoch);
			Self::insert_host(&who, duty_key, endpoint, models, races_from)?;
			Self::deposit_event(Event::Registered { host: who, duty_key, races_from });
			Ok(())
		}

		/// Changes the address of the agent and the models served.
		#[pallet::call_index(1)]
		#[pallet::weight(T::WeightInfo::update())]
		pub fn update(origin: OriginFor<T>, endpoint: Endpoint, models: Models) -> DispatchResult {
			let host = ensure_signed(origin)?;
			Self::check_service(&endpoint, &models)?;
			Hosts::<T>::try_mutate(&host, |info| -> DispatchResult {
				let info = info.as_mut().ok_or(Error::<T>::NotRegistered)?;
				info.endpoint = endpoint;
				info.models = models;
				Ok(())
			})?;
			Self::deposit_event(Event::Updated { host });
			Ok(())
		}

		/// Changes the duty key. It signs at once; duties are decided by it from the epoch whose Deal it preceded.
		#[pallet::call_index(2)]
		#[pallet::weight(T::WeightInfo::set_duty_key())]
		pub fn set_duty_key(origin: OriginFor<T>, duty_key: DutyKey, proof: DutySignature) -> DispatchResult {
			let host = ensure_signed(origin)?;
			ensure!(proof.verify(&Self::possession_hash(&host)[..], &duty_key), Error::<T>::BadProof);
			ensure!(!DutyKeys::<T>::contains_key(duty_key), Error::<T>::DutyKeyTaken);
			let now = T::Clock::now();
			Hosts::<T>::try_mutate(&host, |info| -> DispatchResult {
				let info = info.as_mut().ok_or(Error::<T>::NotRegistered)?;
				ensure!(now.epoch >= info.seed_from, Error::<T>::DutyKeyChangePending);
				DutyKeys::<T>::remove(info.duty_key);
				info.previous_duty_key = Some(info.duty_key);
				info.duty_key = duty_key;
				info.seed_from = Self::next_race(now.phase, now.epoch).saturating_add(1);
				Ok(())
			})?;
			DutyKeys::<T>::insert(duty_key, &host);
			Self::deposit_event(Event::DutyKeyChanged { host, duty_key });
			Ok(())
		}

		/// Stops racing. The bond stays until what the Host did can no longer be disputed.
		#[pallet::call_index(3)]
		#[pallet::weight(T::WeightInfo::leave())]
		pub fn leave(origin: OriginFor<T>) -> DispatchResult {
			let host = ensure_signed(origin)?;
			let withdraw_from = T::Clock::epoch().saturating_add(BOND_EPOCHS);
			Hosts::<T>::try_mutate(&host, |info| -> DispatchResult {
				let info = info.as_mut().ok_or(Error::<T>::NotRegistered)?;
				ensure!(info.withdraw_from.is_none(), Error::<T>::IsLeaving);
				info.withdraw_from = Some(withdraw_from);
				Ok(())
			})?;
			Self::deposit_event(Event::Leaving { host, withdraw_from });
			Ok(())
		}

		/// Returns the bond and forgets the Host, [`BOND_EPOCHS`] after it left.
		#[pallet::call_index(4)]
		#[pallet::weight(T::WeightInfo::withdraw())]
		pub fn withdraw(origin: OriginFor<T>) -> DispatchResult {
			let host = ensure_signed(origin)?;
			let info = Hosts::<T>::get(&host).ok_or(Error::<T>::NotRegistered)?;
			let epoch = T::Clock::epoch();
			ensure!(info.withdraw_from.is_some_and(|from| epoch >= from), Error::<T>::NotYet);
			ensure!(Locked::<T>::get(&host) == 0, Error::<T>::BondLocked);
			T::Currency::release(&HoldReason::Bond.into(), &host, info.bond, Precision::BestEffort)?;
			Hosts::<T>::remove(&host);
			DutyKeys::<T>::remove(info.duty_key);
			Locked::<T>::remove(&host);
			HostCount::<T>::mutate(|n| *n = n.saturating_sub(1));
			// Nonces stay: were the account to register again, nothing it once signed could be replayed.
			Self::deposit_event(Event::Withdrawn { host, bond: info.bond });
			Ok(())
		}

		/// The Host's node is alive. Unsigned, by the node's key, once an epoch.
		#[pallet::call_index(5)]
		#[pallet::weight((T::WeightInfo::heartbeat(), Pays::No))]
		#[pallet::authorize(|_source: TransactionSource, header: &DutyHeader, key: &node_key::Public, signature: &node_key::Signature| {
			Self::authorize_heartbeat(header, key, signature).map(|valid| (valid, Weight::zero()))
		})]
		#[pallet::weight_of_authorize(T::WeightInfo::authorize())]
		pub fn heartbeat(
			origin: OriginFor<T>,
			header: DutyHeader,
			_key: node_key::Public,
			_signature: node_key::Signature,
		) -> DispatchResult {
			ensure_authorized(origin)?;
			Heartbeats::<T>::insert(header.epoch, &header.host, ());
			Self::deposit_event(Event::HeartbeatSeen { host: header.host, epoch: header.epoch });
			Ok(())
		}
	}

	impl<T: Config> Pallet<T> {
		/// What a duty key signs to show that its owner wants it used by `who`.
		pub fn possession_hash(who: &AccountId) -> [u8; 32] {
			possession_hash(&Self::genesis_hash(), who)
		}

		/// Hash of the first block, part of everything that is signed.
		pub fn genesis_hash() -> Hash {
			frame_system::Pallet::<T>::block_hash(BlockNumberFor::<T>::default())
		}

		/// The first race for which something registered now counts: this epoch's before Deal, else the next one's.
		fn next_race(phase: Phase, epoch: EpochIndex) -> EpochIndex {
			if phase == Phase::Inference {
				epoch
			} else {
				epoch.saturating_add(1)
			}
		}

		fn check_service(endpoint: &Endpoint, models: &Models) -> DispatchResult {
			let printable = endpoint.iter().all(|b| b.is_ascii_graphic());
			let url = endpoint.starts_with(b"http://") || endpoint.starts_with(b"https://");
			ensure!(printable && url, Error::<T>::BadEndpoint);
			let mut sorted = models.to_vec();
			sorted.sort_unstable();
			sorted.dedup();
			ensure!(sorted.len() == models.len(), Error::<T>::RepeatedModel);
			Ok(())
		}

		fn insert_host(
			who: &AccountId,
			duty_key: DutyKey,
			endpoint: Endpoint,
			models: Models,
			races_from: EpochIndex,
		) -> DispatchResult {
			ensure!(!Hosts::<T>::contains_key(who), Error::<T>::AlreadyRegistered);
			ensure!(!DutyKeys::<T>::contains_key(duty_key), Error::<T>::DutyKeyTaken);
			Self::check_service(&endpoint, &models)?;
			let count = HostCount::<T>::get();
			ensure!(count < MAX_HOSTS, Error::<T>::TooManyHosts);
			let bond = T::HostBond::get();
			T::Currency::hold(&HoldReason::Bond.into(), who, bond)?;
			HostCount::<T>::put(count.saturating_add(1));
			DutyKeys::<T>::insert(duty_key, who);
			let info = HostInfo {
				duty_key,
				previous_duty_key: None,
				seed_from: races_from,
				endpoint,
				models,
				bond,
				races_from,
				withdraw_from: None,
			};
			Hosts::<T>::insert(who, info);
			Ok(())
		}

		fn authorize_heartbeat(
			header: &DutyHeader,
			key: &node_key::Public,
			signature: &node_key::Signature,
		) -> Result<ValidTransaction, TransactionValidityError> {
			Self::authorize_node(CallKind::Heartbeat, header, key, &(), &(), signature, || {
				if Heartbeats::<T>::contains_key(header.epoch, &header.host) {
					return Err(InvalidTransaction::Stale.into());
				}
				Ok(())
			})
		}

		/// Forgets heartbeats of epochs before the previous one, a bounded number a block.
		fn prune_heartbeats(left: Weight) -> Weight {
			let cost = T::DbWeight::get().reads_writes(2, 0);
			let epoch = T::Clock::epoch();
			let Some(old) = epoch.checked_sub(2) else { return Weight::zero() };
			let per_item = T::DbWeight::get().reads_writes(1, 1);
			let room = left.saturating_sub(cost).checked_div_per_component(&per_item).unwrap_or(100).min(100);
			let removed = Heartbeats::<T>::clear_prefix(old, u32::try_from(room).unwrap_or(0), None).unique;
			cost.saturating_add(per_item.saturating_mul(u64::from(removed)))
		}

		/// Burns up to `amount` of a Host's bond; returns what was burned.
		pub(crate) fn burn_bond(who: &AccountId, amount: Balance) -> Balance {
			let burned = T::Currency::burn_held(&HoldReason::Bond.into(), who, amount, Precision::BestEffort, Fortitude::Force)
				.unwrap_or_default();
			Self::shrink_bond(who, burned);
			if burned > 0 {
				Self::deposit_event(Event::BondForfeited { host: who.clone(), amount: burned });
			}
			burned
		}

		/// Moves up to `amount` of a Host's bond to another account; returns what was moved. Nothing is moved to an
		/// account that the amount would not keep alive.
		pub(crate) fn pay_bond(who: &AccountId, amount: Balance, to: &AccountId) -> Balance {
			let reason = HoldReason::Bond.into();
			let free = Restriction::Free;
			let paid = T::Currency::transfer_on_hold(&reason, who, to, amount, Precision::BestEffort, free, Fortitude::Force)
				.unwrap_or_default();
			Self::shrink_bond(who, paid);
			if paid > 0 {
				Self::deposit_event(Event::BondPaid { host: who.clone(), to: to.clone(), amount: paid });
			}
			paid
		}

		/// Notes that a bond got smaller.
		fn shrink_bond(who: &AccountId, by: Balance) {
			Hosts::<T>::mutate(who, |info| {
				if let Some(info) = info {
					info.bond = info.bond.saturating_sub(by);
					Locked::<T>::mutate(who, |locked| *locked = (*locked).min(info.bond));
				}
			});
		}

		/// Checks the numbered invariants of the crate.
		#[cfg(any(test, feature = "try-runtime"))]
		pub fn do_try_state() -> Result<(), sp_runtime::TryRuntimeError> {
			let mut count = 0u32;
			for (who, info) in Hosts::<T>::iter() {
				count = count.saturating_add(1);
				ensure!(DutyKeys::<T>::get(info.duty_key).as_ref() == Some(&who), "1: a Host's duty key does not point back");
				let held = T::Currency::balance_on_hold(&HoldReason::Bond.into(), &who);
				ensure!(held == info.bond, "2: the bond is not what is held");
				ensure!(Locked::<T>::get(&who) <= info.bond, "2: more is locked than bonded");
			}
			ensure!(DutyKeys::<T>::iter().count() as u32 == count, "1: a duty key without a Host");
			ensure!(count == HostCount::<T>::get() && count <= MAX_HOSTS, "3: the number of Hosts is wrong");
			let epoch = T::Clock::epoch();
			ensure!(Heartbeats::<T>::iter_keys().all(|(e, _)| e.saturating_add(3) > epoch), "4: an old heartbeat is kept");
			Ok(())
		}
	}
}
