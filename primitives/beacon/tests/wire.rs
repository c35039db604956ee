//! One encoding for every object, and nothing else is taken.
#![allow(missing_docs)]

mod common;

use codec::{Decode, DecodeAll, Encode, MaxEncodedLen};
use common::*;
use pacer_beacon::*;
use proptest::prelude::*;

/// The group's order, little endian: the smallest number that is no canonical scalar.
const ORDER: [u8; 32] = [
	0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0x10,
];

/// Not canonical points: 2^255 - 19 and above, an odd ("negative") one, the high bit set, one off the curve.
fn no_points() -> Vec<[u8; 32]> {
	let mut p = [0xff; 32];
	p[0] = 0xed;
	p[31] = 0x7f;
	let mut p_plus_two = p;
	p_plus_two[0] = 0xef;
	let mut one = [0; 32];
	one[0] = 1;
	let mut identity_with_high_bit = [0; 32];
	identity_with_high_bit[31] = 0x80;
	let mut off_curve = [0; 32];
	off_curve[0] = 2;
	// Two is off the curve; were it on it, this list would be wrong.
	assert_eq!(EncryptionKey::new(off_curve), Err(Error::Key));
	vec![p, p_plus_two, one, identity_with_high_bit, off_curve, [0xff; 32]]
}

fn round() -> (Committee, Vec<Member>, Dealing, Sum, Opening) {
	let (committee, members) = committee(&[3, 2, 4], 5);
	let dealing = CONTEXT.deal(&committee, &members[0].host, &members[0].seed).expect("a member");
	let mut sum = Sum::new(9);
	sum.add(&dealing).expect("fits");
	let opening = CONTEXT.open(&committee, &sum, &members[0].host, &members[0].secret).expect("a member");
	(committee, members, dealing, sum, opening)
}

#[test]
fn objects_should_come_back_the_same_when_encoded() {
	let (committee, members, dealing, sum, opening) = round();
	let bytes = dealing.encode();
	assert_eq!((bytes.len(), Dealing::size(9, 5)), (23 * 32, 23 * 32));
	let again = Dealing::decode(&bytes, 9, 5).expect("own bytes");
	assert_eq!((again.encode(), again.hash()), (bytes, dealing.hash()));
	assert_eq!(again, dealing);
	assert_eq!(CONTEXT.verify_dealing(&committee, &members[0].host, &again), Ok(()));

	let bytes = opening.encode();
	assert_eq!((bytes.len(), Opening::size(3)), (3 * 32 + 64, 3 * 32 + 64));
	let again = Opening::decode(&bytes, 3).expect("own bytes");
	assert_eq!((again.encode(), again.shares().count()), (bytes, 3));
	assert_eq!(again, opening);

	assert_eq!(sum.encode().len(), Sum::size(9));
	assert_eq!(Sum::decode(&sum.encode(), 9), Ok(sum));
	assert_eq!(Sum::new(2).encode(), [0; 64]);

	let secret = &members[0].secret;
	let (key, proof) = (secret.public(), secret.prove(&GENESIS, 3, &members[0].host));
	assert_eq!(EncryptionKey::new(key.to_bytes()), Ok(key));
	assert_eq!(KeyProof::decode(&proof.encode()), Ok(proof));
	assert_eq!((EncryptionKey::max_encoded_len(), KeyProof::max_encoded_len()), (32, KeyProof::SIZE));
	assert_eq!(EncryptionKey::decode_all(&mut &Encode::encode(&key)[..]), Ok(key));
	assert_eq!(Encode::encode(&proof), KeyProof::encode(&proof));
	assert_eq!(<KeyProof as Decode>::decode(&mut &Encode::encode(&proof)[..]), Ok(proof));
}

#[test]
fn sizes_should_be_those_of_the_specification() {
	assert_eq!(Dealing::size(SLOTS, THRESHOLD), 10_272);
	assert_eq!((Opening::size(1), Opening::size(2), Opening::size(128)), (96, 128, 4_160));
	assert_eq!(Sum::size(SLOTS), 4_096);
	assert_eq!(Dealing::size(u32::MAX, u32::MAX), 3 * 32 * u32::MAX as usize);
}

#[test]
fn objects_should_be_refused_when_they_are_truncated_or_oversized() {
	let (_, _, dealing, sum, opening) = round();
	let (dealing, opening, sum) = (dealing.encode(), opening.encode(), sum.encode());
	for (extra, cut) in [(0, 1), (0, 31), (0, 32), (0, 64), (1, 0), (31, 0), (32, 0), (1_000_000, 0)] {
		let change = |bytes: &[u8]| {
			let mut bytes = bytes[..bytes.len() - cut].to_vec();
			bytes.resize(bytes.len() + extra, 0);
			bytes
		};
		assert!(matches!(Dealing::decode(&change(&dealing), 9, 5), Err(Error::Length { expected: 736, .. })));
		assert!(matches!(Opening::decode(&change(&opening), 3), Err(Error::Length { expected: 160, .. })));
		assert!(matches!(Sum::decode(&change(&sum), 9), Err(Error::Length { expected: 288, .. })));
	}
	assert!(matches!(Dealing::decode(&[], 9, 5), Err(Error::Length { .. })));
	// Refused by its length alone, whatever the caller asks for: nothing of that size is allocated.
	assert!(matches!(Dealing::decode(&dealing, u32::MAX, u32::MAX), Err(Error::Length { .. })));
	assert!(matches!(Opening::decode(&opening, u32::MAX), Err(Error::Length { .. })));
	assert!(matches!(Sum::decode(&sum, u32::MAX), Err(Error::Length { .. })));
}

#[test]
fn dealing_should_be_refused_when_a_word_is_not_canonical() {
	let (_, _, dealing, ..) = round();
	let bytes = dealing.encode();
	for (word, at) in no_points().iter().flat_map(|word| [(word, 0), (word, 8), (word, 9), (word, 17)]) {
		let mut bytes = bytes.clone();
		bytes[at * 32..][..32].copy_from_slice(word);
		assert_eq!(Dealing::decode(&bytes, 9, 5), Err(Error::Point), "word {at}");
	}
	for at in 18..23 {
		let mut bytes = bytes.clone();
		bytes[at * 32..][..32].copy_from_slice(&ORDER);
		assert_eq!(Dealing::decode(&bytes, 9, 5), Err(Error::Scalar), "word {at}");
	}
}

#[test]
fn opening_should_be_refused_when_a_word_is_not_canonical() {
	let (.., opening) = round();
	let bytes = opening.encode();
	for (word, at) in no_points().iter().flat_map(|word| [(word, 0), (word, 2)]) {
		let mut bytes = bytes.clone();
		bytes[at * 32..][..32].copy_from_slice(word);
		assert_eq!(Opening::decode(&bytes, 3), Err(Error::Point));
	}
	for at in 3..5 {
		let mut bytes = bytes.clone();
		bytes[at * 32..][..32].copy_from_slice(&ORDER);
		assert_eq!(Opening::decode(&bytes, 3), Err(Error::Scalar));
	}
}

#[test]
fn key_should_be_refused_when_it_is_the_identity_or_not_canonical() {
	assert_eq!(EncryptionKey::new([0; 32]), Err(Error::Key));
	for word in no_points() {
		assert_eq!(EncryptionKey::new(word), Err(Error::Key));
	}
	// SCALE takes them, whoever uses them does not.
	let identity = EncryptionKey::decode_all(&mut &[0u8; 32][..]).expect("any 32 bytes");
	let member = member(0);
	let proof = member.secret.prove(&GENESIS, 3, &member.host);
	assert_eq!(verify_key(&GENESIS, 3, &member.host, &identity, &proof), Err(Error::Key));
	let seats = vec![
		Seat { host: host(0), slots: 2, key: Some(member.secret.public()) },
		Seat { host: host(1), slots: 2, key: Some(identity) },
	];
	let committee = Committee::new(seats, 3).expect("shapes only");
	assert_eq!(CONTEXT.deal(&committee, &host(0), &seed(0)), Err(Error::Key));
	assert!(EncryptionKey::decode_all(&mut &[0u8; 31][..]).is_err());
	let mut bytes = [0; 64];
	bytes[32..].copy_from_slice(&ORDER);
	assert_eq!(KeyProof::decode(&bytes), Err(Error::Scalar));
	let loose = KeyProof::decode_all(&mut &bytes[..]).expect("any 64 bytes");
	assert_eq!(verify_key(&GENESIS, 3, &member.host, &member.secret.public(), &loose), Err(Error::Scalar));
}

/// What can be seen of secrets being wiped and hidden: the types say so, and nothing of them is printed.
#[test]
fn secrets_should_be_wiped_and_hidden() {
	fn wiped<T: zeroize::ZeroizeOnDrop>() {}
	wiped::<SecretKey>();
	assert!(core::mem::needs_drop::<SecretKey>());
	let member = member(0);
	let shown = format!("{:?}", member.secret);
	assert_eq!(shown, format!("SecretKey {{ public: {:?}, .. }}", member.secret.public()));
	let (_, _, dealing, _, opening) = round();
	assert_eq!(format!("{dealing:?}"), "Dealing { live: 9, bytes: 736, .. }");
	assert_eq!(format!("{opening:?}"), "Opening { slots: 3, .. }");
}

proptest! {
	#![proptest_config(cases(256))]

	/// Whatever decodes encodes to the same bytes: no object has two encodings.
	#[test]
	fn encoding_should_be_the_only_one_when_bytes_decode(
		word in any::<[u8; 32]>(),
		at in 0usize..23,
		fill in prop_oneof![Just(None), (0u8..4).prop_map(Some)],
	) {
		let (_, _, dealing, _, opening) = round();
		let word = fill.map_or(word, |low| {
			// Mostly zeros: small scalars and candidates for points near the identity.
			let mut word = [0; 32];
			word[0] = low;
			word
		});
		let mut bytes = dealing.encode();
		bytes[at * 32..][..32].copy_from_slice(&word);
		if let Ok(decoded) = Dealing::decode(&bytes, 9, 5) {
			prop_assert_eq!(decoded.encode(), bytes);
		}
		let mut bytes = opening.encode();
		bytes[at % 5 * 32..][..32].copy_from_slice(&word);
		if let Ok(decoded) = Opening::decode(&bytes, 3) {
			prop_assert_eq!(decoded.encode(), bytes);
		}
		if let Ok(key) = EncryptionKey::new(word) {
			prop_assert_eq!(key.to_bytes(), word);
			prop_assert_ne!(word, [0; 32]);
		}
	}
}
