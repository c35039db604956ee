//! The engine: a keyless, stateless libtorch worker.
//!
//! Two jobs: the Sprint (prove and verify, `sprint`) and an LLM server. User requests come first: a Sprint step
//! never delays one.

pub mod answer;
pub mod artifact;
pub mod bench;
pub mod cache;
pub mod config;
pub mod device;
mod draw;
pub mod engine;
pub mod grammar;
pub mod handle;
pub mod inspect;
pub mod kernels;
pub mod memory;
mod meters;
pub mod model;
pub mod request;
pub mod runner;
pub mod scheduler;
pub mod sequence;
pub mod server;
pub mod speculate;
pub mod sprint;
pub mod template;
pub mod testing;
pub mod tokenizer;
pub mod train;
pub mod verify;
mod work;
