//! Parameters of the pallets, and the small adapters by which they meet.
//!
//! - [`stock`]: pallets of the SDK, and how transactions are made.
//! - [`pacer`]: Pacer's own.

pub mod pacer;
pub mod stock;

pub use pacer::*;
pub use stock::*;
