//! The node of a Pacer Host: BABE and GRANDPA over litep2p, parity-db, JSON-RPC, off-chain workers.
//!
//! It is a plain Substrate node. What is Pacer's own is in the runtime, and in [`watch`]: a task that tells the
//! off-chain workers how far finality is, logs phases in plain words and sets Prometheus gauges.

mod chain_spec;
mod cli;
mod command;
mod rpc;
mod service;
mod watch;

fn main() -> sc_cli::Result<()> {
	command::run()
}
