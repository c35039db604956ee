//! What an operator can say about the API.

use super::access::{ApiKeys, Origins};
use super::reading::{ReasoningFormat, ToolFormat};
use crate::template::ChatTemplate;
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Why options make no sense.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The file of keys cannot be read.
    #[error("cannot read keys from {}: {error}", file.display())]
    KeyFile {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// The file of keys holds none.
    #[error("there is no key in {}", .0.display())]
    NoKey(PathBuf),
    /// A key of the command line or the environment has no characters.
    #[error("an API key is empty; leave it out if nobody needs one")]
    EmptyKey,
    /// No origin.
    #[error("`{0}` is no origin such as https://example.org")]
    Origin(String),
    /// An unknown name of a parser.
    #[error("{0}")]
    Parser(String),
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Arguments of `serve` that concern the API.
#[derive(Args, Clone, Debug, Default)]
pub struct ApiArgs {
    /// Key that clients must show; may be given several times
    #[arg(long = "api-key", env = "PACER_ENGINE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_keys: Vec<Secret>,
    /// File with further keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Origin whose web pages may ask, such as https://example.org, or *; may be given several times
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origins: Vec<String>,
    /// Longest time for a request, /verify excepted; clients may ask for less with the header x-request-timeout-ms
    #[arg(long, value_name = "SECONDS")]
    request_timeout_s: Option<u64>,
    /// How the model writes calls of tools: auto (by its chat template), none, hermes, llama3 or mistral
    #[arg(long, default_value = "auto", value_name = "NAME")]
    tool_call_parser: String,
    /// How the model marks reasoning: auto (by its chat template), none, think or always-think
    #[arg(long, default_value = "auto", value_name = "NAME")]
    reasoning_parser: String,
}

/// The same, checked.
#[derive(Clone, Debug, Default)]
pub struct ApiOptions {
    /// Keys of clients.
    pub keys: ApiKeys,
    /// Whose web pages may ask.
    pub origins: Origins,
    /// Longest time for a request.
    pub request_timeout: Option<Duration>,
    /// How the model writes calls of tools, if it is known.
    pub tool_format: Option<ToolFormat>,
    /// How the model marks its reasoning, if it does.
    pub reasoning: Option<ReasoningFormat>,
}

impl ApiOptions {
    /// Checks arguments, and looks into the chat template for what they leave open.
    pub fn new(args: ApiArgs, template: Option<&ChatTemplate>) -> Result<Self, OptionsError> {
        // As clients send it; an empty one would be known to everybody.
        let given: Vec<&str> = args.api_keys.iter().map(|key| key.0.trim()).collect();
        if given.iter().any(|key| key.is_empty()) {
            return Err(OptionsError::EmptyKey);
        }
        let mut keys = ApiKeys::new(given);
        if let Some(file) = &args.api_key_file {
            keys.add_file(file)?;
        }
        let source = template.map(ChatTemplate::source).unwrap_or_default();
        let tool_format = match args.tool_call_parser.as_str() {
            "auto" => ToolFormat::of_template(source),
            "none" => None,
            name => Some(name.parse().map_err(OptionsError::Parser)?),
        };
        let reasoning = match args.reasoning_parser.as_str() {
            "auto" => ReasoningFormat::of_template(source),
            "none" => None,
            name => Some(name.parse().map_err(OptionsError::Parser)?),
        };
        Ok(Self {
            keys,
            origins: Origins::new(&args.allow_origins)?,
            request_timeout: args.request_timeout_s.map(Duration::from_secs),
            tool_format,
            reasoning,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        api: ApiArgs,
    }

    #[test]
    fn start_should_be_refused_when_a_key_is_empty() {
        let options = |args: &[&str]| {
            let args = Command::parse_from([&["x"], args].concat()).api;
            ApiOptions::new(args, None)
        };
        assert!(options(&["--api-key", "one", "--api-key", " two"]).unwrap().keys.admit(Some("two")));
        for empty in ["", " "] {
            assert!(matches!(options(&["--api-key", "one", "--api-key", empty]), Err(OptionsError::EmptyKey)));
        }
    }
}
