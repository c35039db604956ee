//! The Sprint's reference: it defines the race, everything else must agree with it bit by bit.
//!
//! A Host races by evaluating a transformer whose weights follow from the epoch's random seed, on inputs that follow
//! from its own account and a nonce, and by keeping the nonces whose output is close to a target. All arithmetic is on
//! integers that fit every accelerator's accumulator, so a result is the same everywhere and a claim is either true or
//! false. Definition: `design/sprint.md`.
//!
//! # Words
//! - *Sprint*: one race, given by a [`Config`] and a 32-byte seed ([`Sprint`]).
//! - *state* `x_l`: the activations before layer `l`, position-major; `x_L`, after the last layer, is the last position only.
//! - *y*: the output vector; *z*: `y` permuted by host and nonce; *t*: the target vector.
//! - *appropriate*: close enough to `t`; how close is the *threshold* `C`, a squared cosine in Q32 ([`threshold`]).
//! - *range tree*: what a Host commits to: its nonces, strictly ascending ([`tree`]).
//! - *sample*: the positions of that list which must be checked ([`sample`]).
//! - *step*: the part of an evaluation that a dispute recomputes ([`dispute`]).
//!
//! # Invariants
//! 1. No float, no panic, no unchecked length: wrong input is an [`Error`]. The code runs inside the runtime.
//! 2. Every matrix row can be derived alone; a step never holds more than one row of weights.
//! 3. Every accumulator stays within 2^24 in absolute value for any valid [`Config`].
//! 4. Two leaves with valid paths at different positions under one root have different nonces.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod attention;
mod config;
pub mod dispute;
mod error;
mod hashing;
mod keystream;
mod network;
pub mod sample;
pub mod threshold;
pub mod tree;
mod verdict;

pub use attention::power_of_half;
pub use dispute::{first_false_step, trace, Claim, Step, Trace};
pub use config::{Config, Matrix, Preset, MATRICES_PER_LAYER};
pub use error::Error;
pub use hashing::{node_seed, signed, state_hash, Hash};
pub use keystream::{Keystream, Label};
pub use network::{fold, Sprint, WeightRows};
pub use sample::positions;
pub use threshold::threshold_for_one_in;
pub use tree::{verify_path, Opening, Path, RangeTree, Sibling, TreeError, MAX_PATH};
pub use verdict::{appropriate, permute, squared_length, Score};

use alloc::vec::Vec;

/// Everything about one nonce that a golden vector, a dispute or a person may want to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
	/// Hashes of `x_0 .. x_L`.
	pub states: Vec<Hash>,
	/// The output.
	pub y: Vec<i8>,
	/// The output, permuted.
	pub z: Vec<i8>,
	/// `sum Z_i T_i` over the centred vectors.
	pub dot: i64,
	/// `sum Z_i^2`.
	pub zz: u64,
	/// `sum T_i^2`.
	pub tt: u64,
	/// Whether the nonce is appropriate.
	pub appropriate: bool,
}

/// Evaluates one nonce of `host` in full.
///
/// # Errors
/// [`Error::Config`] if `config` breaks a bound.
pub fn evaluate(config: &Config, seed: &Hash, threshold: u64, host: &Hash, nonce: u64) -> Result<Evaluation, Error> {
	let sprint = Sprint::new(*config, *seed)?;
	let (states, y) = dispute::states_of(&sprint, host, nonce)?;
	let states = states.iter().map(|x| state_hash(x)).collect();
	let z = permute(&y, &sprint.permutation(host, nonce))?;
	let Score { dot, zz, tt } = Score::new(&z, &sprint.target())?;
	Ok(Evaluation { states, y, z, dot, zz, tt, appropriate: appropriate(dot, zz, tt, threshold) })
}

/// Whether `nonce` of `host` is appropriate: as [`evaluate`], without the hashes.
///
/// # Errors
/// [`Error::Config`] if `config` breaks a bound.
pub fn is_appropriate(config: &Config, seed: &Hash, threshold: u64, host: &Hash, nonce: u64) -> Result<bool, Error> {
	let sprint = Sprint::new(*config, *seed)?;
	let mut state = sprint.input(host, nonce);
	for layer in 0..config.layers {
		state = sprint.layer(layer, &state)?;
	}
	let y = sprint.output(&state)?;
	Ok(sprint.score(host, nonce, &y)?.is_appropriate(threshold))
}
