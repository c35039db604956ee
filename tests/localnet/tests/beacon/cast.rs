//! Who of the crowd does what in the epoch of attacks, and what it must come to.

use anyhow::Context;
use curve25519_dalek::{ristretto::CompressedRistretto, scalar::Scalar};
use pacer_localnet::rogue::{Known, Rogue};
use pacer_types::{
	beacon::{BeaconDuty, BeaconFault},
	traits::BeaconValue,
	Rejection,
};

/// Bytes of a point and of a scalar.
const WORD: usize = 32;

/// A part to play; each by one member with the least weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
	/// Registers no key, and wants to deal and open all the same.
	NoKey,
	/// Never deals.
	SilentDealer,
	/// Never opens.
	SilentOwner,
	/// One share of its dealing is another's.
	BadShare,
	/// One coefficient of its proof is another's.
	BadProof,
	/// Deals what was right an epoch ago.
	OldEpoch,
	/// Deals for a committee in which somebody has another key.
	OtherCommittee,
	/// Deals each value under the name of the other.
	Swapped,
	/// Deals bytes of the right number that encode nothing.
	Garbage,
	/// Deals a byte too few.
	Truncated,
	/// Deals too many bytes.
	Oversized,
	/// Waits for Alice's dealing and deals the same.
	Copier,
	/// Waits for Alice's dealing and deals its negative, so that the sum loses it.
	Negater,
	/// Waits until everybody else has dealt, and deals then.
	Last,
	/// Sends two dealings, each of them valid, to two nodes.
	Twin,
	/// Opens a share that is not its own.
	Forger,
	/// Opens the race value with its opening of the audit value.
	WrongValue,
	/// Opens bytes that encode nothing, after too few.
	Gibberish,
}

/// What something must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
	/// It counts.
	Counts,
	/// It was in a block and did not hold.
	Rejected(BeaconFault),
	/// It never reached a block.
	Refused(Rejection),
	/// Nothing was sent.
	Silent,
}

impl Part {
	/// All parts.
	pub const ALL: [Self; 18] = [
		Self::NoKey,
		Self::SilentDealer,
		Self::SilentOwner,
		Self::BadShare,
		Self::BadProof,
		Self::OldEpoch,
		Self::OtherCommittee,
		Self::Swapped,
		Self::Garbage,
		Self::Truncated,
		Self::Oversized,
		Self::Copier,
		Self::Negater,
		Self::Last,
		Self::Twin,
		Self::Forger,
		Self::WrongValue,
		Self::Gibberish,
	];

	/// What its dealing comes to.
	pub fn deals(self) -> End {
		match self {
			Self::NoKey => End::Refused(Rejection::NotEntitled),
			Self::Truncated | Self::Oversized => End::Refused(Rejection::Malformed),
			Self::SilentDealer | Self::Forger | Self::WrongValue | Self::Gibberish => End::Silent,
			Self::Garbage => End::Rejected(BeaconFault::Malformed),
			Self::BadShare | Self::BadProof | Self::OldEpoch | Self::OtherCommittee | Self::Swapped => {
				End::Rejected(BeaconFault::WrongProof)
			}
			Self::Copier | Self::Negater => End::Rejected(BeaconFault::WrongProof),
			Self::SilentOwner | Self::Last | Self::Twin => End::Counts,
		}
	}

	/// What its opening of a value comes to.
	pub fn opens(self, which: BeaconValue) -> End {
		match (self, which) {
			(Self::NoKey, _) => End::Refused(Rejection::NotEntitled),
			(Self::SilentOwner, _) => End::Silent,
			(Self::Forger | Self::WrongValue, BeaconValue::Race) => End::Rejected(BeaconFault::WrongProof),
			(Self::Gibberish, BeaconValue::Race) => End::Rejected(BeaconFault::Malformed),
			_ => End::Counts,
		}
	}

	/// What the chain must hold against it in the end.
	pub fn faults(self) -> Vec<(BeaconDuty, BeaconFault)> {
		let of = |duty, end| match end {
			End::Counts => None,
			End::Rejected(fault) => Some((duty, fault)),
			End::Refused(_) | End::Silent => Some((duty, BeaconFault::Missing)),
		};
		let first = match self {
			Self::NoKey => Some((BeaconDuty::Key, BeaconFault::Missing)),
			_ => of(BeaconDuty::Deal, self.deals()),
		};
		let opens = |which| of(BeaconDuty::Open(which), self.opens(which));
		[first, opens(BeaconValue::Race), opens(BeaconValue::Audit)].into_iter().flatten().collect()
	}

	/// What it deals; `alices` is what Alice dealt.
	pub fn dealings(self, rogue: &Rogue, known: &Known, alices: &[Vec<u8>; 2]) -> anyhow::Result<[Vec<u8>; 2]> {
		let live = known.live_slots() as usize;
		if self == Self::NoKey {
			return Ok(alices.clone());
		}
		let [race, audit] = rogue.dealings(known, 0)?;
		Ok(match self {
			Self::BadShare => [copied(&race, 1, 0), audit],
			// One proof that does not hold is enough.
			Self::BadProof => [race, copied(&audit, 2 * live + 1, 2 * live)],
			Self::OldEpoch => rogue.dealings(&Known { epoch: known.epoch.saturating_sub(1), ..known.clone() }, 0)?,
			Self::OtherCommittee => rogue.dealings(&with_another_key(rogue, known)?, 0)?,
			Self::Swapped => [audit, race],
			Self::Garbage => [vec![0xff; race.len()], audit],
			Self::Truncated => [race, audit[1..].to_vec()],
			Self::Oversized => [[race, vec![0; WORD]].concat(), audit],
			Self::Copier => alices.clone(),
			Self::Negater => [negative(&alices[0], live)?, negative(&alices[1], live)?],
			_ => [race, audit],
		})
	}

	/// What it opens: `own` is its opening of the value, `other` of the other one.
	pub fn opening(self, which: BeaconValue, own: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
		match (self, which) {
			// The proof is of other shares.
			(Self::Forger, BeaconValue::Race) => [&other[..WORD], &own[WORD..]].concat(),
			(Self::WrongValue, BeaconValue::Race) => other,
			(Self::Gibberish, BeaconValue::Race) => vec![0xff; own.len()],
			_ => own,
		}
	}
}

/// `bytes` with word `from` in place of word `to`, too.
fn copied(bytes: &[u8], from: usize, to: usize) -> Vec<u8> {
	let mut bytes = bytes.to_vec();
	bytes.copy_within(from * WORD..(from + 1) * WORD, to * WORD);
	bytes
}

/// The committee with a key of the rogue's own invention at its first other member with a key.
fn with_another_key(rogue: &Rogue, known: &Known) -> anyhow::Result<Known> {
	let mut other = known.clone();
	let own = rogue.account();
	let mut members = other.members.iter_mut().filter(|member| member.host != own && member.key.is_some());
	let victim = members.next().context("nobody else has a key")?;
	victim.key = Some(Rogue::new("Nobody").beacon_key(known).public());
	Ok(other)
}

/// The negative of a dealing: of its points, and of its response.
fn negative(dealing: &[u8], live: usize) -> anyhow::Result<Vec<u8>> {
	let mut bytes = Vec::with_capacity(dealing.len());
	for (at, word) in dealing.chunks_exact(WORD).enumerate() {
		let word: [u8; WORD] = word.try_into()?;
		let negated = if at < 2 * live {
			let point = CompressedRistretto(word).decompress().context("no point")?;
			(-point).compress().to_bytes()
		} else {
			(-Option::<Scalar>::from(Scalar::from_canonical_bytes(word)).context("no scalar")?).to_bytes()
		};
		bytes.extend(negated);
	}
	Ok(bytes)
}
