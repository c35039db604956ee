# Pacer's everyday commands. Every one of them may be run again at any time; what is done already is not done again.
#
#   make demo                              a local network of four Hosts that races, serves, verifies and pays
#   make demo ARGS="--exit --json FILE"    the same, ending after its report, which is written to FILE too
#   make test                              everything is set up, built and tested, the end-to-end tests included
#   make setup, make build, make model     the single steps
#   make bench                             how fast this machine races
#   make bench-sprint                      the same in full, against PyTorch's floats too; to target/bench/sprint.json
#   make bench-engine                      how fast models are answered, beside llama.cpp and others: docs/benchmarks.md
#   make bench-weights                     weights of calls in WebAssembly, by frame-omni-bencher; to target/weights
#   make check-exact                       a million nonces of the engine against the reference (half an hour or more)
#   make fuzz-api                          a million odd requests against the engine's API
#   make clean-data                        forgets the demo model, so that it is trained anew; nothing that was built
#
# Large things lie in $PACER_CACHE (default ~/.cache/pacer): build output, libtorch, the demo model, clients' packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PACER_CACHE ?= $(HOME)/.cache/pacer
export PACER_CACHE
# End-to-end tests find the model through this.
PACER_DEMO_MODEL ?= $(PACER_CACHE)/demo-model
export PACER_DEMO_MODEL
# Property tests draw the same cases every time; PROPTEST_RNG_SEED=1 make test draws others.
PROPTEST_RNG_SEED ?= 20261121
export PROPTEST_RNG_SEED
ARGS ?=

# scripts/setup.sh decides where builds go and writes it down for cargo; the environment overrules it, as for cargo.
BIN = $${CARGO_TARGET_DIR:-$$(sed -n 's/^target-dir = "\(.*\)"/\1/p' .cargo/config.toml)}/release
say = @printf '\n\033[1m== %s\033[0m (%s)\n' "$(1)" "$$(date -u +%T)"

.PHONY: help setup prepare build model demo test bench bench-sprint bench-engine bench-weights check-exact fuzz-api clean-data

help:
	@sed -n '3,14s/^#   //p' Makefile

setup:
	$(call say,set-up)
	@scripts/setup.sh

# What the demo needs, without what only tests need.
prepare:
	$(call say,set-up)
	@scripts/setup.sh build

build: prepare
	$(call say,build (about half an hour on two cores the first time; later only what changed))
	@cargo build --release --workspace

# A model that was made in the same way is not made again: pacer-engine looks at its manifest.
model: build
	$(call say,demo model in $(PACER_DEMO_MODEL) (minutes the first time))
	@exec "$(BIN)/pacer-engine" train-demo --out "$(PACER_DEMO_MODEL)"

# `exec`, so that make's only child is the network itself and Ctrl-C reaches it.
demo: model
	$(call say,local network)
	@exec "$(BIN)/pacer-localnet" demo --model "$(PACER_DEMO_MODEL)" $(ARGS)

test: setup model
	$(call say,tests)
	@exec cargo nextest run --release --workspace $(ARGS)

# A million odd bodies against the engine's API, numbered: PACER_FUZZ_FIRST=N PACER_FUZZ_BODIES=1 makes one of them again.
fuzz-api: setup
	$(call say,odd bodies against the engine's API)
	@PACER_FUZZ_BODIES=$${PACER_FUZZ_BODIES:-1000000} exec cargo test --release -p pacer-engine --test server_fuzz -- --nocapture

bench: build
	$(call say,Sprint on this machine)
	@"$(BIN)/pacer-engine" sprint bench --preset dev
	@"$(BIN)/pacer-engine" sprint bench --preset bench

# Takes some minutes and wants the machine for itself. The first time it fetches PyTorch for Python (tests/bench/setup.sh).
# ARGS="--presets bench,wide --device cuda:0" and more: see the script.
bench-sprint: model
	$(call say,Sprint and a float transformer in turns)
	@python=$$(tests/bench/setup.sh) && exec "$$python" tests/bench/sprint.py --engine "$(BIN)/pacer-engine" \
		--model "$(PACER_DEMO_MODEL)" $(ARGS)

# Up to half an hour on an idle machine, which it wants for itself; ARGS="--quick" takes some minutes. The first time it
# fetches and builds the programs to compare with (tests/bench/setup-peers.sh). ARGS="--cases decode --models 0.5b" and
# more: see the script.
bench-engine: build
	$(call say,engine and others in turns)
	@peers=$$(tests/bench/setup-peers.sh) && python=$$(sed 's/.*"torch": "\([^"]*\)".*/\1/' <<<"$$peers") && \
		exec "$$python" tests/bench/engine/run.py --engine "$(BIN)/pacer-engine" $(ARGS)

# Builds the bencher the first time (half an hour or more). PALLETS="pallet_sprint" measures these only.
PALLETS ?=
bench-weights: setup
	$(call say,weights of calls)
	@exec scripts/bench-weights.sh $(PALLETS)

# Not part of `make test`, because the reference is slow. Ends with an error if a nonce differs, or if the hit rate (over
# 20 million nonces of dev) is not within 3% of one in 900. ARGS="--device cuda:0" for a GPU.
check-exact: build
	$(call say,engine and reference: a million nonces of dev)
	@"$(BIN)/pacer-engine" sprint check-exact --preset dev --count 1000000 $(ARGS)
	$(call say,engine and reference: ten thousand nonces of bench)
	@"$(BIN)/pacer-engine" sprint check-exact --preset bench --count 10000 $(ARGS)

clean-data:
	@rm -rf "$(PACER_DEMO_MODEL)"
	@echo "removed $(PACER_DEMO_MODEL); networks of the demo leave nothing behind"
