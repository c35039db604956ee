//! The range tree: what a Host commits to when it says "these are my nonces" ("The race on chain", 2).
//!
//! A leaf commits a nonce. An inner node commits, for both children, the number of leaves, the smallest and the largest
//! nonce, and the hash. The shape follows from the number of leaves alone: the left child of a node over `n` leaves
//! holds the largest power of two below `n`. So the path of a position needs neither directions nor numbers of leaves,
//! one list has one root, and the root binds the length of the list.
//!
//! Why valid paths at two positions show two nonces: follow both paths down from the root to the node where they part.
//! Its hash binds both children's ranges, each path proves that its own nonce lies in the range of its child, and both
//! are valid only if the left range ends below the right one. Hence a list with repetitions or out of order has
//! positions that nobody can open, however its labels are forged.

use alloc::vec::Vec;
use codec::{Compact, Decode, DecodeWithMemTracking, Encode, Error as CodecError, Input, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::hashing::{blake2_256, Hash, DOMAIN};

/// Longest path: a list has fewer than 2^32 nonces.
pub const MAX_PATH: usize = 32;

/// Why a list has no tree, or an opening does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
	/// There is no tree of no nonces.
	Empty,
	/// More nonces than a count can say.
	TooMany,
	/// The nonce at this index is not above the one before it.
	Order(u64),
	/// There is no such position.
	Position,
	/// The path has not the length of that position's path.
	PathLength,
	/// At some level the left range does not end below the right one.
	Overlap,
	/// The path leads to another root.
	Root,
}

impl core::fmt::Display for TreeError {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		match self {
			TreeError::Empty => write!(f, "no nonces"),
			TreeError::TooMany => write!(f, "too many nonces"),
			TreeError::Order(index) => write!(f, "nonces are not strictly ascending at index {index}"),
			TreeError::Position => write!(f, "no such position"),
			TreeError::PathLength => write!(f, "wrong length of path"),
			TreeError::Overlap => write!(f, "ranges are not ascending"),
			TreeError::Root => write!(f, "the path leads to another root"),
		}
	}
}

impl core::error::Error for TreeError {}

/// What a path says about the subtree beside it. Its number of leaves follows from the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Sibling {
	/// Its smallest nonce.
	pub smallest: u64,
	/// Its largest nonce.
	pub largest: u64,
	/// Its hash.
	pub hash: Hash,
}

/// The siblings of a position, from the leaf up; decodes to at most [`MAX_PATH`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, TypeInfo)]
pub struct Path(Vec<Sibling>);

impl Path {
	/// A path of these siblings; `None` if there are more than [`MAX_PATH`].
	pub fn new(siblings: Vec<Sibling>) -> Option<Self> {
		(siblings.len() <= MAX_PATH).then_some(Path(siblings))
	}

	/// The siblings, from the leaf up.
	pub fn siblings(&self) -> &[Sibling] {
		&self.0
	}
}

impl Decode for Path {
	fn decode<I: Input>(input: &mut I) -> Result<Self, CodecError> {
		let length = Compact::<u32>::decode(input)?.0 as usize;
		// Before anything is allocated.
		if length > MAX_PATH {
			return Err("a path has at most 32 siblings".into());
		}
		(0..length).map(|_| Sibling::decode(input)).collect::<Result<_, _>>().map(Path)
	}
}

impl DecodeWithMemTracking for Path {}

impl MaxEncodedLen for Path {
	fn max_encoded_len() -> usize {
		1 + MAX_PATH * Sibling::max_encoded_len()
	}
}

/// The claim that the nonce at `position` of a committed list is `nonce`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Opening {
	/// Index in the list.
	pub position: u32,
	/// The nonce there.
	pub nonce: u64,
	/// Why.
	pub path: Path,
}

/// A subtree: its range and hash.
type Node = Sibling;

fn leaf(nonce: u64) -> Node {
	let hash = blake2_256(&[DOMAIN, b"tree/leaf", &nonce.to_le_bytes()]);
	Node { smallest: nonce, largest: nonce, hash }
}

fn join(left: (u32, &Node), right: (u32, &Node)) -> Node {
	let hash = blake2_256(&[
		DOMAIN,
		b"tree/node",
		&left.0.to_le_bytes(),
		&left.1.smallest.to_le_bytes(),
		&left.1.largest.to_le_bytes(),
		&left.1.hash,
		&right.0.to_le_bytes(),
		&right.1.smallest.to_le_bytes(),
		&right.1.largest.to_le_bytes(),
		&right.1.hash,
	]);
	Node { smallest: left.1.smallest, largest: right.1.largest, hash }
}

/// Leaves under node `index` of `level` in a tree of `count` leaves.
fn leaves(count: u32, level: usize, index: usize) -> u32 {
	let start = (index as u64) << level;
	u64::from(count).saturating_sub(start).min(1 << level) as u32
}

/// Whether a list is strictly ascending, not empty and not too long.
///
/// # Errors
/// [`TreeError::Empty`], [`TreeError::TooMany`] or [`TreeError::Order`].
pub fn check_list(nonces: &[u64]) -> Result<u32, TreeError> {
	if nonces.is_empty() {
		return Err(TreeError::Empty);
	}
	let count = u32::try_from(nonces.len()).map_err(|_| TreeError::TooMany)?;
	match nonces.iter().zip(nonces.iter().skip(1)).position(|(a, b)| a >= b) {
		Some(before) => Err(TreeError::Order(before as u64 + 1)),
		None => Ok(count),
	}
}

/// A tree with all its nodes: 96 bytes a nonce.
#[derive(Clone, Debug)]
pub struct RangeTree {
	count: u32,
	/// Leaves first; an odd node at the end of a level goes up as it is.
	levels: Vec<Vec<Node>>,
}

impl RangeTree {
	/// The tree of a list.
	///
	/// # Errors
	/// As [`check_list`].
	pub fn build(nonces: &[u64]) -> Result<Self, TreeError> {
		let count = check_list(nonces)?;
		let mut level: Vec<Node> = nonces.iter().map(|nonce| leaf(*nonce)).collect();
		let mut levels = Vec::new();
		while level.len() > 1 {
			let height = levels.len();
			let above = level
				.chunks(2)
				.enumerate()
				.filter_map(|(i, pair)| match pair {
					[left, right] => Some(join((leaves(count, height, 2 * i), left), (leaves(count, height, 2 * i + 1), right))),
					[odd] => Some(*odd),
					_ => None,
				})
				.collect();
			levels.push(core::mem::replace(&mut level, above));
		}
		levels.push(level);
		Ok(RangeTree { count, levels })
	}

	/// Number of nonces.
	pub fn count(&self) -> u32 {
		self.count
	}

	/// What a Host commits to, beside the count.
	pub fn root(&self) -> Hash {
		self.levels.last().and_then(|level| level.first()).map(|node| node.hash).unwrap_or_default()
	}

	/// The opening of a position; `None` if the list is shorter.
	pub fn open(&self, position: u32) -> Option<Opening> {
		let nonce = self.levels.first()?.get(position as usize)?.smallest;
		let siblings = self.levels.iter().enumerate();
		let siblings = siblings.filter_map(|(height, level)| level.get((position as usize >> height) ^ 1).copied());
		Some(Opening { position, nonce, path: Path::new(siblings.collect())? })
	}
}

/// Root of a list without keeping the tree: beside the list it needs room for [`MAX_PATH`] nodes only.
///
/// # Errors
/// As [`check_list`].
pub fn root_of(nonces: &[u64]) -> Result<Hash, TreeError> {
	check_list(nonces)?;
	let merge =
		|left: (u32, Node), right: (u32, Node)| (left.0.saturating_add(right.0), join((left.0, &left.1), (right.0, &right.1)));
	// Full subtrees from the left, each with fewer leaves than the one before it, as the binary digits of a number.
	let mut full: Vec<(u32, Node)> = Vec::with_capacity(MAX_PATH);
	for nonce in nonces {
		let mut last = (1, leaf(*nonce));
		while let Some(left) = full.pop_if(|left| left.0 == last.0) {
			last = merge(left, last);
		}
		full.push(last);
	}
	// Those at the end go up until there is one as high to their left: so they are joined from the right.
	let root = full.into_iter().rev().reduce(|right, left| merge(left, right));
	root.map(|(_, node)| node.hash).ok_or(TreeError::Empty)
}

/// Checks an opening against a commitment of `count` nonces under `root`.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify_path(root: &Hash, count: u32, opening: &Opening) -> Result<(), TreeError> {
	if opening.position >= count {
		return Err(TreeError::Position);
	}
	let mut siblings = opening.path.0.iter();
	let mut node = leaf(opening.nonce);
	let (mut index, mut height) = (opening.position as usize, 0);
	// Until one node covers all leaves.
	while u64::from(count) > 1 << height {
		let beside = leaves(count, height, index ^ 1);
		// An odd node at the end of its level has nothing beside it.
		if beside > 0 {
			let sibling = siblings.next().ok_or(TreeError::PathLength)?;
			let (own, other) = ((leaves(count, height, index), &node), (beside, sibling));
			let (left, right) = if index % 2 == 0 { (own, other) } else { (other, own) };
			if sibling.smallest > sibling.largest || left.1.largest >= right.1.smallest {
				return Err(TreeError::Overlap);
			}
			node = join(left, right);
		}
		index /= 2;
		height += 1;
	}
	match siblings.next() {
		Some(_) => Err(TreeError::PathLength),
		None if node.hash != *root => Err(TreeError::Root),
		None => Ok(()),
	}
}

/// Whether two openings under one root show that its list is not strictly ascending: both are valid, and the nonce at
/// the lower position is not the smaller one. The tree leaves no room for such a pair (see above), so this is a net
/// under the argument, not a part of it.
pub fn out_of_order(root: &Hash, count: u32, a: &Opening, b: &Opening) -> bool {
	let (low, high) = if a.position < b.position { (a, b) } else { (b, a) };
	low.position != high.position
		&& low.nonce >= high.nonce
		&& verify_path(root, count, low).is_ok()
		&& verify_path(root, count, high).is_ok()
}

impl Opening {
	/// As [`verify_path`].
	///
	/// # Errors
	/// As [`verify_path`].
	pub fn verify(&self, root: &Hash, count: u32) -> Result<(), TreeError> {
		verify_path(root, count, self)
	}
}
