//! The golden vectors: whole epochs that an independent oracle computed (`tests/oracle`, Python, from the specification).
#![allow(missing_docs)]

use blake2::{digest::consts::U32, Blake2b, Digest};
use pacer_beacon::*;
use serde_json::Value as Json;

fn text<'a>(line: &'a Json, key: &str) -> &'a str {
	line[key].as_str().unwrap_or_else(|| panic!("{key} is a text"))
}

fn number(line: &Json, key: &str) -> u64 {
	line[key].as_u64().unwrap_or_else(|| panic!("{key} is a number"))
}

fn list<'a>(line: &'a Json, key: &str) -> &'a [Json] {
	line[key].as_array().unwrap_or_else(|| panic!("{key} is a list"))
}

fn hex(bytes: &[u8]) -> String {
	bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn word(line: &Json, key: &str) -> [u8; 32] {
	let text = text(line, key);
	assert_eq!(text.len(), 64, "{key}");
	let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex");
	core::array::from_fn(byte)
}

/// The vector has the bytes or, if they are long, their hash.
fn assert_bytes(line: &Json, bytes: &[u8], what: &str) {
	match line.get("bytes") {
		Some(expected) => assert_eq!(hex(bytes), expected.as_str().expect("a text"), "{what}"),
		None => assert_eq!(hex(&Blake2b::<U32>::digest(bytes)), text(line, "hash"), "{what}"),
	}
}

fn check(line: &Json) {
	let name = text(line, "name");
	let which = if text(line, "value_name") == "race" { Which::Race } else { Which::Audit };
	let context = Context { genesis: word(line, "genesis"), epoch: number(line, "epoch") as u32, which };
	let threshold = number(line, "threshold") as u32;

	let members = list(line, "members");
	let weights: Vec<(Host, u64)> = members.iter().map(|m| (word(m, "host"), number(m, "weight"))).collect();
	let slots = seats(&weights, number(line, "slots") as u32);
	let mut chairs = Vec::new();
	let mut keys = Vec::new();
	for (member, slots) in members.iter().zip(slots) {
		assert_eq!(u64::from(slots), number(member, "slots"), "{name}");
		let host = word(member, "host");
		let mut key = None;
		if member.get("key").is_some() {
			let secret = SecretKey::from_seed(&word(member, "seed"), &context.genesis, context.epoch, &host);
			assert_eq!(hex(&secret.public().to_bytes()), text(member, "key"), "{name}");
			let proof = secret.prove(&context.genesis, context.epoch, &host);
			assert_eq!(hex(&proof.encode()), text(member, "proof"), "{name}");
			assert_eq!(verify_key(&context.genesis, context.epoch, &host, &secret.public(), &proof), Ok(()));
			key = Some(secret.public());
			keys.push((host, secret));
		}
		if slots > 0 {
			chairs.push(Seat { host, slots, key });
		}
	}
	chairs.sort_unstable_by_key(|seat| seat.host);
	let committee = Committee::new(chairs, threshold).expect("a good committee");
	assert_eq!(hex(&committee.digest()), text(line, "committee"), "{name}");

	let mut sum = Sum::new(committee.live_slots());
	let mut set = Vec::new();
	for expected in list(line, "dealings") {
		let dealer = word(expected, "dealer");
		let seed = members.iter().find(|m| word(m, "host") == dealer).map(|m| word(m, "seed")).expect("a member");
		let dealing = context.deal(&committee, &dealer, &seed).expect("a member");
		assert_bytes(expected, &dealing.encode(), name);
		assert_eq!(hex(&dealing.hash()), text(expected, "hash"), "{name}");
		assert_eq!(context.verify_dealing(&committee, &dealer, &dealing), Ok(()));
		sum.add(&dealing).expect("fits");
		set.push((dealer, dealing.hash()));
	}
	set.sort_unstable();
	assert_bytes(&line["sum"], &sum.encode(), name);

	let mut shares = Vec::new();
	for expected in list(line, "openings") {
		let host = word(expected, "host");
		let (_, secret) = keys.iter().find(|(owner, _)| *owner == host).expect("a key");
		let opening = context.open(&committee, &sum, &host, secret).expect("a member");
		assert_bytes(expected, &opening.encode(), name);
		assert_eq!(context.verify_opening(&committee, &sum, &host, &opening), Ok(()));
		shares.extend(committee.slots_of(&host).expect("a member").zip(opening.shares()));
	}
	let secret = interpolate(&shares, threshold).expect("enough");
	assert_eq!(hex(&secret), text(line, "secret"), "{name}");
	assert_eq!(hex(&context.value(&set, &secret).expect("a set")), text(line, "value"), "{name}");
}

#[test]
fn epochs_should_be_golden() {
	let lines: Vec<Json> =
		include_str!("golden/beacon.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
	assert_eq!(lines.len(), 5);
	lines.iter().for_each(check);
}
