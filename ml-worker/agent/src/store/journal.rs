//! A small map on disk: an append-only log of insertions and removals.
//!
//! Each line is `+key value` or `-key` in hex of SCALE. An insertion is in the file before it is answered, so it
//! survives the end of the process. A line that was cut short by a crash is ignored. The file is rewritten when most
//! of it is dead.

use std::{
	collections::BTreeMap,
	fs::{self, File, OpenOptions},
	io::{BufRead, BufReader, Write},
	path::{Path, PathBuf},
};

use codec::{Decode, DecodeAll, Encode};

use crate::{error::Result, store::write_atomic};

/// Lines after which a mostly dead file is rewritten.
const COMPACT_LINES: usize = 4_096;

/// A persistent ordered map.
#[derive(Debug)]
pub struct Journal<K, V> {
	path: PathBuf,
	file: File,
	lines: usize,
	map: BTreeMap<K, V>,
}

fn read<T: Decode>(digits: &str) -> Option<T> {
	T::decode_all(&mut &hex::decode(digits).ok()?[..]).ok()
}

impl<K: Ord + Clone + Encode + Decode, V: Encode + Decode> Journal<K, V> {
	/// Opens or creates a journal.
	pub fn open(path: &Path) -> Result<Self> {
		let mut map = BTreeMap::new();
		if path.exists() {
			for line in BufReader::new(File::open(path)?).lines() {
				let line = line?;
				let (sign, rest) = line.split_at(line.len().min(1));
				match (sign, rest.split_once(' ')) {
					("+", Some((key, value))) => {
						if let (Some(key), Some(value)) = (read(key), read(value)) {
							map.insert(key, value);
						}
					},
					("-", None) => {
						if let Some(key) = read::<K>(rest) {
							map.remove(&key);
						}
					},
					_ => {},
				}
			}
		}
		let mut journal =
			Self { path: path.to_owned(), file: OpenOptions::new().create(true).append(true).open(path)?, lines: 0, map };
		journal.compact()?;
		Ok(journal)
	}

	fn compact(&mut self) -> Result<()> {
		let mut text = String::new();
		for (key, value) in &self.map {
			text.push_str(&format!("+{} {}\n", hex::encode(key.encode()), hex::encode(value.encode())));
		}
		write_atomic(&self.path, text.as_bytes())?;
		self.file = OpenOptions::new().append(true).open(&self.path)?;
		self.lines = self.map.len();
		Ok(())
	}

	fn append(&mut self, line: String) -> Result<()> {
		self.file.write_all(line.as_bytes())?;
		self.lines += 1;
		if self.lines > COMPACT_LINES && self.lines > 2 * self.map.len() {
			self.compact()?;
		}
		Ok(())
	}

	/// Inserts or replaces.
	pub fn insert(&mut self, key: K, value: V) -> Result<()> {
		let line = format!("+{} {}\n", hex::encode(key.encode()), hex::encode(value.encode()));
		self.map.insert(key, value);
		self.append(line)
	}

	/// Removes.
	pub fn remove(&mut self, key: &K) -> Result<Option<V>> {
		let old = self.map.remove(key);
		if old.is_some() {
			self.append(format!("-{}\n", hex::encode(key.encode())))?;
		}
		Ok(old)
	}

	/// What it holds.
	pub fn map(&self) -> &BTreeMap<K, V> {
		&self.map
	}

	/// Number of entries.
	pub fn len(&self) -> usize {
		self.map.len()
	}

	/// Whether there are none.
	pub fn is_empty(&self) -> bool {
		self.map.is_empty()
	}

	/// The file.
	pub fn path(&self) -> &Path {
		&self.path
	}
}

/// Deletes a journal's file, for tests and for a fresh chain.
pub fn delete(path: &Path) -> Result<()> {
	if path.exists() {
		fs::remove_file(path)?;
	}
	Ok(())
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn journal_should_keep_entries_when_reopened() {
		let dir = tempfile::tempdir().unwrap();
		let path = dir.path().join("q.journal");
		let mut journal: Journal<u32, Vec<u8>> = Journal::open(&path).unwrap();
		for i in 0..10 {
			journal.insert(i, vec![i as u8; 3]).unwrap();
		}
		journal.remove(&3).unwrap();
		journal.insert(4, vec![9]).unwrap();
		drop(journal);
		// What a crash in the middle of a write leaves.
		OpenOptions::new().append(true).open(&path).unwrap().write_all(b"+0c0000").unwrap();
		let journal: Journal<u32, Vec<u8>> = Journal::open(&path).unwrap();
		assert_eq!(journal.len(), 9);
		assert_eq!(journal.map()[&4], vec![9]);
		assert!(!journal.map().contains_key(&3));
	}

	#[test]
	fn journal_should_stay_small_when_entries_come_and_go() {
		let dir = tempfile::tempdir().unwrap();
		let path = dir.path().join("q.journal");
		let mut journal: Journal<u32, u32> = Journal::open(&path).unwrap();
		for i in 0..20_000 {
			journal.insert(i, i).unwrap();
			journal.remove(&i).unwrap();
		}
		assert!(fs::metadata(&path).unwrap().len() < 200_000);
	}
}
