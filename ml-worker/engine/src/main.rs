//! `pacer-engine`: the command line of the engine.

mod contention;
mod serve;

use clap::{Parser, Subcommand};
use pacer_engine::{bench, device, inspect, sprint, train};
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
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Say how fast a checkpoint runs here, without HTTP.
    Bench(bench::BenchArgs),
    /// The Sprint by itself: test vectors, checks and benchmarks.
    Sprint {
        #[command(subcommand)]
        command: SprintCommand,
    },
    /// Train the demo model.
    TrainDemo(train::Args),
}

#[derive(Subcommand)]
enum SprintCommand {
    #[command(flatten)]
    Alone(sprint::cli::SprintCommand),
    /// Measures what a race costs users: time to the first token with and without one, on a server of its own.
    Contention(contention::ContentionArgs),
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
        Command::Inspect { dir, json } => {
            let report = inspect::inspect(&dir)?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&report)?),
                false => print!("{report}"),
            }
            Ok(())
        }
        Command::Bench(args) => Ok(bench::run(args)?),
        Command::Sprint { command: SprintCommand::Alone(command) } => sprint::cli::run(command),
        Command::Sprint { command: SprintCommand::Contention(args) } => contention::contention(&args),
        Command::TrainDemo(args) => train::run(args),
    }
}
