//! Bytes and native times of every step of an epoch, one JSON object a line: `cargo run --release --example costs`.
//! The same in WASM: `costs/README.md`.

extern crate alloc;

use std::time::Instant;

#[path = "../costs/cases.rs"]
mod cases;

/// Enough repetitions for this long, but at least five.
const MS: u128 = 400;

fn main() {
	let members: u32 = std::env::args().nth(1).map_or(64, |text| text.parse().expect("a number of members"));
	let cases = cases::Cases::new(members).expect("a good committee");
	let (dealing, opening) = cases.sizes();
	println!("{{\"members\":{members},\"dealing_bytes\":{dealing},\"opening_bytes\":{opening}}}");
	for (case, name) in cases::names::NAMES.iter().enumerate() {
		let mut times = Vec::new();
		let begin = Instant::now();
		while times.len() < 5 || begin.elapsed().as_millis() < MS {
			let start = Instant::now();
			std::hint::black_box(cases.run(case as u32)).expect("a good case");
			times.push(start.elapsed().as_nanos());
		}
		times.sort_unstable();
		println!(
			"{{\"where\":\"native\",\"members\":{members},\"case\":\"{name}\",\"runs\":{},\"min_us\":{},\"median_us\":{}}}",
			times.len(),
			times[0] / 1000,
			times[times.len() / 2] / 1000
		);
	}
}
