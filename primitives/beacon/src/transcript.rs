//! Fiat-Shamir transcripts and secret streams, both merlin's.
//!
//! A *public* transcript starts with the name of a statement and all that the statement is about; challenges come out
//! of it. A *secret* stream is the same construction begun with a seed: without the seed its output is unpredictable,
//! with it everybody gets the same. Its state is wiped when it is dropped (merlin does that).

use crate::{wire::WORD, Context, Host};
use alloc::{vec, vec::Vec};
use curve25519_dalek::scalar::Scalar;
use merlin::Transcript;
use zeroize::Zeroizing;

/// Bytes of a coefficient that joins many equations into one: a false equation survives with probability 2^-128.
const WEIGHT: usize = 16;

/// A public transcript about a host's encryption key of an epoch.
pub(crate) fn of_key(label: &'static [u8], genesis: &[u8; 32], epoch: u32, host: &Host) -> Transcript {
	let mut transcript = Transcript::new(label);
	transcript.append_message(b"genesis", genesis);
	transcript.append_message(b"epoch", &epoch.to_le_bytes());
	transcript.append_message(b"host", host);
	transcript
}

/// A public transcript about what a member of a committee sends for one value.
pub(crate) fn of_value(label: &'static [u8], context: &Context, committee: &[u8; 32], host: &Host) -> Transcript {
	let mut transcript = of_key(label, &context.genesis, context.epoch, host);
	transcript.append_message(b"value", context.which.label());
	transcript.append_message(b"committee", committee);
	transcript
}

/// The secret stream of `secret` for the statement that `public` has absorbed so far.
pub(crate) fn secret_stream(public: &Transcript, secret: &[u8; 32]) -> Transcript {
	let mut binding = Zeroizing::new([0; 32]);
	public.clone().challenge_bytes(b"binding", binding.as_mut());
	let mut stream = Transcript::new(b"pacer/beacon/v1/secret");
	stream.append_message(b"secret", secret);
	stream.append_message(b"binding", binding.as_ref());
	stream
}

/// A scalar, uniform up to a bias of 2^-259.
pub(crate) fn challenge(transcript: &mut Transcript, label: &'static [u8]) -> Scalar {
	let mut wide = Zeroizing::new([0; 64]);
	transcript.challenge_bytes(label, wide.as_mut());
	Scalar::from_bytes_mod_order_wide(&wide)
}

/// `count` coefficients of 128 bits.
pub(crate) fn weights(transcript: &mut Transcript, count: usize) -> Vec<Scalar> {
	let mut bytes = vec![0; count.saturating_mul(WEIGHT)];
	transcript.challenge_bytes(b"weights", &mut bytes);
	let widen = |chunk: &[u8]| {
		let mut word = [0; WORD];
		word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
		Scalar::from_bytes_mod_order(word)
	};
	bytes.chunks_exact(WEIGHT).map(widen).collect()
}
