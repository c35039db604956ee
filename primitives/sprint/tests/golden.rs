//! The reference against vectors that `tests/oracle/sprint.py` computed from the definition.

use std::fmt::Write;

use pacer_sprint::{evaluate, Hash, Preset};

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
	bytes.into_iter().fold(String::new(), |mut text, byte| {
		let _ = write!(text, "{byte:02x}");
		text
	})
}

/// The value of a key, as text, in one of our own lines.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
	let start = line.find(&format!("\"{key}\":")).expect("key") + key.len() + 3;
	let rest = &line[start..];
	rest[..rest.find([',', '}']).expect("end")].trim_matches('"')
}

fn bytes32(text: &str) -> Hash {
	std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
}

#[test]
fn reference_should_equal_golden_vectors() {
	let golden = include_str!("golden/dev.jsonl");
	for line in golden.lines() {
		let preset = Preset::from_name(field(line, "preset")).expect("preset");
		let (seed, host) = (field(line, "seed"), field(line, "host"));
		let threshold: u64 = field(line, "threshold").parse().expect("threshold");
		let nonce: u64 = field(line, "nonce").parse().expect("nonce");
		let e = evaluate(&preset.config(), &bytes32(seed), threshold, &bytes32(host), nonce).expect("valid");
		let states: Vec<String> = e.states.iter().map(|hash| format!("\"{}\"", hex(*hash))).collect();
		let found = format!(
			"{{\"preset\":\"dev\",\"seed\":\"{seed}\",\"host\":\"{host}\",\"threshold\":{threshold},\"nonce\":{nonce},\
			 \"states\":[{}],\"y\":\"{}\",\"z\":\"{}\",\"dot\":{},\"zz\":{},\"tt\":{},\"appropriate\":{}}}",
			states.join(","),
			hex(e.y.iter().map(|v| *v as u8)),
			hex(e.z.iter().map(|v| *v as u8)),
			e.dot,
			e.zz,
			e.tt,
			e.appropriate
		);
		assert_eq!(found, line);
	}
	assert_eq!(golden.lines().count(), 18);
}
