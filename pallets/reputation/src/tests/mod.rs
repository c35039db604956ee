//! Tests by topic.

mod epochs;
mod exclusion;
mod invariants;
mod seeds;
