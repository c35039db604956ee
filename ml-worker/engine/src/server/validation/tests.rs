//! Tests of the rules about values.

use super::*;
use pacer_artifact::sampler::Vocabulary;
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes(&crate::testing::byte_tokenizer_json()).unwrap());
static GRAMMARS: LazyLock<Compiler> = LazyLock::new(|| {
    let tokenizer = Tokenizer::from_bytes(&crate::testing::byte_tokenizer_json()).unwrap();
    Compiler::new(std::sync::Arc::new(tokenizer), &Vocabulary { size: 300, usable: 257, eos: vec![256] })
});
static TEMPLATE: LazyLock<ChatTemplate> = LazyLock::new(|| {
    let source = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
    ChatTemplate::new(source.into(), String::new(), String::new()).unwrap()
});
static DEFAULTS: LazyLock<GenerationDefaults> =
    LazyLock::new(|| GenerationDefaults { top_k: Some(7), ..Default::default() });

fn facts() -> Facts<'static> {
    Facts {
        models: vec!["demo"],
        max_model_len: 100,
        made_for: 200,
        vocab_size: 300,
        eos: &[256],
        timeless: false,
        defaults: &DEFAULTS,
        tokenizer: &TOKENIZER,
        template: Some(&TEMPLATE),
        grammars: &GRAMMARS,
        tool_format: Some(ToolFormat::Hermes),
        reasoning: None,
    }
}

fn check(api: Api, body: Value) -> Result<ValidRequest, ApiError> {
    validate(&serde_json::from_value(body).unwrap(), api, &facts())
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[test]
fn validation_should_render_the_conversation_when_contents_are_texts_or_parts() {
    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]});
    let one = check(Api::Chat, chat(json!({}))).unwrap();
    assert_eq!(one.prompts, check(Api::Chat, chat(parts)).unwrap().prompts);
    assert_eq!(one.prompts[0], "user:hi;".bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!((one.params.max_tokens, one.params.top_k), (92, Some(7)));
}

#[test]
fn validation_should_give_canonical_parameters_when_lists_are_in_any_order() {
    let body = json!({"logit_bias": {"9": 1, "10": -2.5}, "stop_token_ids": [5, 3, 5], "stop": "x", "top_k": -1,
        "max_tokens": 4, "temperature": 0});
    let params = check(Api::Chat, chat(body)).unwrap().params;
    assert_eq!(
        params.logit_bias.iter().map(|(id, bias)| (id.get(), bias.get())).collect::<Vec<_>>(),
        [(9, 1.0), (10, -2.5)]
    );
    assert_eq!(params.stop_tokens.iter().map(|id| id.get()).collect::<Vec<_>>(), [3, 5]);
    assert_eq!((params.top_k, params.max_tokens, params.is_greedy()), (None, 4, true));
    assert_eq!(params.validate(), Ok(()));
    let body = json!({"allowed_token_ids": [99, 97, 98, 97], "bad_words": ["ab", " c"], "min_tokens": 1});
    let params = check(Api::Chat, chat(body)).unwrap().params;
    assert_eq!(params.allowed.unwrap().iter().map(|id| id.get()).collect::<Vec<_>>(), [97, 98, 99]);
    let words: Vec<Vec<u32>> = params.bad_words.iter().map(|word| word.iter().map(|id| id.get()).collect()).collect();
    assert_eq!(words, [[97, 98], [32, 99]], "a word after a space ends with the word");
}

#[test]
fn validation_should_name_the_field_when_a_value_is_refused() {
    for (extra, param) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"n": 0}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"300": 1}}), "logit_bias"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"stop": ""}), "stop"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"content": "x"}]}), "messages.0"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages.0"),
        (json!({"response_format": {"type": "xml"}}), "response_format"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}), "response_format"),
        (json!({"guided_regex": "a", "guided_choice": ["b"]}), "guided_choice"),
        (json!({"guided_json": "{"}), "guided_json"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}), "structured_outputs"),
        (json!({"structured_outputs": {}}), "structured_outputs"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"model": "other"}), "model"),
        (json!({"bad_words": [""]}), "bad_words"),
        (json!({"bad_words": ["x".repeat(65)]}), "bad_words"),
        (json!({"bad_words": vec!["x"; 65]}), "bad_words"),
        (json!({"allowed_token_ids": []}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [300]}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [97], "bad_words": ["ba"]}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [97, 256], "stop_token_ids": [97], "min_tokens": 1}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [97], "guided_regex": "a"}), "allowed_token_ids"),
        (json!({"bad_words": ["a"], "guided_regex": "a"}), "bad_words"),
        (json!({"stop_token_ids": [97], "min_tokens": 1, "guided_regex": "a"}), "stop_token_ids"),
        (json!({"min_tokens": 9, "max_tokens": 8}), "min_tokens"),
        (json!({"pacer": {"inference_id": "0x12"}}), "pacer.inference_id"),
    ] {
        let error = check(Api::Chat, chat(extra.clone())).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{extra}: {error:?}");
    }
}

#[test]
fn refusal_should_be_by_the_request_only_when_no_engine_of_the_model_can_decide_otherwise() {
    let by_request = |facts: &Facts<'_>, api, body: Value| {
        validate(&serde_json::from_value(body.clone()).unwrap(), api, facts).expect_err(&body.to_string()).by_request
    };
    let far = json!({"prompt": "x".repeat(60), "max_tokens": 141});
    let near = json!({"prompt": "x".repeat(60), "max_tokens": 140});
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let forced = chat(json!({"tools": tools, "tool_choice": "required"}));
    let silent = Facts { tool_format: None, ..facts() };
    for (facts, api, body) in [
        (&facts(), Api::Chat, chat(json!({"temperature": -1}))),
        (&facts(), Api::Chat, chat(json!({"min_tokens": 9, "max_tokens": 8}))),
        (&facts(), Api::Chat, chat(json!({"max_tokens": 1_000_000}))),
        (&facts(), Api::Chat, chat(json!({"guided_choice": []}))),
        (&facts(), Api::Chat, chat(json!({"messages": [{"role": 1}]}))),
        (&facts(), Api::Completions, far),
        (&facts(), Api::Completions, json!({"prompt": [300]})),
    ] {
        assert!(by_request(facts, api, body.clone()), "{body}");
    }
    for (facts, api, body) in [
        (&facts(), Api::Chat, chat(json!({"model": "alias", "temperature": -1}))),
        (&facts(), Api::Completions, near),
        (&facts(), Api::Chat, chat(json!({"min_tokens": 95}))),
        (&silent, Api::Chat, forced),
        (&Facts { template: None, ..facts() }, Api::Chat, chat(json!({}))),
    ] {
        assert!(!by_request(facts, api, body.clone()), "{body}");
    }
}

#[test]
fn refusal_should_count_only_when_no_format_of_calls_is_short_enough() {
    let refusals = |length: usize| {
        let parameters = json!({"type": "object", "description": "x".repeat(length)});
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let body = chat(json!({"tools": tools, "tool_choice": "required"}));
        [ToolFormat::Hermes, ToolFormat::Llama3, ToolFormat::Mistral].map(|format| {
            let facts = Facts { tool_format: Some(format), ..facts() };
            validate(&serde_json::from_value(body.clone()).unwrap(), Api::Chat, &facts)
                .err()
                .map(|error| error.by_request)
        })
    };
    assert_eq!(refusals(60_000), [None; 3]);
    assert_eq!(refusals(70_000), [Some(true); 3]);
    // Some are longer than others.
    let between = (65_000..65_536).step_by(4).map(refusals).find(|found| found.contains(&None) && found != &[None; 3]);
    assert!(between.is_some_and(|found| !found.contains(&Some(true))), "{between:?}");
}

#[test]
fn validation_should_refuse_when_prompt_and_answer_do_not_fit() {
    let error = check(Api::Completions, json!({"prompt": "x".repeat(60), "max_tokens": 41})).unwrap_err();
    assert_eq!(error.code, Some("context_length_exceeded"));
    let fits = check(Api::Completions, json!({"prompt": "x".repeat(60), "max_tokens": 40})).unwrap();
    assert_eq!(fits.params.max_tokens, 40);
}

#[test]
fn validation_should_refuse_when_what_is_recorded_would_not_be_what_was_written() {
    let id = json!({"inference_id": "ab".repeat(32)});
    let several = check(Api::Completions, json!({"prompt": ["a", "b"], "pacer": id})).unwrap_err();
    let echo = check(Api::Completions, json!({"prompt": "a", "echo": true, "pacer": id})).unwrap_err();
    assert_eq!((several.param.as_deref(), echo.param.as_deref()), (Some("prompt"), Some("echo")));
}

#[test]
fn validation_should_choose_the_key_when_seed_and_inference_id_are_given_or_not() {
    let id = format!("0x{}", "ab".repeat(32));
    let kind = |extra: Value| check(Api::Chat, chat(extra)).unwrap().key_kind();
    assert_eq!(kind(json!({})), None);
    assert_eq!(kind(json!({"pacer": {"inference_id": id}})), Some(KeyKind::InferenceId));
    assert_eq!(kind(json!({"pacer": {"inference_id": id}, "seed": -3})), Some(KeyKind::Seed(-3)));
}

/// Any JSON that is not too deep, with numbers and texts that fields may take seriously.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), -3..400i64].prop_map(Value::from),
        prop_oneof![any::<f64>(), -2.0..3.0f64].prop_map(Value::from),
        prop_oneof!["\\PC{0,8}", Just("user".to_owned()), Just("text".to_owned()), Just("ab".repeat(32))]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key =
            prop_oneof![Just("role"), Just("content"), Just("type"), Just("text"), Just("inference_id"), Just("7")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 32] = [
    "model",
    "messages",
    "prompt",
    "n",
    "best_of",
    "echo",
    "suffix",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "stop",
    "stop_token_ids",
    "bad_words",
    "allowed_token_ids",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "chat_template_kwargs",
    "pacer",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn validation_should_never_panic_and_give_usable_parameters_when_bodies_are_odd(
        changes in prop::collection::vec((prop::sample::select(&FIELDS[..]), any_json()), 0..4),
        api in prop_oneof![Just(Api::Chat), Just(Api::Completions)],
    ) {
        let mut body = json!({"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]});
        for (field, value) in changes {
            body[field] = value;
        }
        let Ok(raw) = serde_json::from_value::<RawRequest>(body) else { return Ok(()) };
        match validate(&raw, api, &facts()) {
            Ok(valid) => {
                prop_assert_eq!(valid.params.validate(), Ok(()));
                let longest = valid.prompts.iter().map(Vec::len).max().unwrap_or(0);
                prop_assert!(longest > 0 && longest + valid.params.max_tokens as usize <= 100);
            }
            Err(error) => prop_assert!(error.status.is_client_error(), "{error:?}"),
        }
    }
}
