//! Small stand-ins for a checkpoint's files, for tests here and in `tests/`. Nothing in the running system uses them.

use serde_json::{json, Map, Value};

/// A `tokenizer.json` whose tokens are the 256 bytes (ids 0 to 255) and the special token `<|end|>` (id 256).
pub fn byte_tokenizer_json() -> Vec<u8> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    let mut vocab = Map::new();
    for byte in 0..256u32 {
        let code = if printable(&byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        vocab.insert(char::from_u32(code).map(String::from).unwrap_or_default(), Value::from(byte));
    }
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let end = json!({"id": 256, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    })
    .to_string()
    .into_bytes()
}

/// The id of `<|end|>` in [`byte_tokenizer_json`].
pub const END: u32 = 256;
