//! `pacer-agent`: the process that makes a Host out of a node and engines.
//!
//! It follows the chain, drives engines, serves the OpenAI API, and submits what its Host owes, signed by the duty key.
//! It holds no wallet key and links no libtorch.
//!
//! # Parts
//! - [`chain`]: the node. Every block becomes a [`chain::View`], which drives all loops.
//! - [`engine`]: the engines, any of which may be absent.
//! - [`sprint`]: the race: search, commitments, own list, audit of others, disputes.
//! - [`gateway`]: the transfer agent: clients, payment, draw of executors, relay.
//! - [`executor`]: what other transfer agents pass on.
//! - [`ledger`]: records on their way to the chain, on disk until they took effect.
//! - [`verifier`]: duties, verdicts, votes.
//! - [`signing`]: signed HTTP between agents; [`peers`]: the client for it. [`store`]: the data directory.
//! - [`server`]: routes.
//! - [`proxy`]: signs requests on a Developer's own machine.
//!
//! # Invariants
//! 1. Secrets are never printed.
//! 2. Every loop is a struct with a `step` that does what is due and returns; it may be called again at any time.
//! 3. Whatever must survive the process is on disk before it is promised to anyone.
//! 4. Bodies, queues, caches and concurrency are bounded.
//! 5. A missing engine, node or peer delays only what needs it.

pub mod app;
pub mod chain;
pub mod cli;
pub mod engine;
pub mod error;
pub mod executor;
pub mod frames;
pub mod gateway;
pub mod keys;
pub mod ledger;
pub mod peers;
pub mod proxy;
pub mod run;
pub mod server;
pub mod signing;
pub mod sprint;
pub mod status;
pub mod store;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod testing;
pub mod verifier;
pub mod wire;
