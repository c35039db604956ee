//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
	engine::key::EngineKey,
	error::{Error, Result},
	gateway::auth::parse_account,
	keys::KeyPair,
	peers::Reach,
	sprint::check::PRIVATE_SAMPLES,
};

/// Follows the chain for a Host, drives its engines, and serves the OpenAI API.
#[derive(Debug, Parser)]
#[command(name = "pacer-agent", version)]
pub struct Cli {
	/// What to do.
	#[command(subcommand)]
	pub command: Command,
}

/// What the agent can do.
#[derive(Debug, Subcommand)]
pub enum Command {
	/// Run for a Host.
	Run(RunArgs),
	/// Show one screen about the network and, with --agent, about an agent.
	Status(StatusArgs),
	/// Make a key file and print its public key.
	Keygen {
		/// The file; it must not exist.
		#[arg(long)]
		out: PathBuf,
	},
	/// Print the proof with which a wallet registers the duty key.
	Prove(ProveArgs),
	/// Sign requests on a Developer's own machine and send them to a transfer agent.
	Proxy(ProxyArgs),
	/// Look into races.
	Sprint {
		/// What to look at.
		#[command(subcommand)]
		command: SprintCommand,
	},
}

/// Where the duty key is.
#[derive(Args)]
pub struct KeyArgs {
	/// File with the duty key's seed: 64 hex digits, readable by its owner only.
	#[arg(long, conflicts_with = "duty_key_uri", required_unless_present = "duty_key_uri")]
	pub duty_key_file: Option<PathBuf>,
	/// Development only: a phrase such as //Alice.
	#[arg(long)]
	pub duty_key_uri: Option<String>,
}

impl std::fmt::Debug for KeyArgs {
	fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
		// A phrase is a secret.
		f.debug_struct("KeyArgs").field("duty_key_file", &self.duty_key_file).finish_non_exhaustive()
	}
}

impl KeyArgs {
	/// Reads the key.
	pub fn load(&self) -> Result<KeyPair> {
		match (&self.duty_key_file, &self.duty_key_uri) {
			(Some(file), _) => KeyPair::from_file(file),
			(None, Some(uri)) => KeyPair::from_uri(uri),
			(None, None) => Err(Error::Key("no duty key was named".into())),
		}
	}
}

/// What engines are shown.
#[derive(Debug, Args)]
pub struct EngineKeyArgs {
	/// File with the API key that every --engine is shown, if they need one; without it PACER_ENGINE_API_KEY is read.
	#[arg(long)]
	pub engine_api_key_file: Option<PathBuf>,
}

impl EngineKeyArgs {
	/// Reads the key, if there is one.
	pub fn load(&self) -> Result<Option<EngineKey>> {
		EngineKey::load(self.engine_api_key_file.as_deref())
	}
}

/// Whom the chain may send this agent to.
#[derive(Debug, Args)]
pub struct ReachArgs {
	/// Connect to other agents also at loopback, link-local and private addresses: for a network on one machine or
	/// behind one router. On a public one this lets any Host have this agent knock at machines around it.
	#[arg(long)]
	pub allow_private_endpoints: bool,
}

impl ReachArgs {
	/// The same for the client.
	pub fn reach(&self) -> Reach {
		if self.allow_private_endpoints {
			Reach::Anywhere
		} else {
			Reach::Public
		}
	}
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
	/// WebSocket URL of the Host's node.
	#[arg(long, default_value = "ws://127.0.0.1:9944")]
	pub node: String,
	/// URL of an engine; may be given several times. A server of the OpenAI API that is no pacer-engine gets only the
	/// work it can do; the log and `status` say which.
	#[arg(long = "engine")]
	pub engines: Vec<String>,
	/// What they are shown.
	#[command(flatten)]
	pub engine_key: EngineKeyArgs,
	/// The duty key.
	#[command(flatten)]
	pub key: KeyArgs,
	/// Where to listen; port 0 takes a free one.
	#[arg(long, default_value = "127.0.0.1:0")]
	pub listen: SocketAddr,
	/// Where to keep queues, nonces and executed inferences.
	#[arg(long)]
	pub data_dir: PathBuf,
	/// File with issued API keys: lines `KEY ACCOUNT`; `KEY local` for those whom this Host's own engines answer without the
	/// network, unrecorded.
	#[arg(long)]
	pub api_keys_file: Option<PathBuf>,
	/// Whom to connect to.
	#[command(flatten)]
	pub reach: ReachArgs,
}

/// `prove`
#[derive(Debug, Args)]
pub struct ProveArgs {
	/// WebSocket URL of a node of the network.
	#[arg(long, default_value = "ws://127.0.0.1:9944")]
	pub node: String,
	/// The duty key.
	#[command(flatten)]
	pub key: KeyArgs,
	/// The Host's wallet account: address or hex.
	#[arg(long)]
	pub account: String,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
	/// WebSocket URL of a node.
	#[arg(long, default_value = "ws://127.0.0.1:9944")]
	pub node: String,
	/// URL of an agent; it knows more than the node.
	#[arg(long)]
	pub agent: Option<String>,
}

/// `proxy`
#[derive(Debug, Args)]
pub struct ProxyArgs {
	/// WebSocket URL of a node.
	#[arg(long, default_value = "ws://127.0.0.1:9944")]
	pub node: String,
	/// File with the Developer's own key.
	#[arg(long, conflicts_with = "request_key_file", required_unless_present = "request_key_file")]
	pub wallet_key_file: Option<PathBuf>,
	/// File with a request key that the Developer registered.
	#[arg(long, requires = "developer")]
	pub request_key_file: Option<PathBuf>,
	/// The Developer's account, for a request key.
	#[arg(long)]
	pub developer: Option<String>,
	/// URL of the transfer agent.
	#[arg(long)]
	pub ta: String,
	/// Where to listen.
	#[arg(long, default_value = "127.0.0.1:0")]
	pub listen: SocketAddr,
}

impl ProxyArgs {
	/// Reads key and account.
	pub fn load(&self) -> Result<(KeyPair, pacer_types::AccountId)> {
		if let Some(file) = &self.wallet_key_file {
			let key = KeyPair::from_file(file)?;
			let account = pacer_types::AccountId::from(key.public());
			return Ok((key, account));
		}
		let file = self.request_key_file.as_ref().ok_or_else(|| Error::Key("no key was named".into()))?;
		let account = self.developer.as_deref().and_then(parse_account);
		Ok((KeyPair::from_file(file)?, account.ok_or_else(|| Error::Settings("--developer is no account".into()))?))
	}
}

/// `sprint`
#[derive(Debug, Subcommand)]
pub enum SprintCommand {
	/// Fetch the lists of a race and check them as an agent would. Needs no key and says nothing to the chain; exits
	/// with 1 unless every list holds.
	Audit(AuditArgs),
}

/// `sprint audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
	/// WebSocket URL of a node.
	#[arg(long, default_value = "ws://127.0.0.1:9944")]
	pub node: String,
	/// Who recomputes nonces: URL of an engine, or `reference`, which needs none and is slow for large networks.
	#[arg(long, default_value = "reference")]
	pub engine: String,
	/// What an engine is shown.
	#[command(flatten)]
	pub engine_key: EngineKeyArgs,
	/// Epoch of the race.
	#[arg(long)]
	pub epoch: u32,
	/// Only this Host: address or hex.
	#[arg(long)]
	pub host: Option<String>,
	/// Whom to connect to.
	#[command(flatten)]
	pub reach: ReachArgs,
	/// Check every position.
	#[arg(long, conflicts_with = "samples")]
	pub all: bool,
	/// Random positions to check beside those that everyone checks.
	#[arg(long, default_value_t = PRIVATE_SAMPLES)]
	pub samples: usize,
	/// Print JSON.
	#[arg(long)]
	pub json: bool,
}
