//! The race as an agent runs it (`design/sprint.md`, "The race on chain").
//!
//! - [`list`]: the nonces found, on disk.
//! - [`driver`]: starts engines, collects nonces, commits.
//! - [`audit`]: fetches the lists of others, checks them, votes.
//! - [`serve`]: hands out the own list once commits are closed.

pub mod audit;
pub mod driver;
pub mod list;
pub mod serve;

use pacer_sprint::Preset;
use pacer_types::{views::SprintView, AccountId};

use crate::{engine::RaceStart, wire::to_hex};

/// The race of a Host in words an engine understands; `None` without a seed, or for a preset this agent does not know.
pub fn race_of(view: &SprintView, host: &AccountId) -> Option<RaceStart> {
	let preset = Preset::from_index(view.preset)?;
	Some(RaceStart {
		preset: preset.name().to_owned(),
		seed: to_hex(view.seed?),
		host: to_hex(host),
		threshold: view.threshold,
		first_nonce: 0,
	})
}
