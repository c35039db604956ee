//! Tests of reading: whole answers of each family, cut everywhere.

use super::*;
use proptest::prelude::*;

fn tools(format: ToolFormat, single: bool) -> ToolUse {
    ToolUse { format, names: vec!["get_weather".into(), "add".into()], single }
}

/// What pieces add up to: reasoning, content, calls.
fn sum(pieces: Vec<Piece>) -> (String, String, Vec<(String, String)>) {
    let (mut reasoning, mut content, mut calls) = (String::new(), String::new(), Vec::<(String, String)>::new());
    for piece in pieces {
        match piece {
            Piece::Reasoning(text) => reasoning.push_str(&text),
            Piece::Content(text) => content.push_str(&text),
            Piece::Call { index, name, .. } => {
                assert_eq!(index, calls.len());
                calls.push((name, String::new()));
            }
            Piece::Arguments { index, text } => calls[index].1.push_str(&text),
        }
    }
    (reasoning, content, calls)
}

fn read(mut reader: Reader, pieces: &[&str]) -> (String, String, Vec<(String, String)>) {
    let mut out: Vec<Piece> = pieces.iter().flat_map(|piece| reader.text(piece)).collect();
    out.extend(reader.finish());
    sum(out)
}

fn calls(format: ToolFormat, text: &str) -> (String, Vec<(String, String)>) {
    let (_, content, calls) = read(Reader::new(None, Some(&tools(format, false))), &[text]);
    (content, calls)
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.into(), arguments.into())
}

#[test]
fn reader_should_find_calls_when_they_are_written_as_hermes_and_qwen_do() {
    let text = "I look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
    let want = vec![call("get_weather", "{\"city\": \"Köln\"}"), call("add", "{}")];
    assert_eq!(calls(ToolFormat::Hermes, text), ("I look.".into(), want));
    // A mark that is not closed, and arguments that are missing.
    let open = "<tool_call>{\"name\": \"add\"}<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1";
    assert_eq!(calls(ToolFormat::Hermes, open), (String::new(), vec![call("add", "{}"), call("add", "{\"a\": 1")]));
}

#[test]
fn reader_should_find_calls_when_they_are_written_as_llama_does() {
    let plain = "{\"name\": \"add\", \"parameters\": {\"a\": 1}}";
    assert_eq!(calls(ToolFormat::Llama3, plain), (String::new(), vec![call("add", "{\"a\": 1}")]));
    let two = format!("<|python_tag|>{plain}; {plain}");
    assert_eq!(calls(ToolFormat::Llama3, &two).1, vec![call("add", "{\"a\": 1}"); 2]);
    // JSON that is an answer and no call.
    for answer in ["{\"name\": \"Bob\", \"age\": 3}", "{\"a\": [1, 2]} and more", "{\"name", " plain text"] {
        assert_eq!(calls(ToolFormat::Llama3, answer), (answer.trim_start().into(), vec![]), "{answer}");
    }
}

#[test]
fn reader_should_find_calls_when_they_are_written_as_mistral_does() {
    let list =
        "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {\"a\": 1}}, {\"name\": \"get_weather\", \"arguments\": {}}]";
    let want = vec![call("add", "{\"a\": 1}"), call("get_weather", "{}")];
    assert_eq!(calls(ToolFormat::Mistral, list), (String::new(), want.clone()));
    let named = "Yes.[TOOL_CALLS]add[CALL_ID]abc[ARGS]{\"a\": 1}[TOOL_CALLS]get_weather[ARGS]{}";
    assert_eq!(calls(ToolFormat::Mistral, named), ("Yes.".into(), want));
    let mut reader = Reader::new(None, Some(&tools(ToolFormat::Mistral, false)));
    let Some(Piece::Call { id, .. }) = reader.text(list).into_iter().next() else { panic!("no call") };
    assert!(id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
}

#[test]
fn reader_should_give_text_back_when_it_only_looked_like_a_call() {
    for text in ["a <tool", "a <tool_call> b", "<tool_call>{\"x\": 1}</tool_call>", "<tool_call>"] {
        let (content, calls) = calls(ToolFormat::Hermes, text);
        assert_eq!((content.as_str(), calls.len()), (text.trim_end_matches("</tool_call>"), 0), "{text}");
    }
    assert_eq!(calls(ToolFormat::Mistral, "[TOOL_CALLS] x y"), ("[TOOL_CALLS] x y".into(), vec![]));
}

#[test]
fn reader_should_take_the_first_call_alone_when_calls_must_not_be_parallel() {
    let text = "<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>".repeat(3);
    let (_, content, calls) = read(Reader::new(None, Some(&tools(ToolFormat::Hermes, true))), &[&text]);
    assert_eq!((content.as_str(), calls), ("", vec![call("add", "{}")]));
}

#[test]
fn reader_should_split_off_reasoning_when_it_is_marked_or_begun_by_the_prompt() {
    let think = |start, text: &str| read(Reader::new(Some(start), None), &[text]);
    let marked = think(ReasoningStart::Outside, "\n<think>\nhm, 2\n</think>\n\nIt is 2.\n");
    assert_eq!((marked.0.as_str(), marked.1.as_str()), ("hm, 2", "It is 2.\n"));
    let begun = think(ReasoningStart::Inside, "<think>hm</think>2");
    assert_eq!((begun.0.as_str(), begun.1.as_str()), ("hm", "2"));
    let cut = think(ReasoningStart::Inside, "hm </thi");
    assert_eq!((cut.0.as_str(), cut.1.as_str()), ("hm </thi", ""));
    let none = think(ReasoningStart::Outside, " <thin air");
    assert_eq!((none.0.as_str(), none.1.as_str()), ("", " <thin air"));
    assert_eq!(ReasoningFormat::Think.start("x<think>\n"), ReasoningStart::Inside);
    assert_eq!(ReasoningFormat::Think.start("<think>\n\n</think>\n\n"), ReasoningStart::Outside);
    assert_eq!(ReasoningFormat::AlwaysThink.start("x"), ReasoningStart::Inside);
    assert_eq!(ReasoningFormat::AlwaysThink.start("<think>\n\n</think>\n\n"), ReasoningStart::Outside);
}

#[test]
fn formats_should_be_found_when_a_template_speaks_of_them() {
    let found = ToolFormat::of_template;
    assert_eq!(found("{{ '<tool_call>\\n{\"name\": ' }}"), Some(ToolFormat::Hermes));
    assert_eq!(found("<tool_call>\n<function=f>"), None);
    assert_eq!(found("{{ '[TOOL_CALLS] [' }}"), Some(ToolFormat::Mistral));
    assert_eq!(found("{{- '<|python_tag|>' }}"), Some(ToolFormat::Llama3));
    assert_eq!(found("{{ messages }}"), None);
    assert_eq!(ReasoningFormat::of_template("content.split('</think>')"), Some(ReasoningFormat::Think));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn reader_should_find_the_same_when_text_is_cut_anywhere(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]", "add",
            "{\"name\": \"add\", \"arguments\": {\"é\": \"}\"}}", "{\"name\": \"x\"}", "{\"parameters\": [1], \"name\":\"add\"}",
            "{", "}", "[", "]", "\"", " ", "\n", "text", ";", ",",
        ]), 0..10),
        cut in 1..7usize,
        format in prop::sample::select(vec![ToolFormat::Hermes, ToolFormat::Llama3, ToolFormat::Mistral]),
        single in any::<bool>(),
        start in prop::sample::select(vec![None, Some(ReasoningStart::Inside), Some(ReasoningStart::Outside)]),
    ) {
        let text = parts.concat();
        let reader = || Reader::new(start, Some(&tools(format, single)));
        let letters: Vec<char> = text.chars().collect();
        let cuts: Vec<String> = letters.chunks(cut).map(|chunk| chunk.iter().collect()).collect();
        let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
        prop_assert_eq!(read(reader(), &[&text]), read(reader(), &cuts));
    }
}
