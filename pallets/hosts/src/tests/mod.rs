//! Tests by topic.

mod authorization;
mod registration;
mod try_state;
