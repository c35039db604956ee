//! The nonces found in a race, in the order of finding, on disk.
//!
//! Invariants
//! 1. A nonce is in the list once.
//! 2. The list only grows, so a commitment made after the n-th nonce is for ever the one over the first n.
//! 3. What is in the list was written whole; what a failed write left of a nonce is cut off before the next one.

use std::{
	collections::HashSet,
	fs::{File, OpenOptions},
	io::{Read, Write},
	path::PathBuf,
};

use pacer_types::{EpochIndex, Hash};

use crate::{error::Result, store::DataDir};

/// The seed, at the beginning of a file.
const SEED_BYTES: u64 = 32;

/// A growing list of nonces.
#[derive(Debug)]
pub struct NonceList {
	file: File,
	found: Vec<u64>,
	known: HashSet<u64>,
	/// The last write failed: the file may end in something that is not in the list.
	is_torn: bool,
}

/// Where the list of an epoch lies.
pub fn path(data: &DataDir, epoch: EpochIndex) -> PathBuf {
	data.path(&format!("sprint-{epoch}.nonces"))
}

/// Reads a list; `None` if there is none for this seed.
fn read(path: &PathBuf, seed: &[u8; 32]) -> Option<Vec<u64>> {
	let mut bytes = Vec::new();
	File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
	let rest = bytes.strip_prefix(&seed[..])?;
	let word = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
	// A word that a crash cut short is left out.
	Some(rest.chunks_exact(8).map(word).collect())
}

impl NonceList {
	/// Opens the list of an epoch; one of another seed is replaced.
	pub fn open(data: &DataDir, epoch: EpochIndex, seed: &[u8; 32]) -> Result<Self> {
		let path = path(data, epoch);
		let found = read(&path, seed).unwrap_or_default();
		// Written anew, so that a cut word does not shift what follows.
		let mut bytes = seed.to_vec();
		bytes.extend(found.iter().flat_map(|n| n.to_le_bytes()));
		crate::store::write_atomic(&path, &bytes)?;
		let file = OpenOptions::new().append(true).open(&path)?;
		if let Some(dir) = path.parent() {
			// Else a loss of power could take the file's new name, and all that [`NonceList::file`] made safe.
			File::open(dir)?.sync_all()?;
		}
		let known = found.iter().copied().collect();
		Ok(Self { file, found, known, is_torn: false })
	}

	/// Adds nonces; known ones are ignored. Returns how many were new. After an error the list is as it was before.
	pub fn extend(&mut self, nonces: &[u64]) -> Result<usize> {
		if self.is_torn {
			self.mend()?;
		}
		let mut batch = HashSet::new();
		let new: Vec<u64> = nonces.iter().copied().filter(|n| !self.known.contains(n) && batch.insert(*n)).collect();
		let bytes: Vec<u8> = new.iter().flat_map(|n| n.to_le_bytes()).collect();
		if let Err(e) = self.file.write_all(&bytes) {
			self.is_torn = true;
			if let Err(e) = self.mend() {
				tracing::error!("the list of nonces ends in a part of a write, which could not be cut off yet: {e}");
			}
			return Err(e.into());
		}
		self.known.extend(&new);
		self.found.extend_from_slice(&new);
		Ok(new.len())
	}

	/// Cuts off what a failed write left.
	fn mend(&mut self) -> Result<()> {
		let length = SEED_BYTES.saturating_add((self.found.len() as u64).saturating_mul(8));
		self.file.set_len(length)?;
		self.is_torn = false;
		Ok(())
	}

	/// A handle to the file. Its `sync_data` must have returned before anyone is told of what is in the list: a Host
	/// that loses power must still have what it committed to.
	pub fn file(&self) -> Result<File> {
		Ok(self.file.try_clone()?)
	}

	/// How many there are.
	pub fn len(&self) -> usize {
		self.found.len()
	}

	/// Whether there are none.
	pub fn is_empty(&self) -> bool {
		self.found.is_empty()
	}

	/// The largest nonce within a range.
	pub fn largest_in(&self, range: std::ops::Range<u64>) -> Option<u64> {
		self.found.iter().copied().filter(|n| range.contains(n)).max()
	}

	/// All, ascending.
	pub fn sorted(&self) -> Vec<u64> {
		let mut nonces = self.found.clone();
		nonces.sort_unstable();
		nonces
	}
}

/// The first `count` nonces of an epoch's list, ascending, if they hash to `root`.
pub fn committed(data: &DataDir, epoch: EpochIndex, seed: &[u8; 32], count: u32, root: &Hash) -> Option<Vec<u64>> {
	let mut nonces = read(&path(data, epoch), seed)?;
	if nonces.len() < count as usize {
		return None;
	}
	nonces.truncate(count as usize);
	nonces.sort_unstable();
	(pacer_sprint::tree::root_of(&nonces).ok()? == root.0).then_some(nonces)
}

#[cfg(test)]
mod tests {
	use super::*;
	use pacer_types::DutyKey;

	#[test]
	fn list_should_resume_and_serve_what_was_committed_when_the_agent_restarts() {
		let dir = tempfile::tempdir().unwrap();
		let data = DataDir::open(dir.path(), &DutyKey::from_raw([1; 32])).unwrap();
		let seed = [5; 32];
		let mut list = NonceList::open(&data, 3, &seed).unwrap();
		assert_eq!(list.extend(&[30, 10, 30, 20]).unwrap(), 3);
		let (count, root) = (3, Hash::from(pacer_sprint::tree::root_of(&list.sorted()).unwrap()));
		drop(list);
		std::fs::OpenOptions::new().append(true).open(path(&data, 3)).unwrap().write_all(&[1, 2, 3]).unwrap();
		let mut list = NonceList::open(&data, 3, &seed).unwrap();
		assert_eq!(list.extend(&[10, 5]).unwrap(), 1);
		assert_eq!(list.sorted(), [5, 10, 20, 30]);
		assert_eq!(committed(&data, 3, &seed, count, &root), Some(vec![10, 20, 30]));
		assert_eq!(committed(&data, 3, &seed, 2, &root), None);
		assert_eq!(NonceList::open(&data, 3, &[6; 32]).unwrap().len(), 0, "another seed is another race");
	}

	#[test]
	fn list_should_be_whole_and_take_the_nonces_again_when_a_write_failed() {
		let dir = tempfile::tempdir().unwrap();
		let data = DataDir::open(dir.path(), &DutyKey::from_raw([1; 32])).unwrap();
		let seed = [5; 32];
		let mut list = NonceList::open(&data, 3, &seed).unwrap();
		list.extend(&[30, 10]).unwrap();
		// Neither writing nor cutting off works, and a part of a nonce is left behind.
		let writable = std::mem::replace(&mut list.file, File::open(path(&data, 3)).unwrap());
		assert!(list.extend(&[20, 40]).is_err());
		assert_eq!((list.len(), list.is_torn), (2, true));
		OpenOptions::new().append(true).open(path(&data, 3)).unwrap().write_all(&[20, 0, 0]).unwrap();
		assert!(list.extend(&[20]).is_err(), "nothing is written behind a cut nonce");
		list.file = writable;
		assert_eq!(list.extend(&[20, 40, 20]).unwrap(), 2, "they are not known yet");
		list.file().unwrap().sync_data().unwrap();
		assert_eq!(list.sorted(), [10, 20, 30, 40]);
		assert_eq!(read(&path(&data, 3), &seed), Some(vec![30, 10, 20, 40]), "on disk as in memory");
	}
}
