//! Grammars over a vocabulary of pieces that cross every border: half characters, several signs of JSON in one token.

use super::*;
use pacer_artifact::sampler::{Sampler, Scratch};
use pacer_artifact::{SamplingKey, SamplingParams};
use proptest::prelude::*;
use serde_json::{json, Value};

const END: u32 = 256;
const OTHER_END: u32 = 257;
const CALL: u32 = 258;
const SIZE: usize = 448;

/// The 256 bytes, two end tokens, a special one, then pieces that no border stops.
fn compiler() -> Compiler {
    let mut tokens: Vec<Token> = (0..=255u8).map(|byte| Token::Text(vec![byte])).collect();
    tokens.extend(["<|end|>", "<|eot|>", "<tool_call>"].map(|name| Token::Special(name.into())));
    let pieces = [
        "{\"", "\": ", "\", \"", "\"}", "}}", "[[", "]}", "], \"", ": {\"", "true", "false", "null", "tru", " 1", "12",
        "0.", "e+", "name", "na", "me\":", "Paris\"", "yes", "no", "ye", "s\n", "\n\n", "    ", "\u{20ac}", "wörld",
        "ö\"", "\\u00", "\\\"", ",\n  ",
    ];
    tokens.extend(pieces.map(|piece| Token::Text(piece.as_bytes().to_vec())));
    tokens.push(Token::Text(b"\xe2\x82".to_vec()));
    tokens.push(Token::Text(b"\xac\"".to_vec()));
    let count = tokens.len() as u32;
    Compiler::from_tokens(move || tokens.clone(), count, &vocabulary())
}

fn vocabulary() -> Vocabulary {
    Vocabulary { size: SIZE, usable: SIZE - 100, eos: vec![END, OTHER_END] }
}

fn text_of(compiler: &Compiler, ids: &[u32]) -> Vec<u8> {
    let trie = compiler.prepared().unwrap().factory.tok_env().tok_trie();
    ids.iter().flat_map(|id| trie.token(*id).to_vec()).collect()
}

fn start(compiler: &Compiler, constraint: &Constraint) -> Grammar {
    compiler.compile(constraint).unwrap().unwrap()
}

/// Follows the wishes of a model until the answer ends; `None` if it did not within `most` tokens.
fn generate(
    grammar: &mut Grammar,
    params: SamplingParams,
    most: usize,
    row: impl Fn(usize) -> Vec<f32>,
) -> Option<Vec<u32>> {
    let mut sampler = Sampler::new(params, SamplingKey([3; 32]), vocabulary(), &[]).unwrap();
    let mut scratch = Scratch::default();
    for at in 0..most {
        let id = sampler.sample(&row(at), Some(grammar.mask().unwrap()), &mut scratch).unwrap();
        grammar.accept(id).unwrap();
        sampler.accept(id);
        if sampler.ends_with(id).is_some() {
            let mut ids = sampler.output().to_vec();
            ids.pop();
            return Some(ids);
        }
    }
    None
}

/// Noise that grows tired: after a while it prefers what ends things.
fn tired(seed: u64, after: usize) -> impl Fn(usize) -> Vec<f32> {
    move |at| {
        let mut row = vec![0f32; SIZE];
        let mut state = seed.wrapping_add(at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for value in row.iter_mut() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *value = (state >> 40) as f32 / (1 << 22) as f32;
        }
        if at > after {
            for (sign, wish) in [(b'"', 40.0), (b'}', 39.0), (b']', 39.0), (b',', 30.0), (b'0', 20.0)] {
                row[sign as usize] += wish;
            }
            row[END as usize] += 60.0;
            (0..33).for_each(|blank| row[blank] -= 20.0);
        }
        row
    }
}

/// Whether a value fits the part of JSON Schema that [`any_schema`] makes.
fn fits(value: &Value, schema: &Value) -> bool {
    if let Some(options) = schema["enum"].as_array() {
        return options.contains(value);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().any(|option| fits(value, option));
    }
    match schema["type"].as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => {
            let (low, high) = (schema["minimum"].as_i64().unwrap(), schema["maximum"].as_i64().unwrap());
            value.as_f64().is_some_and(|v| v.fract() == 0.0 && (low as f64..=high as f64).contains(&v))
        }
        "number" => value.is_number(),
        "string" => {
            let length = value.as_str().map(|text| text.chars().count() as u64);
            length.is_some_and(|length| length <= schema["maxLength"].as_u64().unwrap())
        }
        "array" => {
            let most = schema["maxItems"].as_u64().unwrap() as usize;
            value
                .as_array()
                .is_some_and(|list| list.len() <= most && list.iter().all(|item| fits(item, &schema["items"])))
        }
        _ => {
            let Some(fields) = value.as_object() else { return false };
            let properties = schema["properties"].as_object().unwrap();
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields.iter().all(|(name, field)| properties.get(name).is_some_and(|schema| fits(field, schema)))
        }
    }
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        (-50i64..50, 0i64..100)
            .prop_map(|(low, span)| json!({"type": "integer", "minimum": low, "maximum": low + span})),
        Just(json!({"type": "number"})),
        (0u64..12).prop_map(|most| json!({"type": "string", "maxLength": most})),
        prop::collection::vec("[a-zäö€\"\\\\ ]{0,6}", 1..4).prop_map(|texts| json!({"enum": texts})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let fields = prop::collection::vec(("[a-z ö\"]{1,5}", inner.clone(), any::<bool>()), 0..4);
        prop_oneof![
            (inner.clone(), 0u64..4)
                .prop_map(|(items, most)| json!({"type": "array", "items": items, "maxItems": most})),
            prop::collection::vec(inner, 1..3).prop_map(|options| json!({"anyOf": options})),
            fields.prop_map(|fields| {
                let required: Vec<&String> = fields.iter().filter(|f| f.2).map(|f| &f.0).collect();
                let mut required: Vec<Value> = required.into_iter().map(|name| Value::from(name.as_str())).collect();
                required.dedup();
                let properties: serde_json::Map<String, Value> =
                    fields.iter().map(|(name, schema, _)| (name.clone(), schema.clone())).collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]

    #[test]
    fn random_schemas_should_give_only_json_that_fits(schema in any_schema(), seed in any::<u64>(), after in 0usize..60) {
        let compiler = compiler();
        let mut grammar = start(&compiler, &constraint::json_schema(&schema).unwrap());
        let ids = generate(&mut grammar, SamplingParams::default(), 600, tired(seed, after)).expect("it ends");
        let text = String::from_utf8(text_of(&compiler, &ids)).expect("UTF-8");
        let value: Value = serde_json::from_str(&text).expect(&text);
        prop_assert!(fits(&value, &schema), "{text} for {schema}");
    }
}

#[test]
fn masks_should_be_what_accept_takes_and_equal_in_every_compiler() {
    // Invariants 1, 2 and 3: the mask is checked token by token against a grammar of its own.
    let (one, two) = (compiler(), compiler());
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "n": {"enum": [1, 12, "€"]}},
        "required": ["name", "n"], "additionalProperties": false});
    let constraint = constraint::json_schema(&schema).unwrap();
    // A neighbour that has seen much of the grammar before.
    let mut before = start(&one, &constraint);
    generate(&mut before, SamplingParams::default(), 300, tired(5, 50)).unwrap();
    let (mut a, mut b) = (start(&one, &constraint), start(&two, &constraint));
    let mut so_far: Vec<u32> = vec![];
    let row = tired(11, 20);
    while !so_far.contains(&END) && !so_far.contains(&OTHER_END) {
        let mask = a.mask().unwrap().clone();
        assert_eq!(&mask, b.mask().unwrap());
        assert!(mask.count() > 0 && !mask.allows(CALL) && (300..SIZE as u32).all(|padding| !mask.allows(padding)));
        assert_eq!(mask.allows(END), mask.allows(OTHER_END));
        assert_eq!(mask.allows(END), a.is_complete().unwrap());
        for id in (0..300).step_by(1 + so_far.len() % 7) {
            let mut probe = start(&two, &constraint);
            so_far.iter().for_each(|id| probe.accept(*id).unwrap());
            assert_eq!(probe.accept(id).is_ok(), mask.allows(id), "{id} after {so_far:?}");
        }
        let row = row(so_far.len());
        let best =
            (0..SIZE as u32).filter(|id| mask.allows(*id)).max_by(|a, b| row[*a as usize].total_cmp(&row[*b as usize]));
        a.accept(best.unwrap()).unwrap();
        b.accept(best.unwrap()).unwrap();
        so_far.push(best.unwrap());
    }
    assert_eq!(a.mask().unwrap().count(), 2, "after the end nothing but the end");
    assert_eq!(a.accept(b'x'.into()), Err(GrammarError::Violated(b'x'.into())));
}

#[test]
fn stubborn_models_should_end_when_they_want_white_space_or_brackets_for_ever() {
    let compiler = compiler();
    for wish in [b' ', b'\n', b'[', b'{', b'"', b'x', b'1', b'\\', 0xE2, 0xFF] {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}, "maxItems": 3},
            "b": {"type": "string", "maxLength": 8}}, "required": ["a", "b"], "additionalProperties": false});
        let mut grammar = start(&compiler, &constraint::json_schema(&schema).unwrap());
        let stubborn = |at: usize| {
            let mut row = tired(1, 0)(at);
            row[wish as usize] += 1000.0;
            row
        };
        let ids = generate(&mut grammar, SamplingParams::default(), 2000, stubborn).expect("it ends");
        let text = String::from_utf8(text_of(&compiler, &ids)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["a"].is_array() && value["b"].is_string(), "{text}");
    }
}

#[test]
fn regex_choice_and_grammars_should_hold_when_tokens_cross_borders() {
    let compiler = compiler();
    let run = |constraint: Result<Constraint, GrammarError>, seed: u64| {
        let mut grammar = start(&compiler, &constraint.unwrap());
        let ids = generate(&mut grammar, SamplingParams::default(), 300, tired(seed, 10)).expect("it ends");
        String::from_utf8(text_of(&compiler, &ids)).unwrap()
    };
    let gbnf = "root ::= greeting \", \" the-Name # who\n  \"!\"{1,3}\ngreeting ::= \"yes\" | \"no\"\nthe-Name ::= [A-Z] [a-zö]* \"\\u20ac\"?\n";
    for seed in 0..20 {
        let code = run(constraint::regex(r"[a-c]{2}/[0-9]{3}€"), seed);
        assert!(code.len() == 9 && code.as_bytes()[2] == b'/' && code.ends_with('€'), "{code}");
        let choices = ["yes".to_owned(), "yes\n\n".to_owned(), "nö\"€".to_owned(), "<tool_call>".to_owned()];
        assert!(choices.contains(&run(constraint::choice(&choices), seed)));
        let text = run(constraint::grammar(gbnf), seed);
        let (greeting, rest) = text.split_once(", ").unwrap();
        let name = rest.trim_end_matches('!');
        assert!(["yes", "no"].contains(&greeting) && name.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
        assert!((1..=3).contains(&(rest.len() - name.len())), "{text}");
        let value: Value = serde_json::from_str(&run(Ok(constraint::json_object()), seed)).unwrap();
        assert!(value.is_object());
    }
}

#[test]
fn schema_keys_should_come_in_the_order_they_were_asked_for() {
    let compiler = compiler();
    let schema = serde_json::from_str(
        r#"{"type":"object","properties":{"zeta":{"type":"null"},"alpha":{"type":"null"},"mid":{"type":"null"}},
            "required":["zeta","alpha","mid"],"additionalProperties":false}"#,
    );
    let mut grammar = start(&compiler, &constraint::json_schema(&schema.unwrap()).unwrap());
    let ids = generate(&mut grammar, SamplingParams::default(), 300, tired(2, 0)).unwrap();
    let text = String::from_utf8(text_of(&compiler, &ids)).unwrap();
    let at = |key: &str| text.find(key).unwrap();
    assert!(at("zeta") < at("alpha") && at("alpha") < at("mid"), "{text}");
}

#[test]
fn tool_calls_should_follow_the_family_when_a_function_is_forced() {
    let compiler = compiler();
    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Köln"]}}, "required": ["city"],
        "additionalProperties": false});
    let functions = [
        Function { name: "weather", parameters: &parameters },
        Function { name: "say \"hi\"", parameters: &Value::Null },
    ];
    for (syntax, special) in [(ToolSyntax::HERMES, true), (ToolSyntax::LLAMA3, false), (ToolSyntax::MISTRAL, false)] {
        for (count, several) in [(1, false), (2, true)] {
            let constraint = compiler.tool_calls(&syntax, &functions[..count], several).unwrap();
            let mut grammar = start(&compiler, &constraint);
            let ids = generate(&mut grammar, SamplingParams::default(), 3000, tired(count as u64, 5)).expect("it ends");
            assert_eq!(ids[0] == CALL, special);
            let text = String::from_utf8_lossy(&text_of(&compiler, &ids)).replace('\u{FFFD}', "");
            let body = text.strip_prefix(syntax.begin).and_then(|rest| rest.strip_suffix(syntax.end)).unwrap();
            let first = serde_json::Deserializer::from_str(body).into_iter::<Value>().next().unwrap().unwrap();
            let arguments = &first[syntax.arguments];
            match first[syntax.name].as_str().unwrap() {
                "weather" => assert!(fits(&arguments["city"], &parameters["properties"]["city"])),
                name => assert!(name == "say \"hi\"" && arguments.is_object() && several),
            }
        }
    }
    assert!(compiler.tool_calls(&ToolSyntax::HERMES, &[], false).is_err());
}

#[test]
fn complete_answers_should_end_whatever_min_tokens_and_ignore_eos_say() {
    let compiler = compiler();
    let constraint = constraint::choice(&["yes".to_owned()]).unwrap();
    let params =
        SamplingParams { min_tokens: 50, ignore_eos: true, constraint: constraint.clone(), ..Default::default() };
    let ids = generate(&mut start(&compiler, &constraint), params, 100, tired(1, 1000)).expect("it ends");
    assert_eq!(text_of(&compiler, &ids), b"yes");
    // Where it may go on, the minimum holds.
    let constraint = constraint::regex("[a-z]+").unwrap();
    let params = SamplingParams { min_tokens: 50, constraint: constraint.clone(), ..Default::default() };
    let ids = generate(&mut start(&compiler, &constraint), params, 100, tired(1, 0)).expect("it ends");
    assert_eq!(ids.len(), 50);
}

#[test]
fn broken_constraints_should_get_one_line_that_names_what_is_wrong() {
    let compiler = compiler();
    let deep = "(".repeat(30_000) + "\"a\"" + &")".repeat(30_000);
    let nested = (0..120).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}));
    let cases: Vec<(Result<Constraint, GrammarError>, &str)> = vec![
        (constraint::json_schema(&json!([1])), "object"),
        (constraint::json_schema(&json!({"type": "strin"})), "strin"),
        (constraint::json_schema(&json!({"$ref": "#/$defs/missing"})), "missing"),
        (constraint::json_schema(&json!({"type": "string", "pattern": "("})), "regex"),
        (constraint::json_schema(&json!({"type": "string", "contentEncoding": "base64", "not": {}})), "not"),
        (constraint::regex("a(b"), "regex"),
        (constraint::regex(""), "empty"),
        (constraint::regex("(?=a)b"), "regex"),
        (constraint::choice(&[]), "choices"),
        (constraint::grammar("start: foo"), "foo"),
        (constraint::grammar("root ::= foo"), "foo"),
        (constraint::grammar("greeting ::= \"a\""), "root"),
        (constraint::grammar("root ::= \"a"), ""),
        (constraint::grammar(&format!("start: {deep}")), "deep"),
        (constraint::grammar(&"x".repeat(70_000)), "65,536"),
    ];
    for (made, wanted) in cases {
        let shown = format!("{made:?}").chars().take(80).collect::<String>();
        let error = match made.and_then(|constraint| compiler.compile(&constraint)) {
            Ok(_) => panic!("{shown} was taken"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(wanted) && !error.contains('\n') && error.len() < 700, "{shown}: {error}");
    }
    // Large, yet within bounds, or refused: either way at once.
    for large in [
        constraint::regex("(a{1000}){1000}{1000}"),
        constraint::regex("(a|b)*c(a|b){60000}"),
        constraint::json_schema(&json!({"type": "string", "pattern": "^(a|b){1,60000}(c|d){1,60000}$"})),
        constraint::json_schema(&json!({"enum": (0..9000).collect::<Vec<u32>>()})),
    ] {
        if let Ok(Some(mut grammar)) = compiler.compile(&large.unwrap()) {
            assert!(grammar.mask().unwrap().count() > 0);
        }
    }
    // Deep, yet in order.
    compiler.compile(&constraint::json_schema(&nested).unwrap()).unwrap();
    let endless = Compiler::from_tokens(Vec::new, 0, &Vocabulary { eos: vec![], ..vocabulary() });
    assert_eq!(endless.compile(&constraint::json_object()).unwrap_err(), GrammarError::NoEnd);
}

/// Prints what compiling and masks cost: `cargo nextest run --run-ignored only --no-capture grammar::tests::timing`.
#[test]
#[ignore = "a measurement, not a test"]
fn timing_of_a_large_vocabulary() {
    let mut state = 1u64;
    let mut next = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut tokens: Vec<Token> = (0..=255u8).map(|byte| Token::Text(vec![byte])).collect();
    let signs = b"  etaoinshrdlucmfwypvbgkqjxz{}[]\",:0123456789\\n";
    while tokens.len() < 151_643 {
        let length = 2 + next(7);
        tokens.push(Token::Text((0..length).map(|_| signs[next(signs.len() as u64) as usize]).collect()));
    }
    tokens.push(Token::Special("<|end|>".into()));
    let began = std::time::Instant::now();
    let vocabulary = Vocabulary { size: 152_064, usable: 151_644, eos: vec![151_643] };
    let compiler = Compiler::from_tokens(move || tokens.clone(), 151_644, &vocabulary);
    compiler.prepared().unwrap();
    println!("vocabulary: {:?}", began.elapsed());
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array",
        "items": {"type": "string", "maxLength": 40}}, "n": {"type": "integer", "minimum": 3, "maximum": 40000},
        "when": {"type": "string", "format": "date-time"}, "text": {"type": "string", "pattern": "^[a-z ]+(, [a-z]+)*$"}},
        "required": ["name", "tags", "n", "when", "text"], "additionalProperties": false});
    for constraint in [constraint::json_object(), constraint::json_schema(&schema).unwrap()] {
        let began = std::time::Instant::now();
        let mut grammar = start(&compiler, &constraint);
        println!("compiled: {:?}", began.elapsed());
        let began = std::time::Instant::now();
        let mut again = start(&compiler, &constraint);
        println!("remembered: {:?}", began.elapsed());
        drop(again.mask());
        let mut times: Vec<u128> = vec![];
        for _ in 0..300 {
            let began = std::time::Instant::now();
            let mask = grammar.mask().unwrap();
            times.push(began.elapsed().as_micros());
            let allowed: Vec<u32> = (0..151_643).filter(|id| mask.allows(*id)).collect();
            let Some(id) = allowed.get(next(allowed.len().max(1) as u64) as usize) else { break };
            grammar.accept(*id).unwrap();
        }
        times.sort_unstable();
        println!("mask, us: median {}, largest {} of {}", times[times.len() / 2], times[times.len() - 1], times.len());
    }
}

/// Tokens that say `a` or `b`, without an order.
fn letters() -> impl Iterator<Item = u32> {
    let next = |state: &u64| {
        let state = state ^ state << 13;
        let state = state ^ state >> 7;
        Some(state ^ state << 17)
    };
    let states = std::iter::successors(Some(0x2545_f491_4f6c_dd1d_u64), next).skip(1);
    states.map(|state| u32::from(b'a' + (state & 1) as u8)).take(400)
}

#[test]
fn answers_should_begin_and_go_on_only_while_their_tables_fit_into_the_budget() {
    // What may come after an `a` depends on the last twelve letters: tables grow with every new sequence of them.
    let constraint = constraint::regex("(a|b)*a(a|b){12}c").unwrap();
    let write = |grammar: &mut Grammar| -> Result<(), GrammarError> {
        letters().try_for_each(|letter| {
            grammar.mask()?;
            grammar.accept(letter)
        })
    };
    let mut free = compiler();
    let mut alone = start(&free, &constraint);
    let before = alone.tables.lexer_stats().num_bytes;
    write(&mut alone).unwrap();
    let after = alone.tables.lexer_stats().num_bytes;
    assert!(after > 2 * before, "{before} to {after} bytes");
    drop(alone);
    // Two find room for one and a half: whoever comes later does not get through, a third does not even begin.
    free.budget = Arc::new(Budget::new(after * 3 / 2, after / 2));
    let (mut first, mut second) = (start(&free, &constraint), start(&free, &constraint));
    write(&mut first).unwrap();
    assert_eq!(write(&mut second), Err(GrammarError::Memory));
    assert!(matches!(free.compile(&constraint), Err(GrammarError::Memory)) && free.remembered(&constraint).is_none());
    drop((first, second));
    write(&mut start(&free, &constraint)).unwrap();
}

#[test]
fn accept_should_refuse_when_the_tables_outgrow_the_budget_though_no_mask_was_asked_for() {
    let constraint = constraint::regex("(a|b)*a(a|b){12}c").unwrap();
    let mut compiler = compiler();
    let before = start(&compiler, &constraint).tables.lexer_stats().num_bytes;
    compiler.budget = Arc::new(Budget::new(before + 1, 0));
    let mut grammar = start(&compiler, &constraint);
    assert_eq!(letters().try_for_each(|letter| grammar.accept(letter)), Err(GrammarError::Memory));
}
