//! The duty seed: which answers a Host must verify, secret now and provable later (`design/economy.md`, "Who verifies").
//!
//! The seed of epoch e is the output of the schnorrkel VRF of the Host's duty key on ([`DOMAIN`], genesis hash, e, race
//! value). The race value is the one that led to the epoch: opened in epoch e - 1, see [`source_epoch`]. The output is
//! unique for key and input, so it cannot be chosen; without the key it cannot be predicted; with the proof anyone can
//! check it.
//!
//! Invariants
//! 1. Whatever [`prove`] returns, [`verify`] accepts under the same inputs and answers with the same seed.
//! 2. [`verify`] accepts at most one seed for a key and an input.

use codec::Decode;
use sp_core::{
	crypto::VrfPublic,
	sr25519::vrf::{VrfPreOutput, VrfProof, VrfSignature, VrfTranscript},
};

use crate::ids::{DutyKey, EpochIndex, Hash};

/// Domain of the VRF's input.
pub const DOMAIN: &[u8; 13] = b"pacer/duty/v1";
/// Context under which the seed is squeezed out of the VRF's output.
const SEED_CONTEXT: &[u8] = b"pacer/duty-seed/v1";

/// The epoch whose race value enters the seed of `epoch`. None for the first epoch: no race led to it, so it has no
/// duty seeds.
pub fn source_epoch(epoch: EpochIndex) -> Option<EpochIndex> {
	epoch.checked_sub(1)
}

/// Input of the VRF.
pub fn transcript(genesis: &Hash, epoch: EpochIndex, race_value: &[u8; 32]) -> VrfTranscript {
	VrfTranscript::new(
		DOMAIN,
		&[(b"genesis", genesis.as_bytes()), (b"epoch", &epoch.to_le_bytes()), (b"race value", race_value)],
	)
}

/// The seed that belongs to a pre-output, without checking that the key made it. None if the bytes are no point.
pub fn seed_from(
	public: &DutyKey,
	genesis: &Hash,
	epoch: EpochIndex,
	race_value: &[u8; 32],
	pre_output: &[u8; 32],
) -> Option<[u8; 32]> {
	let pre_output = VrfPreOutput::decode(&mut &pre_output[..]).ok()?;
	public.make_bytes(SEED_CONTEXT, &transcript(genesis, epoch, race_value), &pre_output).ok()
}

/// Checks a revealed seed and returns it. None if the proof does not hold.
pub fn verify(
	public: &DutyKey,
	genesis: &Hash,
	epoch: EpochIndex,
	race_value: &[u8; 32],
	pre_output: &[u8; 32],
	proof: &[u8; 64],
) -> Option<[u8; 32]> {
	let signature = VrfSignature {
		pre_output: VrfPreOutput::decode(&mut &pre_output[..]).ok()?,
		proof: VrfProof::decode(&mut &proof[..]).ok()?,
	};
	if !public.vrf_verify(&transcript(genesis, epoch, race_value).into_sign_data(), &signature) {
		return None;
	}
	seed_from(public, genesis, epoch, race_value, pre_output)
}

/// A duty seed and what is needed to reveal it.
#[cfg(feature = "std")]
#[derive(Clone, PartialEq, Eq)]
pub struct ProvenSeed {
	/// VRF pre-output.
	pub pre_output: [u8; 32],
	/// VRF proof.
	pub proof: [u8; 64],
	/// The seed: secret until Audit.
	pub seed: [u8; 32],
}

/// Computes a Host's duty seed. In native code only: it needs the secret key.
#[cfg(feature = "std")]
pub fn prove(pair: &sp_core::sr25519::Pair, genesis: &Hash, epoch: EpochIndex, race_value: &[u8; 32]) -> ProvenSeed {
	use sp_core::crypto::VrfSecret;
	let input = transcript(genesis, epoch, race_value);
	let signature = pair.vrf_sign(&input.clone().into_sign_data());
	ProvenSeed {
		pre_output: *signature.pre_output.0.as_bytes(),
		proof: signature.proof.0.to_bytes(),
		seed: pair.make_bytes(SEED_CONTEXT, &input),
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use sp_core::{sr25519, Pair};

	const GENESIS: Hash = Hash::repeat_byte(1);
	const VALUE: [u8; 32] = [9; 32];

	#[test]
	fn seed_should_be_accepted_when_its_proof_holds() {
		let pair = sr25519::Pair::from_seed(&[7; 32]);
		let proven = prove(&pair, &GENESIS, 3, &VALUE);
		assert_eq!(verify(&pair.public(), &GENESIS, 3, &VALUE, &proven.pre_output, &proven.proof), Some(proven.seed));
		assert_eq!(proven.seed, prove(&pair, &GENESIS, 3, &VALUE).seed, "the seed is unique, although proofs differ");
	}

	#[test]
	fn seed_should_be_refused_when_any_input_differs() {
		let pair = sr25519::Pair::from_seed(&[7; 32]);
		let other = sr25519::Pair::from_seed(&[8; 32]);
		let p = prove(&pair, &GENESIS, 3, &VALUE);
		let check = |key: &DutyKey, genesis: Hash, epoch, value: [u8; 32], pre: [u8; 32], proof: [u8; 64]| {
			verify(key, &genesis, epoch, &value, &pre, &proof)
		};
		assert_eq!(check(&other.public(), GENESIS, 3, VALUE, p.pre_output, p.proof), None);
		assert_eq!(check(&pair.public(), Hash::repeat_byte(2), 3, VALUE, p.pre_output, p.proof), None);
		assert_eq!(check(&pair.public(), GENESIS, 4, VALUE, p.pre_output, p.proof), None);
		assert_eq!(check(&pair.public(), GENESIS, 3, [8; 32], p.pre_output, p.proof), None);
		assert_eq!(check(&pair.public(), GENESIS, 3, VALUE, prove(&other, &GENESIS, 3, &VALUE).pre_output, p.proof), None);
		assert_eq!(check(&pair.public(), GENESIS, 3, VALUE, [255; 32], p.proof), None);
		assert_eq!(check(&pair.public(), GENESIS, 3, VALUE, p.pre_output, [255; 64]), None);
	}

	#[test]
	fn first_epoch_should_have_no_source() {
		assert_eq!(source_epoch(0), None);
		assert_eq!(source_epoch(5), Some(4));
	}
}
