//! `pacer-agent`.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use pacer_agent::{
	cli::{Cli, Command},
	keys::KeyPair,
	run,
};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
	let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
	let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
	// Colours are for people, not for log files.
	log.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
	match Cli::parse().command {
		Command::Run(args) => run::run(args).await?,
		Command::Status(args) => run::status(args).await?,
		Command::Keygen { out } => println!("0x{}", hex::encode(KeyPair::generate_to(&out)?.public())),
		Command::Prove(args) => run::prove(args).await?,
		Command::Proxy(args) => run::proxy(args).await?,
		// A list that does not hold is an answer, not an error.
		Command::Sprint { command } => {
			if !run::sprint(command).await? {
				return Ok(ExitCode::FAILURE);
			}
		},
	}
	Ok(ExitCode::SUCCESS)
}
