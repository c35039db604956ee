//! The race as an agent runs it (`design/sprint.md`, "The race on chain").
//!
//! - [`list`]: the nonces found, on disk.
//! - [`driver`]: starts engines, collects nonces, commits.
//! - [`serve`]: hands out the own list once commits are closed.
//! - [`fetch`]: fetches a list; [`check`]: recomputes nonces of it.
//! - [`audit`]: checks the lists of others, demands what is withheld, challenges what is wrong; [`case`] decides when.
//! - [`dispute`]: answers challenges, refutes answers, posts what is demanded.
//! - [`report`]: the same checks for a person.

pub mod audit;
pub mod case;
pub mod check;
pub mod dispute;
pub mod driver;
pub mod fetch;
pub mod list;
pub mod report;
pub mod serve;
#[cfg(test)]
mod tests;
