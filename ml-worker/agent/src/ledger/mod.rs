//! From what happened to what the chain records (`design/inference.md`, "Records are batches").
//!
//! - [`queues`]: starts, finishes and verdicts that are not on chain yet, on disk.
//! - [`batcher`]: puts them into signed batches on the ledger's lane and watches until they took effect.
//! - [`sequences`]: gives each paying account's inferences their contiguous numbers.

pub mod batcher;
pub mod queues;
pub mod sequences;
