//! Range trees over lists that have none: repeated, out of order, or shorter than they claim.
//!
//! The labels of such a tree must lie somewhere. Where the ranges of two siblings overlap, the forger labels the right
//! one as if it began behind the left one. Whoever opens a position below the left one is believed; positions below the
//! right one cannot be opened any more, for their paths show the true range, and the hash above holds the false one.
//! That is the best a forger can do, and it is why a repeated list gains nothing: invariant 4 of `pacer-sprint`.

use pacer_sprint::{verify_path, Opening, Path, Sibling};
use sp_crypto_hashing::blake2_256;

/// Domain of the tree's hashes; `pacer-sprint` keeps its own to itself.
const DOMAIN: &[u8] = b"pacer/sprint/v1/";

/// A tree of any list.
#[derive(Clone, Debug)]
pub struct Forged {
	leaves: Vec<Option<u64>>,
	levels: Vec<Vec<Sibling>>,
}

fn leaf(nonce: u64) -> Sibling {
	let hash = blake2_256(&[DOMAIN, b"tree/leaf", &nonce.to_le_bytes()].concat());
	Sibling { smallest: nonce, largest: nonce, hash }
}

fn join(left: (u32, &Sibling), right: (u32, &Sibling)) -> Sibling {
	let label = |(leaves, node): (u32, &Sibling)| {
		[&leaves.to_le_bytes()[..], &node.smallest.to_le_bytes(), &node.largest.to_le_bytes(), &node.hash].concat()
	};
	let hash = blake2_256(&[DOMAIN, b"tree/node", &label(left), &label(right)].concat());
	Sibling { smallest: left.1.smallest, largest: right.1.largest, hash }
}

/// Leaves under node `index` of `level` in a tree of `count` leaves.
fn leaves_under(count: u32, level: usize, index: usize) -> u32 {
	let start = (index as u64) << level;
	u64::from(count).saturating_sub(start).min(1 << level) as u32
}

impl Forged {
	/// The tree of these leaves. `None` is a leaf that does not exist: nobody can open it.
	pub fn build(leaves: Vec<Option<u64>>) -> Self {
		let count = leaves.len() as u32;
		let mut level: Vec<Sibling> = Vec::with_capacity(leaves.len());
		for nonce in &leaves {
			let behind = level.last().map_or(0, |node| node.largest.saturating_add(1));
			level.push(nonce.map_or(Sibling { smallest: behind, largest: behind, hash: [0; 32] }, leaf));
		}
		let mut levels = Vec::new();
		while level.len() > 1 {
			let height = levels.len();
			for at in (1..level.len()).step_by(2) {
				let before = level[at - 1].largest;
				if before >= level[at].smallest {
					(level[at].smallest, level[at].largest) = (before.saturating_add(1), before.saturating_add(1));
				}
			}
			let above = level.chunks(2).enumerate().map(|(i, pair)| match pair {
				[left, right] => {
					join((leaves_under(count, height, 2 * i), left), (leaves_under(count, height, 2 * i + 1), right))
				}
				rest => rest[0],
			});
			let above = above.collect();
			levels.push(std::mem::replace(&mut level, above));
		}
		levels.push(level);
		Self { leaves, levels }
	}

	/// Number of leaves it claims.
	pub fn count(&self) -> u32 {
		self.leaves.len() as u32
	}

	/// Its root.
	pub fn root(&self) -> [u8; 32] {
		self.levels.last().and_then(|level| level.first()).map(|node| node.hash).unwrap_or_default()
	}

	/// The opening of a position, if the chain would believe it.
	pub fn open(&self, position: u32) -> Option<Opening> {
		let nonce = (*self.leaves.get(position as usize)?)?;
		let siblings = self.levels.iter().enumerate();
		let siblings = siblings.filter_map(|(height, level)| level.get((position as usize >> height) ^ 1).copied());
		let opening = Opening { position, nonce, path: Path::new(siblings.collect())? };
		verify_path(&self.root(), self.count(), &opening).is_ok().then_some(opening)
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use pacer_sprint::RangeTree;

	fn openable(tree: &Forged) -> Vec<u32> {
		(0..tree.count()).filter(|p| tree.open(*p).is_some()).collect()
	}

	#[test]
	fn forged_tree_should_be_the_true_one_when_the_list_is_ascending() {
		for n in [1u64, 2, 3, 7, 8, 13] {
			let nonces: Vec<u64> = (0..n).map(|i| 5 + 3 * i).collect();
			let (forged, tree) = (Forged::build(nonces.iter().copied().map(Some).collect()), RangeTree::build(&nonces).unwrap());
			assert_eq!(forged.root(), tree.root());
			assert!((0..n as u32).all(|p| forged.open(p) == tree.open(p) && forged.open(p).is_some()));
		}
	}

	#[test]
	fn forged_tree_should_keep_half_its_positions_shut_when_the_list_is_repeated() {
		let list = [3, 8, 20, 31];
		let twice = Forged::build([list, list].concat().into_iter().map(Some).collect());
		assert_eq!(openable(&twice), [0, 1, 2, 3]);
		let adjacent = Forged::build(list.into_iter().flat_map(|n| [Some(n), Some(n)]).collect());
		assert_eq!(openable(&adjacent), [0, 2, 4, 6]);
	}

	#[test]
	fn forged_tree_should_keep_positions_shut_when_lists_are_interleaved_or_missing() {
		let interleaved = Forged::build([1, 100, 2, 200, 3, 300, 4, 400].map(Some).to_vec());
		assert!(openable(&interleaved).len() < 8);
		let short = Forged::build(vec![Some(1), Some(5), None, None, None]);
		assert_eq!(openable(&short), [0, 1]);
	}
}
