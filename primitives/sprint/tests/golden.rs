//! The reference against vectors that `tests/oracle/golden.py` computed from the definition, which shares no code with it.

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

/// A golden line, recomputed from what it asks: the same bytes, or something is wrong.
fn recomputed(line: &str) -> String {
	let (preset, seed, host) = (field(line, "preset"), field(line, "seed"), field(line, "host"));
	let config = Preset::from_name(preset).expect("preset").config();
	let threshold: u64 = field(line, "threshold").parse().expect("threshold");
	let nonce: u64 = field(line, "nonce").parse().expect("nonce");
	let e = evaluate(&config, &bytes32(seed), threshold, &bytes32(host), nonce).expect("valid");
	let states: Vec<String> = e.states.iter().map(|hash| format!("\"{}\"", hex(*hash))).collect();
	format!(
		"{{\"preset\":\"{preset}\",\"seed\":\"{seed}\",\"host\":\"{host}\",\"threshold\":{threshold},\"nonce\":{nonce},\
		 \"states\":[{}],\"y\":\"{}\",\"z\":\"{}\",\"dot\":{},\"zz\":{},\"tt\":{},\"appropriate\":{}}}",
		states.join(","),
		hex(e.y.iter().map(|v| *v as u8)),
		hex(e.z.iter().map(|v| *v as u8)),
		e.dot,
		e.zz,
		e.tt,
		e.appropriate
	)
}

/// Compares a file, and that it has in it what makes it worth comparing.
fn check(golden: &str, preset: Preset, lines: usize) {
	for line in golden.lines() {
		assert_eq!(field(line, "preset"), preset.name());
		assert!(recomputed(line) == line, "{} nonce {} differs", preset.name(), field(line, "nonce"));
	}
	assert_eq!(golden.lines().count(), lines);
	let with = |key: &str, value: &str| golden.lines().filter(|line| field(line, key) == value).count();
	let default = preset.default_threshold().to_string();
	assert!(with("nonce", "0") > 0 && with("nonce", &u64::MAX.to_string()) > 0);
	assert!(with("appropriate", "true") > 1 && with("appropriate", "false") > 1);
	// One that counts in a race, not only under an easier threshold.
	assert!(golden.lines().any(|line| field(line, "threshold") == default && field(line, "appropriate") == "true"));
}

#[test]
fn reference_should_equal_golden_vectors_when_preset_is_dev() {
	check(include_str!("golden/dev.jsonl"), Preset::Dev, 19);
}

#[test]
fn reference_should_equal_golden_vectors_when_preset_is_bench() {
	check(include_str!("golden/bench.jsonl"), Preset::Bench, 6);
}
