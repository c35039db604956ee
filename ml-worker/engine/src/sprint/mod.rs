//! The Sprint on libtorch: proves (searches nonces) and verifies (recomputes another Host's).
//!
//! [`pacer_sprint`] defines what a nonce's output is; this module computes the same bits for batches of nonces, with
//! int8 products by libtorch and everything between them (shifts, wrap-around, attention, gating, residuals) fused into
//! single passes over memory on a CPU, or as libtorch operations on other devices.
//!
//! # Words
//! - *network*: the weights of one race on one device ([`Network`]); derived once, shared by race and verification.
//! - *pass*: a batch of nonces on its way through the network, a layer a *step* ([`Pass`]).
//! - *race*: a search over ascending nonces from a first one; the *frontier* is the first nonce not tried yet.
//!
//! # Invariants
//! 1. Every result equals the reference's, whatever the device, batch or order. A device that fails a comparison at
//!    start never races.
//! 2. A step takes at most about [`STEP_MS`]; between steps the owner's [`YieldToRequests`] is called, so that user
//!    requests go first.
//! 3. One thread owns the device for the Sprint; one race at a time; starting the same race again changes nothing.
//! 4. No keys, nothing on disk: an agent that knows the frontier and the nonces can go on with another engine.

pub mod cli;
mod error;
mod forward;
mod host_kernels;
mod http;
mod network;
mod pass;
mod service;
mod torch_kernels;
mod tuner;
mod worker;

pub use error::SprintError;
pub use forward::Workspace;
pub use http::routes;
pub use network::{Kernels, Network};
pub use pass::{evaluate_all, Outcome, Pass};
pub use service::{RaceSpec, Service, State, Status, Verification, YieldToRequests, MAX_VERIFY};
pub use tuner::STEP_MS;
