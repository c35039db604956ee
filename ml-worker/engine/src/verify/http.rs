//! `POST /verify`: what goes in and what comes out, as JSON.

use super::{Api, Claim, Frontend, VerifyError};
use pacer_artifact::artifact::{hash_bytes, MAX_ARTIFACT_BYTES};
use pacer_artifact::{Artifact, Hash, Verdict};
use serde::{Deserialize, Serialize};

/// Body of `POST /verify`. Bytes are lower-case hexadecimal, `0x` allowed. Everything but the artifact may be left out;
/// what is left out is not compared. The model is the one that the request names (the checkpoint's own if it names none),
/// else the one that the artifact names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyRequest {
    /// The artifact.
    pub artifact: String,
    /// Its hash on chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_hash: Option<String>,
    /// The inference. Needed unless only the numbers matter: without it a replayed artifact of another inference passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_id: Option<String>,
    /// Hash of the salted request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_hash: Option<String>,
    /// The OpenAI request body as the executor got it: prompt, parameters and key are compared with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<serde_json::Value>,
    /// Where the request was sent, `chat/completions` or `completions`; needed beside `request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Api>,
    /// Prompt ids, where there is no request; parameters and key are not compared then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    /// The answer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_text: Option<String>,
    /// The answer's ids, a final end token included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_token_ids: Option<Vec<u32>>,
    /// Recorded prompt tokens; compared if both counts are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u32>,
    /// Recorded completion tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u32>,
    /// The transfer agent confirms that the client went away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
}

/// Answer of `POST /verify`. Statistics are millionths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReply {
    /// Whether the answer passes.
    pub pass: bool,
    /// The structural fault, if there is one: then it is fraud and there are no statistics.
    pub fault: Option<String>,
    /// With the fault `request`: why every honest engine refuses the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Mean clipped margin of the choices.
    pub choice: u32,
    /// Mean clipped centred deviation of the distributions.
    pub distribution: u32,
    /// Mean clipped shift of the distributions.
    pub level: u32,
    /// Choices that no honest machine makes.
    pub hard: u32,
    /// Tokens at which more than one token was possible.
    pub informative: u32,
    /// Generated tokens.
    pub tokens: u32,
    /// Whether the pair of numeric profiles has thresholds of its own; without them only a fault or a coarse deviation fails.
    pub calibrated: bool,
    /// Hash of the artifact that was checked.
    pub artifact_hash: String,
}

impl VerifyRequest {
    /// Name of the model that should have answered, if the request says; without a request that of the artifact.
    pub fn model(&self) -> Option<String> {
        let Some(request) = &self.request else {
            // Whatever is wrong with it is found later.
            let artifact = Artifact::from_bytes(&bytes("artifact", &self.artifact).ok()?).ok()?;
            return String::from_utf8(artifact.model.to_vec()).ok();
        };
        request["model"].as_str().map(str::to_owned)
    }

    /// Reads the fields and renders the request.
    pub fn into_claim(self, frontend: &dyn Frontend) -> Result<Claim, VerifyError> {
        if self.artifact.len() > 2 * MAX_ARTIFACT_BYTES + 2 {
            return Err(VerifyError::Request("`artifact` is too long".into()));
        }
        let (rendered, refusal) = match &self.request {
            Some(request) => {
                let missing = || VerifyError::Request("`route` is needed beside `request`".into());
                let api = self.route.ok_or_else(missing)?;
                match frontend.render(api, request) {
                    Err(VerifyError::Refused(why)) => (None, Some(why)),
                    rendered => (Some(rendered?), None),
                }
            }
            None => (None, None),
        };
        Ok(Claim {
            artifact: bytes("artifact", &self.artifact)?,
            artifact_hash: hash("artifact_hash", self.artifact_hash.as_deref())?,
            inference_id: hash("inference_id", self.inference_id.as_deref())?,
            request_hash: hash("request_hash", self.request_hash.as_deref())?,
            rendered,
            refusal,
            prompt: self.prompt_token_ids,
            response_text: self.response_text,
            response_ids: self.response_token_ids,
            counts: self.prompt_tokens.zip(self.completion_tokens),
            aborted: self.aborted,
        })
    }
}

impl VerifyReply {
    /// Puts a verdict into words. `artifact` are the bytes that were checked; `detail` see its field.
    pub fn new(verdict: &Verdict, artifact: &[u8], detail: Option<String>) -> Self {
        Self {
            pass: verdict.pass,
            fault: verdict.fault.map(|fault| fault.as_str().to_owned()),
            detail,
            choice: verdict.choice,
            distribution: verdict.distribution,
            level: verdict.level,
            hard: verdict.hard,
            informative: verdict.informative,
            tokens: verdict.tokens,
            calibrated: verdict.calibrated,
            artifact_hash: hex::encode(hash_bytes(artifact)),
        }
    }
}

fn bytes(field: &str, text: &str) -> Result<Vec<u8>, VerifyError> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text))
        .map_err(|error| VerifyError::Request(format!("`{field}` is not hexadecimal: {error}")))
}

fn hash(field: &str, text: Option<&str>) -> Result<Option<Hash>, VerifyError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |_| VerifyError::Request(format!("`{field}` is not 32 bytes"));
    bytes(field, text)?.try_into().map(Some).map_err(wrong)
}
