//! `pacer-engine`: the command line of the engine.

mod serve;

use clap::{Parser, Subcommand};
use pacer_engine::{device, inspect, sprint, train};
use std::io::IsTerminal;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// The keyless worker of a Pacer Host: an OpenAI-compatible LLM server, and the Sprint's prover and verifier.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
// One is made, once.
#[allow(clippy::large_enum_variant)]
enum Command {
    /// Serve a model through the OpenAI API, with /verify and /sprint beside it.
    Serve(serve::ServeArgs),
    /// Say what a checkpoint holds and what running it would need.
    Inspect {
        /// Folder of the checkpoint.
        dir: PathBuf,
    },
    /// The Sprint without a server: test vectors and benchmarks.
    Sprint {
        #[command(subcommand)]
        command: sprint::cli::SprintCommand,
    },
    /// Train the demo model.
    TrainDemo(train::Args),
}

fn main() -> anyhow::Result<()> {
    // Before anything else: libtorch's threads read these settings when the program is loaded.
    device::ensure_environment();
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(colours).with_target(false).init();
    match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::Inspect { dir } => {
            print!("{}", inspect::inspect(&dir)?);
            Ok(())
        }
        Command::Sprint { command } => sprint::cli::run(command),
        Command::TrainDemo(args) => train::run(args),
    }
}
