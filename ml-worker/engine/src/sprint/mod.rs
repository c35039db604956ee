//! The Sprint on libtorch: proves (searches nonces) and verifies (recomputes another Host's).
//!
//! [`pacer_sprint`] defines what a nonce's output is; this module computes the same bits for batches of nonces, with
//! int8 products by libtorch and everything between them (shifts, wrap-around, attention, gating, residuals) fused into
//! single passes over memory on a CPU, or as libtorch operations on other devices.
//!
//! # Words
//! - *network*: the weights of one race on one device ([`Network`]); derived once ([`WeightStore`]), shared by race and
//!   verification, and by all devices.
//! - *path*: int8 products, or bf16 ones with fp32 sums ([`Path`]); the same bits, so the faster one is taken.
//! - *pass*: a batch of nonces on its way through the network, a *step* at a time ([`Pass`]).
//! - *lane*: a thread that computes passes: one for each GPU, and one for each thread of the CPU.
//! - *feeder*: a lane's second thread, which generates inputs and judges outputs meanwhile.
//! - *race*: a search over ascending nonces from a first one; the *frontier* is the first nonce not tried yet.
//!
//! # Invariants
//! 1. Every result equals the reference's, whatever the device, path, batch or order. A device that fails a comparison
//!    never races: it is compared at start, and again in every shape of batch of each network, before that batch counts.
//! 2. A step keeps its device busy for at most [`STEP_MS`]; between steps the owner's [`YieldToRequests`] is called, so that
//!    user requests go first. Its patience ends, so that an engine that is never idle still verifies and races a little.
//! 3. No two devices try the same nonce; what was found is ascending and complete below the frontier. One race at a time;
//!    starting the same race again changes nothing.
//! 4. No keys, nothing on disk: an agent that knows the frontier and the nonces can go on with another engine.

mod bench;
mod check_exact;
pub mod cli;
mod clock;
mod edges;
mod error;
mod feeder;
mod forward;
mod host_kernels;
mod http;
mod loaded;
mod network;
mod pass;
mod path;
mod search;
mod self_test;
mod service;
mod shared;
mod shortcuts;
mod steps;
mod torch_kernels;
mod tuner;
mod weights;
mod worker;
mod workspace;

pub use edges::Outcome;
pub use error::SprintError;
pub use http::routes;
pub use network::{Kernels, Network};
pub use pass::{evaluate_all, Pass};
pub use path::{Path, PathChoice};
pub use service::{DeviceStatus, RaceSpec, Service, Setup, State, Status, Verification, MAX_VERIFY};
pub use shared::YieldToRequests;
pub use tuner::STEP_MS;
pub use weights::{Cost, Form, WeightStore};
