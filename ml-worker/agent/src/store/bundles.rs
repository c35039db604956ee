//! What an executor keeps of every inference for two epochs, so that others can check its answers.

use std::{
	fs,
	path::{Path, PathBuf},
};

use codec::{Decode, DecodeAll, Encode};
use pacer_types::{EpochIndex, InferenceId};

use crate::{error::Result, store::write_atomic};

/// Request, answer and artifact of one inference.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bundle {
	/// Salt of the request's hash.
	pub request_salt: [u8; 32],
	/// The request's bytes as they were sent.
	pub request: Vec<u8>,
	/// `chat/completions` or `completions`.
	pub route: String,
	/// The answer's text.
	pub response_text: String,
	/// The encoded artifact.
	pub artifact: Vec<u8>,
}

/// The bundles on disk, a folder an epoch.
#[derive(Debug)]
pub struct Bundles {
	root: PathBuf,
}

impl Bundles {
	/// Opens the folder.
	pub fn open(root: PathBuf) -> Result<Self> {
		fs::create_dir_all(&root)?;
		Ok(Self { root })
	}

	fn epochs(&self) -> Vec<(EpochIndex, PathBuf)> {
		let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
		entries.flatten().filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path()))).collect()
	}

	fn name(id: &InferenceId) -> String {
		hex::encode(id)
	}

	/// Stores a bundle.
	pub fn put(&self, epoch: EpochIndex, id: &InferenceId, bundle: &Bundle) -> Result<()> {
		let folder: &Path = &self.root.join(epoch.to_string());
		fs::create_dir_all(folder)?;
		write_atomic(&folder.join(Self::name(id)), &bundle.encode())
	}

	/// Whether there is a bundle.
	pub fn contains(&self, id: &InferenceId) -> bool {
		let name = Self::name(id);
		self.epochs().iter().any(|(_, folder)| folder.join(&name).exists())
	}

	/// Finds a bundle.
	pub fn get(&self, id: &InferenceId) -> Option<Bundle> {
		let name = Self::name(id);
		self.epochs().into_iter().find_map(|(_, folder)| {
			let bytes = fs::read(folder.join(&name)).ok()?;
			Bundle::decode_all(&mut &bytes[..]).ok()
		})
	}

	/// Deletes what is older than two epochs.
	pub fn prune(&self, now: EpochIndex) -> Result<()> {
		for (epoch, folder) in self.epochs() {
			if epoch.saturating_add(2) < now {
				fs::remove_dir_all(folder)?;
			}
		}
		Ok(())
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn bundle_should_be_served_for_two_epochs_and_then_forgotten() {
		let dir = tempfile::tempdir().unwrap();
		let bundles = Bundles::open(dir.path().join("inferences")).unwrap();
		let id = InferenceId::repeat_byte(3);
		let bundle = Bundle {
			request_salt: [1; 32],
			request: b"{}".to_vec(),
			route: "completions".into(),
			response_text: "hi".into(),
			artifact: vec![1, 2],
		};
		bundles.put(5, &id, &bundle).unwrap();
		bundles.prune(7).unwrap();
		assert_eq!(bundles.get(&id), Some(bundle));
		bundles.prune(8).unwrap();
		assert_eq!(bundles.get(&id), None);
	}
}
