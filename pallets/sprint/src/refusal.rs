//! One answer to "may it?" for both doors: a duty key's transaction is turned away with it, a wallet's call fails.

use pacer_types::Rejection;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};

use crate::{Config, Error};

/// Why something may not be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
	/// It was said already, or the moment for it is over for good.
	Done,
	/// For this reason.
	Why(Rejection),
}

impl From<Rejection> for Refusal {
	fn from(why: Rejection) -> Self {
		Refusal::Why(why)
	}
}

impl From<Refusal> for TransactionValidityError {
	fn from(refusal: Refusal) -> Self {
		match refusal {
			Refusal::Done => InvalidTransaction::Stale.into(),
			Refusal::Why(why) => InvalidTransaction::from(why).into(),
		}
	}
}

impl<T: Config> From<Refusal> for Error<T> {
	fn from(refusal: Refusal) -> Self {
		match refusal {
			Refusal::Done => Error::AlreadyDone,
			Refusal::Why(Rejection::WrongPhase | Rejection::WrongEpoch | Rejection::ValidTooLong) => Error::NotNow,
			Refusal::Why(Rejection::NoQuota) => Error::NoRoom,
			Refusal::Why(Rejection::Malformed) => Error::Malformed,
			Refusal::Why(Rejection::NotEntitled | Rejection::UnknownHost | Rejection::NoHeartbeat) => Error::NotEntitled,
			Refusal::Why(Rejection::UnknownSubject) => Error::NoSuchThing,
			Refusal::Why(Rejection::BondTooSmall) => Error::DepositTooSmall,
		}
	}
}

/// `Ok` if it holds.
pub(crate) fn need(holds: bool, otherwise: Rejection) -> Result<(), Refusal> {
	if holds {
		Ok(())
	} else {
		Err(otherwise.into())
	}
}

/// Refused for good if it holds.
pub(crate) fn not_done(done: bool) -> Result<(), Refusal> {
	if done {
		Err(Refusal::Done)
	} else {
		Ok(())
	}
}
