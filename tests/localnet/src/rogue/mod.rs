//! Hosts without processes: a test speaks for them by hand, so that they can say what no agent would.
//!
//! - [`keys`]: a rogue's keys, its registration and heartbeat, and whatever its duty key says.
//! - [`search`]: nonces that are appropriate, and nonces that are not, by the reference.
//! - [`forge`]: range trees over lists that have none.
//! - [`serve`]: lists over HTTP, as an agent serves them: to all, to nobody, or to all but one process.
//! - [`beacon`]: keys, dealings and openings of the randomness.
//! - [`conduct`]: how a rogue claims a list, answers disputes and meets demands.
//!
//! # Invariants
//! 1. What a rogue says goes through the same door as what an agent says: the runtime API wraps it, the pool judges it.
//! 2. Keys follow from the name, nonces from seed and key, so a run with the same seed is the same run.

pub mod beacon;
pub mod conduct;
pub mod forge;
pub mod keys;
pub mod search;
pub mod serve;

pub use beacon::Known;
pub use conduct::{Answering, Claim, Posting};
pub use forge::Forged;
pub use keys::{Rogue, Said};
pub use search::RaceOf;
pub use serve::{Audience, ListServer};
