//! What the pallet stores; part of the pallet's module by `import_section`.

use frame_support::pallet_macros::pallet_section;

/// The storage of the pallet.
#[pallet_section]
mod storage {
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

	/// Hosts whose count of an epoch is zero, and why.
	#[pallet::storage]
	pub type Struck<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Strike>;

	/// VRF outputs of the first blocks of each Audit.
	#[pallet::storage]
	pub type Salts<T> = StorageMap<_, Twox64Concat, EpochIndex, Salt, ValueQuery>;

	/// Open disputes by race.
	#[pallet::storage]
	pub type Disputes<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Twox64Concat, DisputeId, Dispute>;

	/// Number of the next dispute of a race.
	#[pallet::storage]
	pub type NextDispute<T> = StorageMap<_, Twox64Concat, EpochIndex, DisputeId, ValueQuery>;

	/// Open disputes by race and Host whose list is in doubt.
	#[pallet::storage]
	pub type Against<T> = StorageDoubleMap<_, Blake2_128Concat, (EpochIndex, AccountId), Twox64Concat, DisputeId, ()>;

	/// What was asked in a race: by whom, of whom.
	#[pallet::storage]
	pub type Asked<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, (AccountId, AccountId, Question), ()>;

	/// Number of challenges by race and challenger.
	#[pallet::storage]
	pub type Challenges<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, u32, ValueQuery>;

	/// Number of open disputes by challenger.
	#[pallet::storage]
	pub type OpenBy<T> = StorageMap<_, Blake2_128Concat, AccountId, u32, ValueQuery>;

	/// Number of open disputes of all wallets.
	#[pallet::storage]
	pub type OpenByWallets<T> = StorageValue<_, u32, ValueQuery>;

	/// Demands by race and Host whose list is withheld.
	#[pallet::storage]
	pub type Demands<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, Demand>;

	/// Deadlines in the order of time: keys are iterated as they are, and begin with the slot.
	#[pallet::storage]
	pub type Due<T> = StorageMap<_, Identity, DueKey, ()>;

	/// Struck Hosts that still have disputes to end.
	#[pallet::storage]
	pub type Ending<T> = StorageMap<_, Blake2_128Concat, (EpochIndex, AccountId), ()>;

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
}
