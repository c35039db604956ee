// What every fuzz target does with its bytes, and `tests/fuzz.rs` with random ones: one function per decoder and
// verifier. None may panic, and each states what must hold whatever the bytes are.

use pacer_beacon::*;
use std::sync::OnceLock;

/// An entry: a name and what to do with any bytes.
pub type Entry = (&'static str, fn(&[u8]));

/// All entries.
pub const ENTRIES: [Entry; 8] = [
	("key", key),
	("dealing_decode", dealing_decode),
	("dealing_verify", dealing_verify),
	("opening_decode", opening_decode),
	("opening_verify", opening_verify),
	("sum", sum),
	("interpolation", interpolation),
	("committee", committee),
];

const CONTEXT: Context = Context { genesis: [7; 32], epoch: 3, which: Which::Race };
const T: u32 = 3;
const LIVE: u32 = 5;

/// A true dealing and opening to start from.
pub struct Fixture {
	committee: Committee,
	secret: SecretKey,
	proof: KeyProof,
	/// A true dealing's bytes.
	pub dealing: Vec<u8>,
	sum: Sum,
	/// A true opening's bytes.
	pub opening: Vec<u8>,
}

/// The one fixture, made once.
pub fn fixture() -> &'static Fixture {
	static FIXTURE: OnceLock<Fixture> = OnceLock::new();
	FIXTURE.get_or_init(|| {
		let key = |n: u8| SecretKey::from_seed(&[n; 32], &CONTEXT.genesis, CONTEXT.epoch, &[n; 32]);
		let seats = [(1u8, 2), (2, 1), (3, 2)].map(|(n, slots)| Seat { host: [n; 32], slots, key: Some(key(n).public()) });
		let committee = Committee::new(seats.to_vec(), T).expect("a good committee");
		let dealing = CONTEXT.deal(&committee, &[1; 32], &[9; 32]).expect("a member");
		let mut sum = Sum::new(LIVE);
		sum.add(&dealing).expect("fits");
		let secret = key(1);
		let proof = secret.prove(&CONTEXT.genesis, CONTEXT.epoch, &[1; 32]);
		let opening = CONTEXT.open(&committee, &sum, &[1; 32], &secret).expect("a member").encode();
		Fixture { committee, secret, proof, dealing: dealing.encode(), sum, opening }
	})
}

/// `bytes` as edits of `original`: each edit is a position and, by its first byte, a bit flip, a new byte, or another
/// word of the original. Without edits the original itself.
fn edited(original: &[u8], bytes: &[u8]) -> Vec<u8> {
	let mut result = original.to_vec();
	for edit in bytes.chunks_exact(4) {
		let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % result.len();
		match edit[0] % 3 {
			0 => result[at] ^= 1 << (edit[3] % 8),
			1 => result[at] = edit[3],
			_ => {
				let from = usize::from(edit[3]) * 32 % (original.len() - 31);
				let to = at / 32 * 32;
				result[to..to + 32].copy_from_slice(&original[from..from + 32]);
			}
		}
	}
	result
}

fn word(bytes: &[u8], at: usize) -> [u8; 32] {
	let mut word = [0; 32];
	for (to, from) in word.iter_mut().zip(bytes.iter().skip(at * 32)) {
		*to = *from;
	}
	word
}

/// Keys and their proofs: what decodes has that one encoding, and no proof but the true one holds.
pub fn key(bytes: &[u8]) {
	let fixture = fixture();
	if let Ok(key) = EncryptionKey::new(word(bytes, 0)) {
		assert_eq!(key.to_bytes(), word(bytes, 0));
	}
	let true_proof = fixture.proof.encode();
	let proof: [u8; 64] = match bytes.first() {
		Some(0) => core::array::from_fn(|i| bytes.get(i + 1).copied().unwrap_or(0)),
		_ => edited(&true_proof, bytes.get(1..).unwrap_or_default()).try_into().expect("as long as before"),
	};
	if let Ok(decoded) = KeyProof::decode(&proof) {
		assert_eq!(decoded.encode(), proof);
		let holds = verify_key(&CONTEXT.genesis, CONTEXT.epoch, &[1; 32], &fixture.secret.public(), &decoded).is_ok();
		assert_eq!(holds, proof == true_proof);
	}
}

/// Dealings of any shape: what decodes has that one encoding.
pub fn dealing_decode(bytes: &[u8]) {
	let [live, threshold, rest @ ..] = bytes else { return };
	// The fixture's points in any number, so that long dealings decode too.
	let mut long = rest.to_vec();
	if live & 0x80 != 0 {
		let size = Dealing::size(u32::from(live & 0x7f), u32::from(threshold & 0x7f));
		long = edited(&fixture().dealing, rest);
		long = long.iter().copied().cycle().take(size).collect();
	}
	if let Ok(dealing) = Dealing::decode(&long, u32::from(live & 0x7f), u32::from(threshold & 0x7f)) {
		assert_eq!(dealing.encode(), long);
		assert!(CONTEXT.verify_dealing(&fixture().committee, &[1; 32], &dealing).is_err() || long == fixture().dealing);
	}
	let _ = Dealing::decode(rest, u32::from(*live), u32::MAX);
}

/// Edits of a true dealing: only the unedited one holds, and only for its dealer.
pub fn dealing_verify(bytes: &[u8]) {
	let fixture = fixture();
	let edited = edited(&fixture.dealing, bytes);
	if let Ok(dealing) = Dealing::decode(&edited, LIVE, T) {
		assert_eq!(CONTEXT.verify_dealing(&fixture.committee, &[1; 32], &dealing).is_ok(), edited == fixture.dealing);
		assert!(CONTEXT.verify_dealing(&fixture.committee, &[2; 32], &dealing).is_err());
	}
}

/// Openings of any number of slots: what decodes has that one encoding.
pub fn opening_decode(bytes: &[u8]) {
	let [slots, rest @ ..] = bytes else { return };
	if let Ok(opening) = Opening::decode(rest, u32::from(*slots)) {
		assert_eq!(opening.encode(), rest);
		assert_eq!(opening.shares().count(), usize::from(*slots));
	}
}

/// Edits of a true opening: only the unedited one holds, and only for its member.
pub fn opening_verify(bytes: &[u8]) {
	let fixture = fixture();
	let edited = edited(&fixture.opening, bytes);
	if let Ok(opening) = Opening::decode(&edited, 2) {
		let verify = |host: u8| CONTEXT.verify_opening(&fixture.committee, &fixture.sum, &[host; 32], &opening);
		assert_eq!(verify(1).is_ok(), edited == fixture.opening);
		assert!(verify(2).is_err() && verify(3).is_err() && verify(4).is_err());
	}
}

/// Sums of any bytes: they come back the same, adding refuses what is no point and then changes nothing.
pub fn sum(bytes: &[u8]) {
	let fixture = fixture();
	let stored = edited(&fixture.sum.encode(), bytes);
	let mut sum = Sum::decode(&stored, LIVE).expect("the right length");
	assert_eq!(sum.encode(), stored);
	let dealing = Dealing::decode(&fixture.dealing, LIVE, T).expect("true");
	let points = stored.chunks_exact(32).all(|w| w == [0; 32] || EncryptionKey::new(w.try_into().expect("32 bytes")).is_ok());
	assert_eq!(sum.add(&dealing).is_ok(), points);
	assert_eq!(sum.encode() == stored, !points);
	let opening = Opening::decode(&fixture.opening, 2).expect("true");
	let holds = CONTEXT.verify_opening(&fixture.committee, &Sum::decode(&stored, LIVE).expect("as before"), &[1; 32], &opening);
	assert_eq!(holds.is_ok(), stored[..64] == fixture.sum.encode()[..64]);
	let _ = Sum::decode(bytes, LIVE);
}

/// Shares of any kind: the result is a point, and the same whatever the order.
pub fn interpolation(bytes: &[u8]) {
	let [threshold, rest @ ..] = bytes else { return };
	let genuine = &fixture().opening;
	let shares: Vec<(u32, [u8; 32])> = rest
		.chunks(2)
		.map(|chunk| match *chunk {
			[slot, which @ 0..=1] => (u32::from(slot), word(genuine, usize::from(which))),
			[slot, fill] => (u32::from(slot), [fill; 32]),
			_ => (0, [0; 32]),
		})
		.collect();
	if let Ok(result) = interpolate(&shares, u32::from(*threshold)) {
		assert!(result == [0; 32] || EncryptionKey::new(result).is_ok());
		let mut used = shares[..usize::from(*threshold)].to_vec();
		used.reverse();
		assert_eq!(interpolate(&used, u32::from(*threshold)), Ok(result));
		assert!(CONTEXT.value(&[([1; 32], [2; 32])], &result).is_ok());
	}
}

/// Weights and committees of any kind: seats add up, and a committee's slots are those it was given.
pub fn committee(bytes: &[u8]) {
	let [slots, threshold, rest @ ..] = bytes else { return };
	let slots = u32::from(*slots);
	let entry = |chunk: &[u8]| {
		let mut number = [0; 8];
		number.iter_mut().zip(&chunk[1..]).for_each(|(to, from)| *to = *from);
		([chunk[0]; 32], u64::from_le_bytes(number))
	};
	let weights: Vec<(Host, u64)> = rest.chunks_exact(5).map(entry).collect();
	let given = seats(&weights, slots);
	let total: u32 = given.iter().sum();
	assert_eq!(total, if weights.iter().any(|(_, weight)| *weight > 0) { slots } else { 0 });
	assert!(given.iter().filter(|slots| **slots > 0).count() <= MAX_MEMBERS as usize);
	let key = |weight: u64| (!weight.is_multiple_of(4)).then(|| fixture().secret.public());
	let seats: Vec<Seat> = weights
		.iter()
		.zip(given)
		.filter(|(_, slots)| *slots > 0)
		.map(|((host, weight), slots)| Seat { host: *host, slots, key: key(*weight) })
		.collect();
	if let Ok(committee) = Committee::new(seats, u32::from(*threshold)) {
		assert!(committee.live_slots() <= total && total <= SLOTS && committee.threshold() <= committee.live_slots());
		let mut next = 1;
		for seat in committee.seats() {
			let range = committee.slots_of(&seat.host).expect("a member");
			assert_eq!((range.start, range.len() as u32), (next, seat.slots));
			next = range.end;
		}
		assert_eq!(next, total + 1);
	}
}
