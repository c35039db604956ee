//! One generated position: 26 bytes, 31 when the chosen token is not among the most likely ones.

use codec::{Decode, Encode, Error, Input, Output};

/// Most likely tokens kept for every position.
pub const TOP: usize = 5;

/// A token's index in the vocabulary: 24 bits, three bytes little endian.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TokenId([u8; 3]);

impl TokenId {
	/// First index that does not fit.
	pub const LIMIT: u32 = 1 << 24;

	/// Wraps an index. `None` from [`Self::LIMIT`] on.
	pub fn new(id: u32) -> Option<Self> {
		let [a, b, c, rest] = id.to_le_bytes();
		(rest == 0).then_some(Self([a, b, c]))
	}

	/// The index.
	pub fn get(self) -> u32 {
		let [a, b, c] = self.0;
		u32::from_le_bytes([a, b, c, 0])
	}
}

impl core::fmt::Debug for TokenId {
	fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
		write!(f, "{}", self.get())
	}
}

/// A natural log-probability in 1024ths below zero: `min(65535, round(-1024 * lp))`, so smaller is likelier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct LogProb(pub u16);

impl LogProb {
	/// Steps in one nat.
	pub const SCALE: f64 = 1024.0;

	/// Rounds a log-probability. Rounding noise above zero becomes zero; NaN and minus infinity the least likely value.
	pub fn from_nats(lp: f64) -> Self {
		let steps = libm::round(-Self::SCALE * lp);
		if steps.is_nan() || steps >= 65535.0 {
			return Self(u16::MAX);
		}
		// In range, and a negative value saturates at zero.
		Self(steps as u16)
	}

	/// The value in nats.
	pub fn nats(self) -> f64 {
		-f64::from(self.0) / Self::SCALE
	}
}

/// A token and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Candidate {
	/// The token.
	pub id: TokenId,
	/// Its log-probability under the raw logits.
	pub lp: LogProb,
}

/// What is kept of one generated position.
///
/// Encoding: rank byte; if it is [`TOP`] or more, the chosen token and its value; then the most likely ones. A chosen
/// token inside the top is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
	rank: u8,
	chosen: Candidate,
	top: [Candidate; TOP],
}

impl Position {
	/// Puts a position together. `rank` counts the tokens before the chosen one by (logit descending, id ascending) and
	/// saturates at 255. A chosen token inside the top takes the top's entry, whatever rank is given.
	pub fn new(chosen: Candidate, rank: u32, top: [Candidate; TOP]) -> Self {
		match top.iter().position(|c| c.id == chosen.id) {
			Some(i) => Self { rank: i as u8, chosen: top[i], top },
			None => Self { rank: rank.clamp(TOP as u32, 255) as u8, chosen, top },
		}
	}

	/// The chosen token.
	pub fn token(&self) -> u32 {
		self.chosen.id.get()
	}

	/// The chosen token with its value.
	pub fn chosen(&self) -> Candidate {
		self.chosen
	}

	/// Place of the chosen token in the executor's order, 255 at most. For statistics: a verifier never compares it.
	pub fn rank(&self) -> u8 {
		self.rank
	}

	/// The most likely tokens, likeliest first.
	pub fn top(&self) -> &[Candidate; TOP] {
		&self.top
	}

	/// Whether the chosen token is not among the most likely ones.
	pub fn is_outside(&self) -> bool {
		usize::from(self.rank) >= TOP
	}

	/// Whether the values can come from any row at all: top in order, ids distinct, the chosen token not above the top
	/// it is outside of, probabilities that do not add up to more than one.
	pub fn is_plausible(&self) -> bool {
		let ordered = self.top.windows(2).all(|w| w[0].lp <= w[1].lp);
		let distinct = (0..TOP).all(|i| (0..i).all(|j| self.top[i].id != self.top[j].id));
		let outside =
			!self.is_outside() || (self.chosen.lp >= self.top[TOP - 1].lp && self.top.iter().all(|c| c.id != self.chosen.id));
		let mut mass: f64 = self.top.iter().map(|c| libm::exp(c.lp.nats())).sum();
		if self.is_outside() {
			mass += libm::exp(self.chosen.lp.nats());
		}
		// Half a step of rounding per value, with room for the executor's own rounding.
		ordered && distinct && outside && mass <= 1.002
	}
}

impl Encode for Position {
	fn size_hint(&self) -> usize {
		31
	}
	fn encode_to<W: Output + ?Sized>(&self, dest: &mut W) {
		self.rank.encode_to(dest);
		if self.is_outside() {
			self.chosen.encode_to(dest);
		}
		self.top.encode_to(dest);
	}
}

impl Decode for Position {
	fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
		let rank = u8::decode(input)?;
		if usize::from(rank) < TOP {
			let top = <[Candidate; TOP]>::decode(input)?;
			return Ok(Self { rank, chosen: top[usize::from(rank)], top });
		}
		let chosen = Candidate::decode(input)?;
		let top = <[Candidate; TOP]>::decode(input)?;
		Ok(Self { rank, chosen, top })
	}
}

#[cfg(test)]
mod tests {
	use super::*;
	use alloc::vec::Vec;

	fn candidate(id: u32, lp: f64) -> Candidate {
		Candidate { id: TokenId::new(id).unwrap(), lp: LogProb::from_nats(lp) }
	}

	fn top() -> [Candidate; TOP] {
		[candidate(9, -0.5), candidate(1, -1.5), candidate(70_000, -3.0), candidate(4, -4.0), candidate(5, -9.0)]
	}

	#[test]
	fn position_should_take_26_bytes_when_inside_and_31_when_outside() {
		let inside = Position::new(candidate(70_000, 0.0), 200, top());
		assert_eq!((inside.rank(), inside.encode().len(), inside.chosen().lp), (2, 26, top()[2].lp));
		let outside = Position::new(candidate(77, -10.0), 900, top());
		assert_eq!((outside.rank(), outside.encode().len()), (255, 31));
		for p in [inside, outside] {
			assert_eq!(Position::decode(&mut &p.encode()[..]).unwrap(), p);
			assert!(p.is_plausible());
		}
	}

	#[test]
	fn position_should_be_implausible_when_values_contradict_each_other() {
		let mut unordered = top();
		unordered.swap(0, 3);
		let mut twice = top();
		twice[4].id = twice[0].id;
		let heavy: Vec<_> = (0..5).map(|i| candidate(i, -0.5)).collect();
		let cases = [unordered, twice, heavy.try_into().unwrap()];
		for top in cases {
			assert!(!Position::new(candidate(100, -10.0), 7, top).is_plausible());
		}
		assert!(!Position::new(candidate(100, -1.0), 7, top()).is_plausible(), "outside, yet likelier than the fifth");
	}

	#[test]
	fn log_prob_should_saturate_when_out_of_range() {
		assert_eq!(LogProb::from_nats(0.2).0, 0);
		assert_eq!(LogProb::from_nats(-1.0).0, 1024);
		for lp in [-64.0, -1e9, f64::NEG_INFINITY, f64::NAN] {
			assert_eq!(LogProb::from_nats(lp).0, 65535);
		}
	}
}
