//! What the pallet stores; part of the pallet's module by `import_section`.

use frame_support::pallet_macros::pallet_section;

/// The storage of the pallet.
#[pallet_section]
mod storage {
	/// Registered models.
	#[pallet::storage]
	pub type Models<T> = StorageMap<_, Twox64Concat, ModelId, ModelInfo>;

	/// Number of models; their ids are 0 up to it.
	#[pallet::storage]
	pub type ModelCount<T> = StorageValue<_, ModelId, ValueQuery>;

	/// Developers' money and keys.
	#[pallet::storage]
	pub type Accounts<T> = StorageMap<_, Blake2_128Concat, AccountId, Account>;

	/// Payers by index.
	#[pallet::storage]
	pub type Payers<T> = StorageMap<_, Twox64Concat, u32, Payer>;

	/// Index of a payer: (Developer, transfer agent).
	#[pallet::storage]
	pub type PayerIndex<T> = StorageMap<_, Blake2_128Concat, (AccountId, Option<AccountId>), u32>;

	/// Index of the next payer. Never reused.
	#[pallet::storage]
	pub type NextPayer<T> = StorageValue<_, u32, ValueQuery>;

	/// Payers that wait for their salt.
	#[pallet::storage]
	pub type UnsaltedPayers<T> = StorageValue<_, BoundedVec<Unsalted, ConstU32<MAX_UNSALTED>>, ValueQuery>;

	/// What Developers let transfer agents spend.
	#[pallet::storage]
	pub type Allowances<T> = StorageDoubleMap<_, Blake2_128Concat, AccountId, Blake2_128Concat, AccountId, Allowance>;

	/// Batches that are not sealed.
	#[pallet::storage]
	pub type Batches<T> = StorageMap<_, Blake2_128Concat, BatchKey, Batch>;

	/// Number of each transfer agent's next batch.
	#[pallet::storage]
	pub type NextBatch<T> = StorageMap<_, Blake2_128Concat, AccountId, u64, ValueQuery>;

	/// Open batches in the order in which they were recorded.
	#[pallet::storage]
	pub type Places<T> = StorageMap<_, Twox64Concat, u64, BatchKey>;

	/// Place of the next batch.
	#[pallet::storage]
	pub type NextPlace<T> = StorageValue<_, u64, ValueQuery>;

	/// Place of the oldest batch that may be open.
	#[pallet::storage]
	pub type FirstPlace<T> = StorageValue<_, u64, ValueQuery>;

	/// Place of the oldest batch that may hang.
	#[pallet::storage]
	pub type ExpiryPlace<T> = StorageValue<_, u64, ValueQuery>;

	/// Place from which sealing goes on.
	#[pallet::storage]
	pub type SealPlace<T> = StorageValue<_, u64, ValueQuery>;

	/// First slot of the next scan for hanging inferences.
	#[pallet::storage]
	pub type NextScan<T> = StorageValue<_, Slot, ValueQuery>;

	/// Records in open batches.
	#[pallet::storage]
	pub type OpenRecords<T> = StorageValue<_, u32, ValueQuery>;

	/// Running re-verifications.
	#[pallet::storage]
	pub type Rechecks<T> = StorageMap<_, Blake2_128Concat, InferenceKey, Recheck>;

	/// Their deadlines, in the order in which they were opened.
	#[pallet::storage]
	pub type RecheckQueue<T> = StorageValue<_, BoundedVec<(Slot, InferenceKey), ConstU32<MAX_RECHECKS>>, ValueQuery>;

	/// What remains of sealed batches.
	#[pallet::storage]
	pub type SealedBatches<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, BatchKey, Sealed>;

	/// What each Host did in an epoch.
	#[pallet::storage]
	pub type Work<T> = StorageDoubleMap<_, Twox64Concat, EpochIndex, Blake2_128Concat, AccountId, WorkCounts, ValueQuery>;

	/// Sums over the inferences of an epoch.
	#[pallet::storage]
	pub type Totals<T> = StorageMap<_, Twox64Concat, EpochIndex, EpochTotals, ValueQuery>;

	/// The oldest epoch of which records may be left.
	#[pallet::storage]
	pub type PrunedTo<T> = StorageValue<_, EpochIndex, ValueQuery>;

	/// The epoch that [`DrawSeed`] and [`VolumeLimit`] are about.
	#[pallet::storage]
	pub type CurrentEpoch<T> = StorageValue<_, EpochIndex>;

	/// The beacon value with which executors are drawn in this epoch.
	#[pallet::storage]
	pub type DrawSeed<T> = StorageValue<_, [u8; 32], ValueQuery>;

	/// Most that the volume of this epoch may be, on which the probability of verification depends.
	#[pallet::storage]
	pub type VolumeLimit<T> = StorageValue<_, u32, ValueQuery>;
}
