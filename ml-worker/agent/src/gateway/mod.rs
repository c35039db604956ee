//! The transfer agent: clients' requests come in here (`design/inference.md`, steps 1 to 3).
//!
//! - [`request`], [`auth`]: what is asked, and who pays.
//! - [`draw`]: who executes.
//! - [`dispatch`]: reserves a number, asks candidates in turn, and queues the start.
//! - [`relay`]: the answer on its way to the client.
//! - [`plain`]: answers without the network, for the operator's own.
//! - [`error`]: what clients get instead.

pub mod auth;
pub mod dispatch;
pub mod draw;
pub mod error;
pub mod plain;
pub mod relay;
pub mod request;
