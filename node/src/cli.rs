//! Command line.

use sc_cli::RunCmd;

/// The node of a Pacer Host.
#[derive(Debug, clap::Parser)]
pub struct Cli {
	/// What to do instead of running the node.
	#[command(subcommand)]
	pub subcommand: Option<Subcommand>,

	/// How to run the node.
	#[clap(flatten)]
	pub run: RunCmd,
}

/// What the binary can do beside running.
#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant)]
pub enum Subcommand {
	/// Keys: generate, inspect, insert.
	#[command(subcommand)]
	Key(sc_cli::KeySubcommand),
	/// Prints a chain specification.
	ExportChainSpec(sc_cli::ExportChainSpecCmd),
	/// Validates blocks.
	CheckBlock(sc_cli::CheckBlockCmd),
	/// Exports blocks.
	ExportBlocks(sc_cli::ExportBlocksCmd),
	/// Exports the state of a block as a chain specification.
	ExportState(sc_cli::ExportStateCmd),
	/// Imports blocks.
	ImportBlocks(sc_cli::ImportBlocksCmd),
	/// Removes the chain's data.
	PurgeChain(sc_cli::PurgeChainCmd),
	/// Reverts the chain to an earlier block.
	Revert(sc_cli::RevertCmd),
}
