//! Invariants 1 and 2: whatever bytes come, decoding costs memory in proportion to them, and one value has one encoding.

use std::{
	alloc::{GlobalAlloc, Layout, System},
	sync::atomic::{AtomicUsize, Ordering},
};

use codec::{Compact, Decode, Encode};
use pacer_artifact::{
	artifact::{token_ids, MAX_ARTIFACT_BYTES},
	bounded::Capped,
	row, Artifact, FinishReason, KeyKind, Position, Profile, SamplingParams, TokenId,
};
use proptest::prelude::*;

/// Counts every byte that was ever asked for.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
	unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
		ASKED.fetch_add(layout.size(), Ordering::Relaxed);
		unsafe { System.alloc(layout) }
	}
	unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
		unsafe { System.dealloc(ptr, layout) }
	}
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn artifact(tokens: u32) -> Artifact {
	let logits: Vec<f32> = (0..300).map(|i| (i * 37 % 101) as f32 / 9.0).collect();
	let positions = (0..tokens).map(|i| row::record(&logits, i * 7 % 300).unwrap()).collect();
	Artifact {
		version: 1,
		salt: [1; 32],
		inference_id: [2; 32],
		request: None,
		response: [3; 32],
		response_salt: [4; 32],
		choice: 0,
		model: Capped::new(b"m".to_vec()).unwrap(),
		weights: [5; 32],
		profile: Profile::CPU_F32,
		params: SamplingParams::default(),
		key: KeyKind::InferenceId,
		prompt: token_ids(&[1, 2, 3]).unwrap(),
		positions: Capped::<Position, 65536>::new(positions).unwrap(),
		finish: FinishReason::Length,
	}
}

/// The largest element in memory is a position (31 bytes encoded, about 40 here); vectors double while they grow.
fn assert_bounded(bytes: &[u8]) {
	let before = ASKED.load(Ordering::Relaxed);
	let _ = Artifact::from_bytes(bytes);
	let asked = ASKED.load(Ordering::Relaxed) - before;
	assert!(asked <= 16 * bytes.len() + 64 * 1024, "{asked} bytes asked for {} bytes of input", bytes.len());
}

// One test: other tests of this process would be counted too.
#[test]
fn decoding_should_stay_bounded_when_bytes_are_hostile() {
	let good = artifact(20).encode();
	assert!(Artifact::from_bytes(&good).is_ok());
	assert_bounded(&good);

	// Lengths that promise what never comes.
	let lie = [Compact(u32::MAX).encode(), vec![0; 64]].concat();
	assert!(Capped::<TokenId, 100>::decode(&mut &lie[..]).is_err());
	let lie = [Compact(1u32 << 18).encode(), vec![0; 64]].concat();
	assert!(Capped::<TokenId, { 1 << 18 }>::decode(&mut &lie[..]).is_err());
	for at in 0..good.len() {
		let mut bad = good.clone();
		bad.splice(at..(at + 1).min(good.len()), [0xFE, 0xFF, 0xFF, 0xFF]);
		assert_bounded(&bad);
		assert_bounded(&good[..at]);
		assert!(Artifact::from_bytes(&good[..at]).is_err(), "a truncated artifact is none");
	}
	assert_bounded(&vec![1; MAX_ARTIFACT_BYTES + 1]);

	// Anything after the end, another version, a parameter out of range.
	assert!(Artifact::from_bytes(&[&good[..], &[0]].concat()).is_err());
	assert!(Artifact::from_bytes(&[&[2], &good[1..]].concat()).is_err());
	let mut hot = artifact(1);
	hot.params.temperature = 1e9.into();
	assert!(Artifact::from_bytes(&hot.encode()).is_err());

	let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
	proptest!(config, |(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6))| {
		let mut bytes = good.clone();
		for (at, byte) in edits {
			let at = at.index(bytes.len());
			bytes[at] = byte;
		}
		assert_bounded(&bytes);
		// Invariant 2: what decodes is what would be encoded.
		if let Ok(artifact) = Artifact::from_bytes(&bytes) {
			prop_assert_eq!(artifact.encode(), bytes);
		}
	});
}
