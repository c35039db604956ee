//! `pacer-localnet`: a local network of Hosts from one command.

mod demo;
mod screen;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Starts local networks of Pacer Hosts.
#[derive(Parser)]
#[command(version)]
struct Cli {
	#[command(subcommand)]
	command: Command,
}

#[derive(Subcommand)]
enum Command {
	/// Shows the network race, serve, verify and pay.
	Demo(DemoArgs),
}

/// Options of the demo.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
	/// Folder of the model that the Hosts serve.
	#[arg(long, env = "PACER_DEMO_MODEL")]
	pub model: PathBuf,
	/// Whole epochs to show.
	#[arg(long, default_value_t = 2)]
	pub epochs: u32,
	/// End after the epochs instead of keeping the network up.
	#[arg(long)]
	pub exit: bool,
	/// Write the final table as JSON to this file.
	#[arg(long)]
	pub json: Option<PathBuf>,
	/// Folder for data and logs; a new one that is removed at the end unless given.
	#[arg(long)]
	pub dir: Option<PathBuf>,
	/// Let a fifth Host join while the network runs.
	#[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
	pub join: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
	let Cli { command: Command::Demo(args) } = Cli::parse();
	let interrupted = tokio::signal::ctrl_c();
	tokio::select! {
		done = demo::run(args) => done,
		_ = interrupted => {
			// Dropping the demo ends every child.
			eprintln!("\nstopping the network");
			Ok(())
		}
	}
}
