//! The data directory: what must survive a restart.
//!
//! ```text
//! DIR/<duty key>/lock        held while an agent runs
//!               /*.journal   queues and reservations ([`journal`])
//!               /sprint-<epoch>.nonces
//!               /inferences/<epoch>/<id>
//! ```
//!
//! Invariants
//! 1. One agent at a time: the lock is the kernel's, so it ends with the process.
//! 2. Nothing grows for ever: journals are compacted, epochs older than two are deleted.

pub mod bundles;
pub mod journal;

use std::{
	fs::{self, File},
	path::{Path, PathBuf},
};

use pacer_types::DutyKey;

use crate::error::{Error, Result};

/// The directory of one duty key, locked.
#[derive(Debug)]
pub struct DataDir {
	root: PathBuf,
	_lock: File,
}

impl DataDir {
	/// Opens and locks the directory; fails if another agent holds it.
	pub fn open(base: &Path, key: &DutyKey) -> Result<Self> {
		let root = base.join(hex::encode(key));
		fs::create_dir_all(&root)?;
		let lock = File::create(root.join("lock"))?;
		match lock.try_lock() {
			Ok(()) => Ok(Self { root, _lock: lock }),
			Err(fs::TryLockError::WouldBlock) => Err(Error::Locked),
			Err(fs::TryLockError::Error(e)) => Err(e.into()),
		}
	}

	/// A path inside.
	pub fn path(&self, name: &str) -> PathBuf {
		self.root.join(name)
	}

	/// Deletes `prefix<epoch>suffix` files of epochs before `first`.
	pub fn prune_files(&self, prefix: &str, suffix: &str, first: u32) -> Result<()> {
		for entry in fs::read_dir(&self.root)? {
			let entry = entry?;
			let name = entry.file_name();
			let epoch = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u32>().ok());
			if epoch.is_some_and(|e| e < first) {
				fs::remove_file(entry.path())?;
			}
		}
		Ok(())
	}
}

/// Writes a file so that a reader sees the old or the new content, never a part.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
	let part = path.with_extension("part");
	fs::write(&part, bytes)?;
	fs::rename(&part, path)?;
	Ok(())
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn data_dir_should_be_refused_when_another_agent_has_the_same_key() {
		let dir = tempfile::tempdir().unwrap();
		let key = DutyKey::from_raw([7; 32]);
		let first = DataDir::open(dir.path(), &key).unwrap();
		assert!(matches!(DataDir::open(dir.path(), &key), Err(Error::Locked)));
		assert!(DataDir::open(dir.path(), &DutyKey::from_raw([8; 32])).is_ok());
		drop(first);
		assert!(DataDir::open(dir.path(), &key).is_ok());
	}

	#[test]
	fn old_files_should_be_deleted_when_pruned() {
		let dir = tempfile::tempdir().unwrap();
		let data = DataDir::open(dir.path(), &DutyKey::from_raw([7; 32])).unwrap();
		for epoch in 0..4 {
			fs::write(data.path(&format!("sprint-{epoch}.nonces")), b"").unwrap();
		}
		data.prune_files("sprint-", ".nonces", 2).unwrap();
		assert!(!data.path("sprint-1.nonces").exists() && data.path("sprint-2.nonces").exists());
	}
}
