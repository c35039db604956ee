//! The range tree: what honest lists can show and dishonest ones cannot (invariant 4).

use std::collections::BTreeSet;

use blake2::{digest::consts::U32, Blake2b, Digest};
use codec::{Decode, Encode, MaxEncodedLen};
use pacer_sprint::{
	tree::{check_list, root_of},
	verify_path, Hash, Opening, Path, RangeTree, Sibling, TreeError, MAX_PATH,
};
use proptest::prelude::*;

fn ascending(nonces: BTreeSet<u64>) -> Vec<u64> {
	nonces.into_iter().collect()
}

/// How a cheat labels the nodes of a list that is not ascending.
#[derive(Clone, Copy, Debug)]
enum Labels {
	/// First and last nonce of the subtree, in list order.
	Ends,
	/// True smallest and largest.
	True,
	/// The whole range for the left half, nothing above it for the right.
	Split(u64),
}

/// A tree over any list, built by the published hashing rules but without the check of order.
fn cheat(nonces: &[u64], labels: Labels) -> (Hash, Vec<Opening>) {
	let mut openings: Vec<(u64, Vec<Sibling>)> = nonces.iter().map(|nonce| (*nonce, Vec::new())).collect();
	let root = subtree(nonces, labels, &mut openings).hash;
	let openings = openings.into_iter().enumerate().map(|(position, (nonce, siblings))| Opening {
		position: position as u32,
		nonce,
		path: Path::new(siblings).expect("short"),
	});
	(root, openings.collect())
}

fn subtree(nonces: &[u64], labels: Labels, openings: &mut [(u64, Vec<Sibling>)]) -> Sibling {
	if let [nonce] = nonces {
		let hash = Blake2b::<U32>::new().chain_update(b"pacer/sprint/v1/tree/leaf").chain_update(nonce.to_le_bytes());
		return Sibling { smallest: *nonce, largest: *nonce, hash: hash.finalize().into() };
	}
	let half = nonces.len().next_power_of_two() / 2;
	let (below, above) = openings.split_at_mut(half);
	let mut left = subtree(&nonces[..half], labels, below);
	let mut right = subtree(&nonces[half..], labels, above);
	if let Labels::Split(at) = labels {
		left.largest = left.largest.min(at);
		left.smallest = left.smallest.min(left.largest);
		right.smallest = right.smallest.max(at.saturating_add(1));
		right.largest = right.largest.max(right.smallest);
	}
	below.iter_mut().for_each(|(_, path)| path.push(right));
	above.iter_mut().for_each(|(_, path)| path.push(left));
	let mut hash = Blake2b::<U32>::new().chain_update(b"pacer/sprint/v1/tree/node");
	for (node, leaves) in [(&left, half), (&right, nonces.len() - half)] {
		hash.update((leaves as u32).to_le_bytes());
		hash.update(node.smallest.to_le_bytes());
		hash.update(node.largest.to_le_bytes());
		hash.update(node.hash);
	}
	let (smallest, largest) = match labels {
		Labels::Ends | Labels::Split(_) => (left.smallest, right.largest),
		Labels::True => (left.smallest.min(right.smallest), left.largest.max(right.largest)),
	};
	Sibling { smallest, largest, hash: hash.finalize().into() }
}

#[test]
fn tree_should_refuse_lists_that_are_not_strictly_ascending() {
	assert_eq!(RangeTree::build(&[]).err(), Some(TreeError::Empty));
	assert_eq!(RangeTree::build(&[3, 3]).err(), Some(TreeError::Order(1)));
	assert_eq!(RangeTree::build(&[1, 5, 4]).err(), Some(TreeError::Order(2)));
	assert_eq!(check_list(&[1, 4, 5]), Ok(3));
}

#[test]
fn root_should_follow_from_published_hashing_rules() {
	for count in 1..40u64 {
		let nonces: Vec<u64> = (0..count).map(|i| i * i + 7).collect();
		let (root, openings) = cheat(&nonces, Labels::True);
		let tree = RangeTree::build(&nonces).expect("ascending");
		assert_eq!(tree.root(), root);
		for opening in openings {
			assert_eq!(tree.open(opening.position), Some(opening));
		}
	}
}

#[test]
fn root_should_be_that_of_the_tree_when_no_tree_is_kept() {
	let nonces: Vec<u64> = (0..4_200u64).map(|i| i * 3 + i % 2).collect();
	for count in (1..300).chain([511, 512, 513, 1_023, 1_024, 1_025, 4_095, 4_096, 4_097, 4_200]) {
		let list = &nonces[..count];
		assert_eq!(root_of(list), RangeTree::build(list).map(|tree| tree.root()), "{count} nonces");
	}
	assert_eq!(root_of(&[]), Err(TreeError::Empty));
	assert_eq!(root_of(&[1, 5, 4]), Err(TreeError::Order(2)));
}

#[test]
fn path_should_be_bounded_when_it_is_decoded() {
	let sibling = Sibling { smallest: 1, largest: 2, hash: [3; 32] };
	let longest = Path::new(vec![sibling; MAX_PATH]).expect("short enough");
	assert_eq!(longest.encoded_size(), Path::max_encoded_len());
	assert_eq!(Path::decode(&mut longest.encode().as_slice()), Ok(longest));
	assert!(Path::new(vec![sibling; MAX_PATH + 1]).is_none());
	assert!(Path::decode(&mut vec![sibling; MAX_PATH + 1].encode().as_slice()).is_err());
	// A length that lies is refused before anything is allocated.
	assert!(Path::decode(&mut [0xfe, 0xff, 0xff, 0xff].as_slice()).is_err());
}

#[test]
fn largest_counts_should_verify_without_overflow() {
	let sibling = Sibling { smallest: 10, largest: 20, hash: [3; 32] };
	for (position, length) in [(0, 32), (u32::MAX - 1, 31)] {
		let opening = Opening { position, nonce: 1, path: Path::new(vec![sibling; length]).expect("short") };
		assert!(opening.verify(&[0; 32], u32::MAX).is_err());
	}
}

proptest! {
	#![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

	#[test]
	fn every_position_should_verify_when_the_list_is_honest(nonces in prop::collection::btree_set(any::<u64>(), 1..200)) {
		let nonces = ascending(nonces);
		let tree = RangeTree::build(&nonces).expect("ascending");
		prop_assert_eq!(root_of(&nonces), Ok(tree.root()));
		for (position, nonce) in nonces.iter().enumerate() {
			let opening = tree.open(position as u32).expect("exists");
			prop_assert_eq!(opening.nonce, *nonce);
			prop_assert_eq!(opening.verify(&tree.root(), tree.count()), Ok(()));
			let decoded = Opening::decode(&mut opening.encode().as_slice()).expect("round trip");
			prop_assert_eq!(verify_path(&tree.root(), tree.count(), &decoded), Ok(()));
		}
		prop_assert!(tree.open(tree.count()).is_none());
	}

	#[test]
	fn opening_should_fail_when_anything_is_forged(
		nonces in prop::collection::btree_set(any::<u64>(), 2..80), at: prop::sample::Index, level: prop::sample::Index,
		other: prop::sample::Index, what in 0..7u8,
	) {
		let nonces = ascending(nonces);
		let tree = RangeTree::build(&nonces).expect("ascending");
		let honest = tree.open(at.index(nonces.len()) as u32).expect("exists");
		let (mut forged, mut count) = (honest.clone(), tree.count());
		let mut siblings = honest.path.siblings().to_vec();
		let level = level.index(siblings.len());
		match what {
			0 => forged.nonce = forged.nonce.wrapping_add(1),
			1 => forged.position = other.index(nonces.len()) as u32,
			2 => siblings[level].smallest = siblings[level].smallest.wrapping_sub(1),
			3 => siblings[level].largest = siblings[level].largest.wrapping_add(1),
			4 => siblings[level].hash[5] ^= 1,
			5 => { siblings.pop(); },
			_ => count += 1,
		}
		forged.path = Path::new(siblings).expect("short");
		prop_assume!(forged != honest || count != tree.count());
		prop_assert!(forged.verify(&tree.root(), count).is_err());
		prop_assert!(honest.verify(&tree.root(), tree.count() - 1).is_err());
	}

	/// Invariant 4, against every way of labelling: what can be opened is strictly ascending.
	#[test]
	fn openable_positions_should_ascend_when_the_list_is_dishonest(
		nonces in prop::collection::vec(0u64..50, 2..60), labels in 0..3u8, at in 0u64..50,
	) {
		let labels = match labels { 0 => Labels::Ends, 1 => Labels::True, _ => Labels::Split(at) };
		let (root, openings) = cheat(&nonces, labels);
		let open: Vec<u64> = openings
			.iter()
			.filter(|opening| opening.verify(&root, nonces.len() as u32).is_ok())
			.map(|opening| opening.nonce)
			.collect();
		prop_assert!(open.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", open);
		if check_list(&nonces).is_err() {
			prop_assert!(open.len() < nonces.len());
		}
	}

	/// A list repeated twice, and two lists interleaved: at least half cannot be opened.
	#[test]
	fn repeated_lists_should_lose_half_of_their_positions(nonces in prop::collection::btree_set(any::<u64>(), 1..60)) {
		let once = ascending(nonces);
		let twice: Vec<u64> = once.iter().chain(&once).copied().collect();
		let doubled: Vec<u64> = once.iter().flat_map(|nonce| [*nonce, *nonce]).collect();
		for list in [twice, doubled] {
			for labels in [Labels::Ends, Labels::True, Labels::Split(once[once.len() / 2])] {
				let (root, openings) = cheat(&list, labels);
				let valid = openings.iter().filter(|opening| opening.verify(&root, list.len() as u32).is_ok()).count();
				prop_assert!(valid <= once.len());
			}
		}
	}
}
