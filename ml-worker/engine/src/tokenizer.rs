//! Text to tokens and back, from `tokenizer.json`.
//!
//! Streaming needs care: a token may hold half a character. [`IncrementalDecoder`] gives out text only when it is
//! whole, and in sum exactly what decoding everything at once would give.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer as Inner;

/// Why a tokenizer cannot be used, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is missing or damaged.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The text cannot be encoded, or the tokens not be decoded.
    #[error("tokenizer: {0}")]
    Text(String),
}

/// See the module's header.
pub struct Tokenizer {
    inner: Inner,
    special: HashSet<u32>,
    /// Tokens spelled as they are, special ones included.
    added: HashSet<u32>,
    byte_level: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of the checkpoint in `dir`.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        let file = dir.join("tokenizer.json");
        let wrong = |reason: String| TokenizerError::File { file: file.clone(), reason };
        let bytes = std::fs::read(&file).map_err(|error| wrong(error.to_string()))?;
        Self::from_bytes(&bytes).map_err(|error| wrong(error.to_string()))
    }

    /// Reads the content of a `tokenizer.json`.
    pub fn from_bytes(json: &[u8]) -> Result<Self, TokenizerError> {
        let mut inner = Inner::from_bytes(json).map_err(|error| TokenizerError::Text(error.to_string()))?;
        // A saved file may ask for truncation or padding, which training wanted and a server does not.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| TokenizerError::Text(error.to_string()))?;
        let tokens = inner.get_added_tokens_decoder();
        let special = tokens.iter().filter_map(|(id, token)| token.special.then_some(*id)).collect();
        let added = tokens.into_keys().collect();
        let decoder = serde_json::to_string(&inner.get_decoder()).unwrap_or_default();
        Ok(Self { inner, special, added, byte_level: decoder.contains("\"ByteLevel\"") })
    }

    /// Tokens of a text. With `add_special`, those that the tokenizer puts around every text are there too.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|e| TokenizerError::Text(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens; incomplete characters become U+FFFD. Unknown ids are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(ids, skip_special).map_err(|error| TokenizerError::Text(error.to_string()))
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether a token is special: it means something to the model and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The bytes a token stands for, even if they are no whole character; for `logprobs`.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(spelling) = self.inner.id_to_token(id) else { return Vec::new() };
        if self.added.contains(&id) {
            return spelling.into_bytes();
        }
        if self.byte_level {
            if let Some(bytes) = spelling.chars().map(byte_of).collect() {
                return bytes;
            }
        }
        let hex = spelling.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            return vec![byte];
        }
        // SentencePiece spells a space with this mark.
        spelling.replace('\u{2581}', " ").into_bytes()
    }
}

/// Byte-level vocabularies spell each byte as a printable character: itself where it is printable Latin-1, else the
/// next free one from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let code = c as u32;
    if code < 256 {
        return printable(code).then_some(code as u8);
    }
    (0..256).filter(|byte| !printable(*byte)).nth((code - 256) as usize).map(|byte| byte as u8)
}

/// Decodes one answer token by token.
#[derive(Debug, Default)]
pub struct IncrementalDecoder {
    ids: Vec<u32>,
    // Text of ids[..given] has been given out; decoding starts a little before, at `context`, because a decoder may
    // treat the first token of a text differently.
    context: usize,
    given: usize,
}

impl IncrementalDecoder {
    /// Takes a token and returns the text that has become whole.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let before = tokenizer.decode(&self.ids[self.context..self.given], true)?;
        let after = tokenizer.decode(&self.ids[self.context..], true)?;
        if after.ends_with('\u{FFFD}') || after.len() <= before.len() {
            return Ok(String::new());
        }
        let Some(new) = after.strip_prefix(&before) else { return Ok(String::new()) };
        self.context = self.given;
        self.given = self.ids.len();
        Ok(new.to_owned())
    }

    /// The text still held back, when nothing follows.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let before = tokenizer.decode(&self.ids[self.context..self.given], true)?;
        let after = tokenizer.decode(&self.ids[self.context..], true)?;
        self.context = self.given;
        self.given = self.ids.len();
        Ok(after.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

/// Cuts a stream of text at the first of a list of stop texts, holding back what may still become one.
#[derive(Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// A matcher; empty stop texts are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Takes text; returns what can be given out, and whether a stop text was completed (nothing follows then).
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is held back, when nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    (1..=stop.len().min(text.len()))
        .rev()
        .filter(|len| stop.is_char_boundary(*len))
        .find(|len| text.ends_with(&stop[..*len]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tokenizer whose tokens are bytes, with one special token, as a `tokenizer.json` would describe it.
    fn bytes() -> Tokenizer {
        Tokenizer::from_bytes(&crate::testing::byte_tokenizer_json()).unwrap()
    }

    #[test]
    fn tokenizer_should_give_back_the_bytes_when_tokens_are_bytes() {
        let tokenizer = bytes();
        let ids = tokenizer.encode("naïve €", true).unwrap();
        assert_eq!(ids.len(), "naïve €".len());
        let spelled: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
        assert_eq!(spelled, "naïve €".as_bytes());
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "naïve €");
    }

    proptest! {
        #[test]
        fn incremental_decoder_should_equal_decoding_at_once_when_text_is_any(text in "\\PC{0,24}") {
            let tokenizer = bytes();
            let mut decoder = IncrementalDecoder::default();
            let mut streamed = String::new();
            for id in tokenizer.encode(&text, true).unwrap() {
                let piece = decoder.push(&tokenizer, id).unwrap();
                let (broken, meant) = (piece.contains('\u{FFFD}'), text.contains('\u{FFFD}'));
                prop_assert!(!broken || meant);
                streamed.push_str(&piece);
            }
            streamed.push_str(&decoder.finish(&tokenizer).unwrap());
            prop_assert_eq!(streamed, text);
        }

        #[test]
        fn stop_matcher_should_cut_at_the_first_match_when_text_comes_in_pieces(
            text in "[abc]{0,30}", stops in prop::collection::vec("[abc]{1,4}", 0..3), cuts in 1..4usize,
        ) {
            let mut matcher = StopMatcher::new(stops.clone());
            let mut out = String::new();
            let mut stopped = false;
            let mut seen = String::new();
            for piece in text.as_bytes().chunks(cuts) {
                let piece = std::str::from_utf8(piece).unwrap();
                seen.push_str(piece);
                let (more, done) = matcher.push(piece);
                out.push_str(&more);
                stopped = done;
                if done { break; }
            }
            if !stopped { out.push_str(&matcher.finish()); }
            // Pieces decide how much is seen when the first match completes, never where the text is cut.
            let first = stops.iter().filter_map(|stop| seen.find(stop.as_str())).min();
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(out, first.map_or(text.clone(), |at| seen[..at].to_owned()));
        }
    }

    #[test]
    fn incremental_decoder_should_flush_when_a_character_is_never_completed() {
        let tokenizer = bytes();
        let ids = tokenizer.encode("€", true).unwrap();
        let mut decoder = IncrementalDecoder::default();
        assert_eq!(decoder.push(&tokenizer, ids[0]).unwrap(), "");
        assert!(decoder.finish(&tokenizer).unwrap().contains('\u{FFFD}'));
    }
}
