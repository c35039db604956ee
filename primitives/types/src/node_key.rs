//! The key with which a Host's node signs the duties that need no machine learning: heartbeats and randomness.
//!
//! It is the third session key, beside BABE's and GRANDPA's, and lives in the node's keystore. The off-chain worker
//! finds it there; the agent never sees it.

use sp_core::crypto::KeyTypeId;

/// Where the keystore files it.
pub const KEY_TYPE: KeyTypeId = KeyTypeId(*b"pacr");

mod app {
	use sp_application_crypto::{app_crypto, sr25519};
	app_crypto!(sr25519, super::KEY_TYPE);
}

/// Public part.
pub type Public = app::Public;
/// Signature.
pub type Signature = app::Signature;
/// Key pair; in native code only.
#[cfg(feature = "std")]
pub type Pair = app::Pair;
