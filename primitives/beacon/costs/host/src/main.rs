//! Times the cases in wasmtime, configured as the node's executor does it: `host GUEST.wasm [MEMBERS]`. Prints JSON.

use std::time::Instant;
use wasmtime::{Config, Engine, Instance, Module, OptLevel, Store};

#[path = "../../names.rs"]
mod names;

/// Enough repetitions for this long, but at least five.
const MS: u128 = 400;

fn main() {
	let mut arguments = std::env::args().skip(1);
	let path = arguments.next().expect("path of the guest");
	let members: u32 = arguments.next().map_or(64, |text| text.parse().expect("a number of members"));
	let mut config = Config::new();
	config.cranelift_opt_level(OptLevel::SpeedAndSize);
	config.wasm_simd(false);
	config.wasm_relaxed_simd(false);
	let engine = Engine::new(&config).expect("engine");
	let module = Module::from_file(&engine, path).expect("module");
	let mut store = Store::new(&engine, ());
	let instance = Instance::new(&mut store, &module, &[]).expect("instance");
	let setup = instance.get_typed_func::<u32, u32>(&mut store, "setup").expect("setup");
	let run = instance.get_typed_func::<u32, u32>(&mut store, "run").expect("run");
	assert_eq!(setup.call(&mut store, members).expect("no trap"), 0, "setup failed");
	for (case, name) in names::NAMES.iter().enumerate() {
		let mut times = Vec::new();
		let begin = Instant::now();
		while times.len() < 5 || begin.elapsed().as_millis() < MS {
			let start = Instant::now();
			assert_eq!(run.call(&mut store, case as u32).expect("no trap"), 0, "{name} failed");
			times.push(start.elapsed().as_nanos());
		}
		times.sort_unstable();
		println!(
			"{{\"where\":\"wasmtime\",\"members\":{members},\"case\":\"{name}\",\"runs\":{},\"min_us\":{},\"median_us\":{}}}",
			times.len(),
			times[0] / 1000,
			times[times.len() / 2] / 1000
		);
	}
}
