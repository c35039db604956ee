//! What an executor leaves behind so that others can check its answer (`design/inference.md`).
//!
//! Words: an **artifact** records one answer, token by token; a **row** is the vector of raw logits of one position; a
//! **choice** is the token picked from a row; the **margin** of a choice is how far, in logits, it is from the token the
//! checker would have picked; a **verdict** is what a check concludes.
//!
//! Life cycle: an engine samples with [`sampler::Sampler`] and records every row with [`row::record`]; the resulting
//! [`Artifact`] is kept by the executor and its hash goes on chain; a validator decodes it, compares it with the request
//! ([`structure`]), replays the rows in one prefill and feeds margins and log-probabilities to [`judge::Evidence`].
//!
//! Invariants, numbered as in the tests:
//! 1. Decoding costs work and memory proportional to the input, whatever lengths the input claims.
//! 2. One value has one encoding: ids are 24 bits, lists are capped, parameters canonical, trailing bytes refused.
//! 3. The choice is a function of (row, parameters, key, position, earlier tokens): the fast path of the sampler and
//!    the plain one in [`sampler::reference`] always agree.
//! 4. No tensors, no clocks, no randomness of its own; floats, so it is not for the runtime.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod artifact;
pub mod bounded;
mod cpu;
pub mod judge;
pub mod params;
pub mod position;
pub mod preimage;
pub mod profile;
pub mod row;
pub mod sampler;
pub mod structure;

pub use artifact::{Artifact, FinishReason};
pub use judge::{Evidence, Thresholds, Verdict};
pub use params::{Constraint, ParamsError, Real, SamplingParams};
pub use position::{Candidate, LogProb, Position, TokenId, TOP};
pub use preimage::{KeyKind, SamplingKey};
pub use profile::{AttentionPath, DType, DeviceClass, Profile};
pub use structure::Fault;

/// A BLAKE2b-256 digest.
pub type Hash = [u8; 32];
