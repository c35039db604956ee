//! One step of a nonce's evaluation, judged against what its Host claims ("The race on chain", 5).
//!
//! A Host that is challenged opens a position and names the hashes of every state of the nonce there ([`Claim`]). If
//! the claim is false, some step of it is: the challenger names the first ([`first_false_step`]) and supplies the state
//! before it, and whoever judges recomputes that one step ([`judge`]). Equality decides, so there is nothing to vote on.
//!
//! # Words
//! - *trace*: every state of an evaluation ([`trace`]).
//! - *claim*: nonce and `L + 2` hashes: of `x_0 .. x_L` and of `y`.
//! - *step*: what is recomputed. It is *false* if the recomputation shows something else than the claim.
//!
//! # Invariants
//! 1. Every claim of a nonce that is not appropriate, and every claim with a wrong hash, has a false step.
//! 2. A claim with the right hashes of an appropriate nonce has none: an honest Host cannot lose.
//! 3. A step of a length or hash that does not fit the claim is an error and decides nothing.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;

use crate::{
	config::Config,
	error::Error,
	hashing::{signed, state_hash, Hash},
	network::Sprint,
	tree::{Opening, TreeError},
};

/// Most bytes of a state in a step: those of the widest preset.
pub const MAX_STATE: u32 = 8_192;
/// Most hashes in a claim: those of the deepest preset.
pub const MAX_HASHES: u32 = 66;

/// What a Host says of one of its nonces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
	/// The Host.
	pub host: &'a Hash,
	/// The nonce.
	pub nonce: u64,
	/// Hashes of `x_0 .. x_L` and of `y`.
	pub hashes: &'a [Hash],
}

/// The step that a challenger has recomputed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum Step {
	/// From the nonce to `x_0`.
	#[codec(index = 0)]
	Input,
	/// From `x_index` to `x_(index + 1)`.
	#[codec(index = 1)]
	Layer {
		/// The layer.
		index: u32,
		/// `x_index`, as i8 bytes.
		state: Vec<u8>,
	},
	/// From `x_L` to `y`, and from there to the verdict: the claim falls if either is wrong. The state is as short as
	/// a row, `y` itself would not fit a small transaction.
	#[codec(index = 2)]
	Output {
		/// `x_L`, as i8 bytes.
		state: Vec<u8>,
	},
	/// Another valid opening of the same list whose nonce is on the wrong side: the list is not ascending.
	#[codec(index = 3)]
	Order {
		/// That opening.
		other: Opening,
	},
}

impl Step {
	/// A short name, for events and logs.
	pub fn name(&self) -> &'static str {
		match self {
			Step::Input => "input",
			Step::Layer { .. } => "layer",
			Step::Output { .. } => "output",
			Step::Order { .. } => "order",
		}
	}
}

/// Every state of a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
	/// `x_0 .. x_L`.
	pub states: Vec<Vec<i8>>,
	/// The output.
	pub y: Vec<i8>,
	/// Whether the nonce is appropriate.
	pub appropriate: bool,
}

impl Trace {
	/// The hashes an honest Host answers with: of `x_0 .. x_L` and of `y`.
	pub fn hashes(&self) -> Vec<Hash> {
		self.states.iter().map(|x| state_hash(x)).chain([state_hash(&self.y)]).collect()
	}
}

/// Every state of a nonce and its output, without a verdict.
pub(crate) fn states_of(sprint: &Sprint, host: &Hash, nonce: u64) -> Result<(Vec<Vec<i8>>, Vec<i8>), Error> {
	let layers = sprint.config().layers;
	let mut states = Vec::with_capacity((layers as usize).saturating_add(1));
	let mut state = sprint.input(host, nonce);
	for layer in 0..layers {
		let next = sprint.layer(layer, &state)?;
		states.push(core::mem::replace(&mut state, next));
	}
	let y = sprint.output(&state)?;
	states.push(state);
	Ok((states, y))
}

/// Evaluates a nonce and keeps every state.
///
/// # Errors
/// [`Error::Config`] if `config` breaks a bound.
pub fn trace(config: &Config, seed: &Hash, threshold: u64, host: &Hash, nonce: u64) -> Result<Trace, Error> {
	let sprint = Sprint::new(*config, *seed)?;
	let (states, y) = states_of(&sprint, host, nonce)?;
	let appropriate = sprint.score(host, nonce, &y)?.is_appropriate(threshold);
	Ok(Trace { states, y, appropriate })
}

/// The first step of a claim that the trace of its nonce shows to be false; `None` if the claim holds.
pub fn first_false_step(trace: &Trace, claimed: &[Hash]) -> Option<Step> {
	let bytes = |state: &[i8]| state.iter().map(|value| value.to_ne_bytes()[0]).collect::<Vec<u8>>();
	let (last, states) = (trace.states.last()?, trace.states.as_slice());
	match trace.hashes().iter().zip(claimed).position(|(own, theirs)| own != theirs) {
		Some(0) => Some(Step::Input),
		Some(at) if at < states.len() => {
			let index = at.checked_sub(1)?;
			Some(Step::Layer { index: index as u32, state: bytes(states.get(index)?) })
		}
		Some(_) => Some(Step::Output { state: bytes(last) }),
		None if trace.appropriate => None,
		None => Some(Step::Output { state: bytes(last) }),
	}
}

/// The state before a step; none for the first. It must be what the Host claims: else it proves nothing about the claim.
fn state_before(config: &Config, claim: &Claim<'_>, step: &Step) -> Result<Vec<i8>, Error> {
	config.validate()?;
	let layers = config.layers;
	Error::check_length(claim.hashes.len(), layers as usize + 2)?;
	let (index, state) = match step {
		Step::Input => return Ok(Vec::new()),
		Step::Layer { index, state } if *index < layers => (*index, state),
		Step::Layer { index, .. } => return Err(Error::Layer(*index)),
		Step::Output { state } => (layers, state),
		Step::Order { .. } => return Err(Error::Layer(layers)),
	};
	Error::check_length(state.len(), config.state_len(index))?;
	let claimed = claim.hashes.get(index as usize).ok_or(Error::Layer(index))?;
	let state = signed(state);
	if state_hash(&state) == *claimed {
		Ok(state)
	} else {
		Err(Error::State)
	}
}

/// Whether a step speaks of the claim, so that [`judge`] will decide. Cheap: the hash of one state at most.
///
/// # Errors
/// Those of [`judge`].
pub fn check_step(config: &Config, claim: &Claim<'_>, step: &Step) -> Result<(), Error> {
	state_before(config, claim, step).map(|_| ())
}

/// Whether a step of the claim is false. Costs one layer at most.
///
/// [`Step::Order`] is not about the nonce's evaluation; it is judged by [`judge_order`].
///
/// # Errors
/// [`Error::Length`] if the claim has not `L + 2` hashes or the state has a wrong length, [`Error::Layer`] if there is
/// no such layer, [`Error::State`] if the state is not the claimed one: nothing is decided then.
pub fn judge(config: &Config, seed: &Hash, threshold: u64, claim: &Claim<'_>, step: &Step) -> Result<bool, Error> {
	let state = state_before(config, claim, step)?;
	let sprint = Sprint::new(*config, *seed)?;
	let layers = config.layers;
	let differs = |after: &[i8], index: u32| -> Result<bool, Error> {
		let claimed = claim.hashes.get(index as usize).ok_or(Error::Layer(index))?;
		Ok(state_hash(after) != *claimed)
	};
	match step {
		Step::Input => differs(&sprint.input(claim.host, claim.nonce), 0),
		Step::Layer { index, .. } => differs(&sprint.layer(*index, &state)?, index.saturating_add(1)),
		Step::Output { .. } => {
			let y = sprint.output(&state)?;
			let is_false = differs(&y, layers.saturating_add(1))?;
			Ok(is_false || !sprint.score(claim.host, claim.nonce, &y)?.is_appropriate(threshold))
		}
		Step::Order { .. } => Err(Error::Layer(layers)),
	}
}

/// Whether `other` shows that the list is not strictly ascending, beside the nonce that was opened at `position`
/// before. The tree leaves no room for it (see [`crate::tree`]), so this is a net under the argument, not a part of it.
///
/// # Errors
/// What is wrong with `other`, or [`TreeError::Position`] if it opens the same position: nothing is decided then.
pub fn judge_order(root: &Hash, count: u32, position: u32, nonce: u64, other: &Opening) -> Result<bool, TreeError> {
	if other.position == position {
		return Err(TreeError::Position);
	}
	other.verify(root, count)?;
	Ok(if position < other.position { nonce >= other.nonce } else { other.nonce >= nonce })
}
