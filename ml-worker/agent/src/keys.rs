//! The duty key, and request keys of Developers.
//!
//! Invariants
//! 1. Secret bytes are never printed: `Debug` shows the public key only, and errors never quote a file's content.
//! 2. A key file that others may read is refused.

use std::{fmt, path::Path};

use codec::Encode;
use pacer_types::{duty::blake2_256, AccountId, DutyCall, DutyHeader, DutyKey, DutySignature, Hash, SignedDutyCall};
use sp_core::{sr25519, Pair as _};

use crate::error::{Error, Result};

/// An sr25519 key pair that does not show its secret.
#[derive(Clone)]
pub struct KeyPair(sr25519::Pair);

impl fmt::Debug for KeyPair {
	fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
		write!(f, "KeyPair(public 0x{}, secret hidden)", hex::encode(self.public()))
	}
}

impl KeyPair {
	/// Reads 64 hex digits from a file that only its owner may read.
	pub fn from_file(path: &Path) -> Result<Self> {
		let shown = path.display();
		let fail = |e: std::io::Error| Error::Key(format!("{shown}: {e}"));
		#[cfg(unix)]
		{
			use std::os::unix::fs::PermissionsExt;
			let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode();
			if mode & 0o077 != 0 {
				return Err(Error::Key(format!("{shown} can be read by others: chmod 600 it")));
			}
		}
		let text = std::fs::read_to_string(path).map_err(fail)?;
		let digits = text.trim().trim_start_matches("0x");
		let mut seed = [0u8; 32];
		hex::decode_to_slice(digits, &mut seed).map_err(|_| Error::Key(format!("{shown} must hold 64 hex digits")))?;
		Ok(Self(sr25519::Pair::from_seed(&seed)))
	}

	/// A key from a development phrase such as `//Alice`.
	pub fn from_uri(uri: &str) -> Result<Self> {
		let pair = sr25519::Pair::from_string(uri, None).map_err(|_| Error::Key("not a key phrase".into()))?;
		Ok(Self(pair))
	}

	/// Writes a new random key to a file that must not exist, and returns it.
	pub fn generate_to(path: &Path) -> Result<Self> {
		use std::io::Write;
		let seed: [u8; 32] = rand::random();
		let mut options = std::fs::OpenOptions::new();
		options.write(true).create_new(true);
		#[cfg(unix)]
		{
			use std::os::unix::fs::OpenOptionsExt;
			options.mode(0o600);
		}
		let mut file = options.open(path).map_err(|e| Error::Key(format!("{}: {e}", path.display())))?;
		writeln!(file, "{}", hex::encode(seed))?;
		file.sync_all()?;
		Ok(Self(sr25519::Pair::from_seed(&seed)))
	}

	/// The public key.
	pub fn public(&self) -> DutyKey {
		self.0.public()
	}

	/// Signs 32 bytes.
	pub fn sign(&self, message: &[u8; 32]) -> DutySignature {
		self.0.sign(message)
	}

	/// Signs what the agent tells the chain.
	pub fn sign_call(&self, genesis: &Hash, header: DutyHeader, call: DutyCall) -> SignedDutyCall {
		let signature = self.sign(&call.signing_hash(genesis, &header));
		SignedDutyCall { header, call, signature }
	}

	/// The pair, for the VRF.
	pub fn pair(&self) -> &sr25519::Pair {
		&self.0
	}
}

/// What a duty key signs to show that its owner wants `host` to register it (`pallet-hosts`, `register`).
pub fn possession_hash(genesis: &Hash, host: &AccountId) -> [u8; 32] {
	(b"pacer/duty-key/v1", genesis, host).using_encoded(blake2_256)
}

/// Whether `signature` over 32 bytes is `key`'s.
pub fn verify(key: &DutyKey, message: &[u8; 32], signature: &DutySignature) -> bool {
	sr25519::Pair::verify(signature, message, key)
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn key_should_hide_its_secret_when_printed() {
		let dir = tempfile::tempdir().unwrap();
		let path = dir.path().join("duty.key");
		let pair = KeyPair::generate_to(&path).unwrap();
		let secret = std::fs::read_to_string(&path).unwrap();
		assert!(!format!("{pair:?}").contains(secret.trim()));
		assert_eq!(KeyPair::from_file(&path).unwrap().public(), pair.public());
		assert!(KeyPair::generate_to(&path).is_err(), "an existing key is never overwritten");
	}

	#[cfg(unix)]
	#[test]
	fn key_file_should_be_refused_when_others_may_read_it() {
		use std::os::unix::fs::PermissionsExt;
		let dir = tempfile::tempdir().unwrap();
		let path = dir.path().join("duty.key");
		KeyPair::generate_to(&path).unwrap();
		std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
		assert!(KeyPair::from_file(&path).is_err());
	}
}
