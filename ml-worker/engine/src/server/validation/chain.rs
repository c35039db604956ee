//! The chain's extension.

use crate::server::error::ApiError;
use crate::server::types::ChainFields;
use pacer_artifact::Hash;

/// The chain's extension, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Identifies the inference.
    pub inference_id: Hash,
    /// Hash of the salted request, if the caller made it.
    pub request_hash: Option<Hash>,
    /// Salt of the request hash, if it is to be made here.
    pub request_salt: Option<[u8; 32]>,
    /// Salt of the response hash; random if absent.
    pub response_salt: Option<[u8; 32]>,
    /// Who pays, if the caller asks for several.
    pub tenant: Option<[u8; 32]>,
}

/// Decodes the extension.
pub fn chain(fields: &ChainFields) -> Result<Chain, ApiError> {
    let bytes = |field: &str, text: &str| -> Result<[u8; 32], ApiError> {
        hex::decode(text.strip_prefix("0x").unwrap_or(text))
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| ApiError::field(field, "32 bytes in hexadecimal are needed"))
    };
    let salt = |field: &str, text: &Option<String>| text.as_deref().map(|text| bytes(field, text)).transpose();
    Ok(Chain {
        inference_id: bytes("pacer.inference_id", &fields.inference_id)?,
        request_hash: salt("pacer.request_hash", &fields.request_hash)?,
        request_salt: salt("pacer.request_salt", &fields.request_salt)?,
        response_salt: salt("pacer.response_salt", &fields.response_salt)?,
        tenant: salt("pacer.tenant", &fields.tenant)?,
    })
}
