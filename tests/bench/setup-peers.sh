#!/usr/bin/env bash
# The programs that the engine is measured against (engine/run.py) and tested with: llama.cpp's server and its bench,
# built from the source in PyPI's llama-cpp-python, Hugging Face transformers, and candle from crates.io, run by
# peers/candle. Installs only what is missing and prints a line of JSON that says where things are; `error` tells what could
# not be had, and the rest is of use without it.
#
#   setup-peers.sh            everything
#   setup-peers.sh server     llama.cpp alone, and a tiny model for it: what `make test` wants
#
# Both are built for the very machine they run on, llama.cpp in three minutes of two idle cores; they stay in
# $PACER_CACHE/peers.
# $PACER_LLAMA_SERVER names a llama-server to use instead of building one.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."
cache=${PACER_CACHE:-$HOME/.cache/pacer}
release=0.3.36
peers=$cache/peers
bin=$peers/llama.cpp-$release
what=${1:-all}
case $what in all | server) ;; *) echo "peers: no such part: $what (all or server)" >&2; exit 2 ;; esac
mkdir -p "$peers"
exec 9>"$cache/peers.lock"
flock 9

export PACER_CACHE=$cache
say() { printf 'peers: %s\n' "$*" >&2; }

# Python of its own for what needs no PyTorch.
tools=$peers/tools
if ! "$tools/bin/python" -c 'import gguf, numpy' >/dev/null 2>&1; then
    say "fetching gguf"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check 'gguf==0.19.0' 'numpy>=2,<3' >&2
fi

llama() {
    [ -z "${PACER_LLAMA_SERVER:-}" ] || return 0
    [ ! -x "$bin/llama-server" ] || return 0
    command -v cmake >/dev/null || { say "cmake is missing"; return 1; }
    local work
    work=$(mktemp -d "$peers/build.XXXXXX")
    say "building llama.cpp (three minutes of two idle cores)"
    # The archive is asked for by way of pip, and only unpacked: its Python half is not wanted.
    "$tools/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        "llama-cpp-python==$release" --dest "$work" >&2 || return 1
    tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
    cmake -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
        -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF >"$work/log" 2>&1 \
        && cmake --build "$work/build" --parallel "$(nproc)" --target llama-server llama-batched-bench llama-quantize >>"$work/log" 2>&1 \
        || { say "llama.cpp does not build:"; tail -20 "$work/log" >&2; return 1; }
    mkdir -p "$bin"
    # The server last: it is what is looked for.
    cp "$work"/build/bin/{llama-batched-bench,llama-quantize,llama-server} "$bin/"
    rm -rf "$work"
}

# By what it is made from: another source is another program.
candle_source=tests/bench/peers/candle
candle=$peers/candle-$(cat $candle_source/Cargo.toml $candle_source/Cargo.lock $candle_source/src/*.rs | sha256sum | cut -c1-12)
candle() {
    [ ! -x "$candle" ] || return 0
    command -v cargo >/dev/null || { say "cargo is missing"; return 1; }
    local work
    work=$(mktemp -d "$peers/build.XXXXXX")
    say "building candle (some minutes)"
    RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$work \
        cargo build --release --locked --manifest-path "$candle_source/Cargo.toml" >"$work/log" 2>&1 \
        || { say "candle does not build:"; tail -20 "$work/log" >&2; rm -rf "$work"; return 1; }
    cp "$work/release/candle-worker" "$candle"
    rm -rf "$work"
}

# What tests run it with.
"$tools/bin/python" tests/bench/engine/checkpoints.py tiny >/dev/null

torch=
if [ "$what" = all ]; then
    torch=$(tests/bench/setup.sh)
    # transformers asks for PyTorch's package data, which is beside the wheel's files that setup.sh linked.
    site=$(echo "$cache"/bench/lib/python3*/site-packages)
    data=$(echo "$cache"/torch-*/lib/python3*/site-packages/torch-*.dist-info)
    [ ! -d "$data" ] || [ -e "$site/$(basename "$data")" ] || [ ! -d "$site/torch" ] || cp -a "$data" "$site/"
    if ! "$torch" -c 'import transformers, gguf' >/dev/null 2>&1; then
        say "fetching transformers"
        "$torch" -m pip install --quiet --disable-pip-version-check 'gguf==0.19.0' >&2
        "$torch" -c 'import transformers' >/dev/null 2>&1 ||
            "$torch" -m pip install --quiet --disable-pip-version-check 'transformers>=4.57,<6' >&2
    fi
fi
error=
llama || error="llama.cpp could not be built"
[ "$what" = all ] || [ -z "$error" ] || exit 1
if [ "$what" = all ]; then candle || error="${error:+$error; }candle could not be built"; fi
printf '{"llama": "%s", "llama_server": "%s", "llama_release": "%s", "tools": "%s", "torch": "%s", "candle": "%s", "error": "%s"}\n' \
    "$bin" "${PACER_LLAMA_SERVER:-$bin/llama-server}" "$release" "$tools/bin/python" "$torch" "$candle" "$error"
