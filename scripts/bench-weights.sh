#!/bin/bash
# Measures the weights of calls: builds the runtime with its benchmarks, as WebAssembly and as release builds make it,
# and runs frame-omni-bencher over the pallets named (default: all that have benchmarks). One JSON line per benchmark's
# formula goes to the terminal, the measurements to $OUT (default target/weights), one file a pallet; the numbers are
# then taken over into that pallet's weights.rs by a person.
#
# Needs frame-omni-bencher of the runtime's release train; where it is missing it is built into the cache, which takes
# half an hour. The runtime's own build is another copy of its dependencies for WebAssembly: a few minutes, 1 GB.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.28.0
cache=${PACER_CACHE:-$HOME/.cache/pacer}
bencher=$cache/omni/bin/frame-omni-bencher
out=${OUT:-target/weights}

if [ ! -x "$bencher" ]; then
	cargo install --locked frame-omni-bencher --version "$version" --root "$cache/omni" --target-dir "$cache/omni/target"
	rm -rf "$cache/omni/target"
fi

# The flags and the profile are those by which substrate-wasm-builder makes the runtime of a node.
RUSTFLAGS="-C link-arg=--export-table -C link-arg=--export=__heap_base -C link-arg=--import-memory --cfg substrate_runtime" \
	CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_PANIC=abort CARGO_TARGET_DIR="$cache/weights" \
	cargo rustc --release --target wasm32v1-none -p pacer-runtime --lib --no-default-features \
	--features runtime-benchmarks --crate-type cdylib
wasm=$cache/weights/wasm32v1-none/release/pacer_runtime.wasm

mkdir -p "$out"
for pallet in ${*:-pallet_sprint pallet_randomness}; do
	"$bencher" v1 benchmark pallet --runtime "$wasm" --genesis-builder runtime --genesis-builder-preset development \
		--pallet "$pallet" --extrinsic '*' --steps "${STEPS:-20}" --repeat "${REPEAT:-10}" \
		--json-file "$out/$pallet.json" --output "$out/$pallet.rs"
done
