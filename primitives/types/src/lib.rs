//! The words that pallets, node and agents share.
//!
//! No pallet depends on another pallet's crate. What one must know of another is a trait in [`traits`], wired in the
//! runtime; what the chain and an agent must agree on byte for byte is a type here.
//!
//! - [`ids`]: accounts, keys, indices, units.
//! - [`beacon`]: what a member of the randomness committee owes, and how it fails.
//! - [`clock`]: epochs, sessions, slots and phases.
//! - [`duty`]: what a duty key signs, and why a transaction is turned away.
//! - [`duty_seed`]: the verifiable random output that decides a Host's verification duties.
//! - [`node_key`]: the key a Host's node signs its duties with.
//! - [`weights`]: the rails between a race's counts and consensus power.
//! - [`ledger`]: the records of inferences.
//! - [`views`]: what the runtime API answers.
//! - [`traits`]: the seams between pallets.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod beacon;
pub mod clock;
pub mod duty;
pub mod duty_seed;
pub mod ids;
pub mod ledger;
pub mod node_key;
pub mod traits;
pub mod views;
pub mod weights;

pub use clock::{ClockParams, DisputeWindows, Moment, Phase};
pub use duty::{CallKind, DutyCall, DutyHeader, Lane, Rejection, SignedDutyCall};
pub use ids::*;
