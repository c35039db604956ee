//! A local network of Hosts: real nodes, agents and engines as child processes, on free ports.
//!
//! - [`process`]: children that end with their parent, whatever happens to it.
//! - [`spec`]: the chain specification of a network: its Hosts, their endpoints, its model.
//! - [`chain`]: a wallet's view of a node: reads through the runtime API, signed extrinsics.
//! - [`host`]: the three processes of a Host.
//! - [`network`]: N Hosts, started together; more may join.
//! - [`account`]: what happened, by epoch and Host, for tables and JSON.
//! - [`load`]: chat requests through the OpenAI API.
//! - [`rogue`]: Hosts without processes, for which a test says what no agent would.
//!
//! The binary `pacer-localnet` shows all this to a person; the tests drive it.

pub mod account;
pub mod chain;
pub mod host;
pub mod load;
pub mod network;
pub mod process;
pub mod rogue;
pub mod spec;
pub mod stats;

/// Finds the folder with the built binaries: the one this program was started from.
///
/// # Errors
/// If the program's own path is unknown.
pub fn binaries() -> anyhow::Result<std::path::PathBuf> {
	let exe = std::env::current_exe()?;
	let mut dir = exe.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
	// Tests run from `deps`.
	if dir.ends_with("deps") {
		dir.pop();
	}
	Ok(dir)
}
