//! JSON-RPC beside what every Substrate node has: account nonces, fees, `babe_*` and `grandpa_*`.

use std::sync::Arc;

use jsonrpsee::RpcModule;
use pacer_runtime::{AccountId, Balance, BlockNumber, Hash, Nonce};
use sc_consensus_babe::BabeWorkerHandle;
use sc_consensus_babe_rpc::{Babe, BabeApiServer};
use sc_consensus_grandpa::{FinalityProofProvider, GrandpaJustificationStream, SharedAuthoritySet, SharedVoterState};
use sc_consensus_grandpa_rpc::{Grandpa, GrandpaApiServer};
use sp_core::traits::SpawnNamed;
use sp_keystore::KeystorePtr;

use crate::service::{Block, FullBackend, FullClient, FullPool, FullSelectChain};

/// What the GRANDPA methods need.
pub struct GrandpaDeps {
	/// State of the voter.
	pub voter_state: SharedVoterState,
	/// The authority set.
	pub authority_set: SharedAuthoritySet<Hash, BlockNumber>,
	/// Justifications as they come.
	pub justifications: GrandpaJustificationStream<Block>,
	/// Proves finality of old blocks.
	pub proofs: Arc<FinalityProofProvider<FullBackend, Block>>,
}

/// What the methods need.
pub struct Deps {
	/// The client.
	pub client: Arc<FullClient>,
	/// The transaction pool.
	pub pool: Arc<FullPool>,
	/// Picks the best chain.
	pub select_chain: FullSelectChain,
	/// The BABE worker.
	pub babe: BabeWorkerHandle<Block>,
	/// The keystore.
	pub keystore: KeystorePtr,
	/// GRANDPA's parts.
	pub grandpa: GrandpaDeps,
}

/// All extra methods.
pub fn create(deps: Deps, executor: Arc<dyn SpawnNamed>) -> Result<RpcModule<()>, Box<dyn std::error::Error + Send + Sync>> {
	use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
	use substrate_frame_rpc_system::{System, SystemApiServer};

	// Type parameters that the macros of these methods cannot infer.
	type Nonces = System<FullPool, FullClient, Block>;
	let _: Option<(AccountId, Balance, Nonce)> = None;
	let Deps { client, pool, select_chain, babe, keystore, grandpa } = deps;
	let mut module = RpcModule::new(());
	module.merge(Nonces::new(client.clone(), pool).into_rpc())?;
	module.merge(TransactionPayment::new(client.clone()).into_rpc())?;
	module.merge(Babe::new(client, babe, keystore, select_chain).into_rpc())?;
	module.merge(
		Grandpa::new(executor, grandpa.authority_set, grandpa.voter_state, grandpa.justifications, grandpa.proofs).into_rpc(),
	)?;
	Ok(module)
}
