//! What can go wrong in the agent.

use pacer_types::Rejection;

/// Result of the agent's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a transaction did not enter the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
	/// Its fact is already on chain, or its nonce was used.
	Stale,
	/// Its nonce is too far ahead.
	Future,
	/// The signature is wrong: most likely the duty key was changed.
	BadProof,
	/// One of Pacer's own reasons.
	Pacer(Rejection),
	/// A code this version does not know.
	Unknown(u8),
	/// The same transaction waits in the pool.
	Waiting,
	/// The pool bans it for a while, is full, or cannot take it now.
	Later,
}

impl Refusal {
	/// The reason behind a custom code.
	pub fn from_code(code: u8) -> Self {
		use Rejection::*;
		let all = [
			UnknownHost, WrongPhase, WrongEpoch, ValidTooLong, NoQuota, Malformed, UnknownSubject, NotEntitled, NoHeartbeat,
			BondTooSmall,
		];
		all.into_iter().find(|r| *r as u8 == code).map_or(Self::Unknown(code), Self::Pacer)
	}

	/// What an operator should read.
	pub fn in_words(self) -> String {
		let words = match self {
			Self::Stale => "the chain already knows this, or the nonce was used",
			Self::Future => "the nonce is ahead of what the chain expects",
			Self::BadProof => "the signature is wrong; is this the duty key that the wallet registered?",
			Self::Waiting => "it already waits in the pool",
			Self::Later => "the pool does not take it now",
			Self::Unknown(code) => return format!("unknown reason {code}; is this agent older than the runtime?"),
			Self::Pacer(rejection) => match rejection {
				Rejection::UnknownHost => "no such Host is registered",
				Rejection::WrongPhase => "not in this phase of the epoch",
				Rejection::WrongEpoch => "it speaks of another epoch",
				Rejection::ValidTooLong => "its last valid slot lies too far ahead",
				Rejection::NoQuota => "this Host has no weight in this epoch or used up its share",
				Rejection::Malformed => "it is empty, too long or out of order",
				Rejection::UnknownSubject => "what it speaks of does not exist (any more)",
				Rejection::NotEntitled => "this Host may not speak of it",
				Rejection::NoHeartbeat => "this Host's node sent no heartbeat in this epoch",
				Rejection::BondTooSmall => "the Host's bond does not cover it",
			},
		};
		words.to_owned()
	}
}

/// Everything the agent's parts fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
	/// The node cannot be reached, or answers nonsense.
	#[error("node: {0}")]
	Node(String),
	/// The node turned a transaction away.
	#[error("refused by the chain: {}", .0.in_words())]
	Refused(Refusal),
	/// An engine cannot be reached, or answers nonsense.
	#[error("engine: {0}")]
	Engine(String),
	/// An engine has too much to do; it may be asked again after `wait`.
	#[error("engine: {reason}")]
	EngineBusy {
		/// How long it wants to be left alone.
		wait: std::time::Duration,
		/// What it said.
		reason: String,
	},
	/// Another agent cannot be reached, or answers nonsense.
	#[error("agent of {host}: {reason}")]
	Peer {
		/// Which Host.
		host: String,
		/// What happened.
		reason: String,
	},
	/// The data directory.
	#[error("data directory: {0}")]
	Store(#[from] std::io::Error),
	/// A key cannot be read or used.
	#[error("key: {0}")]
	Key(String),
	/// Another agent uses the data directory with the same key.
	#[error("another agent runs with this duty key in this data directory")]
	Locked,
	/// Settings make no sense.
	#[error("{0}")]
	Settings(String),
}

impl Error {
	/// A node that answered something unreadable.
	pub fn node(e: impl std::fmt::Display) -> Self {
		Self::Node(e.to_string())
	}

	/// An engine that failed.
	pub fn engine(e: impl std::fmt::Display) -> Self {
		Self::Engine(e.to_string())
	}

	/// Another Host's agent that failed.
	pub fn peer(host: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
		Self::Peer { host: host.to_string(), reason: reason.to_string() }
	}
}

#[cfg(test)]
mod tests {
	use super::*;

	#[test]
	fn refusal_should_be_named_when_the_code_is_known() {
		assert_eq!(Refusal::from_code(9), Refusal::Pacer(Rejection::NoHeartbeat));
		assert!(Refusal::from_code(9).in_words().contains("heartbeat"));
		assert_eq!(Refusal::from_code(99), Refusal::Unknown(99));
	}
}
