//! Tests by topic.

mod claims;
mod forfeits;
mod invariants;
mod settlement;
