//! Chat templates render what Hugging Face's `apply_chat_template` renders, byte for byte: templates in the shape of
//! ChatML's, Llama 3's, Mistral's, Qwen3's and DeepSeek's, and one that uses every feature it can.
//! `parity/chats.py` holds the conversations and wrote the expectations.

mod parity_support;

use pacer_engine::template::{ChatTemplate, Conversation};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

#[test]
fn templates_should_render_what_transformers_renders_when_conversations_have_any_shape() {
    let entries = parity_support::json("templates.json");
    let entries = entries.as_array().unwrap();
    assert!(entries.len() > 500, "only {} expectations", entries.len());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/templates");
    let (mut templates, mut wrong, mut refused) = (HashMap::new(), Vec::new(), 0);
    for entry in entries {
        let name = entry["template"].as_str().unwrap();
        let template = templates.entry(name).or_insert_with(|| {
            let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
            ChatTemplate::new(source, "<s>".into(), "</s>".into()).unwrap_or_else(|error| panic!("{name}: {error}"))
        });
        let got = template.render(&Conversation {
            messages: entry["messages"].as_array().unwrap(),
            tools: Some(&entry["tools"]).filter(|tools| !tools.is_null()),
            extra: entry["kwargs"].as_object(),
            add_generation_prompt: entry["add_generation_prompt"].as_bool().unwrap(),
            timeless: false,
        });
        let mut want = entry["text"].as_str().map(str::to_owned);
        if let (Some(text), Some(day)) = (&want, entry["day"].as_str()) {
            want = Some(text.replace(&date(day), &date("today")));
        }
        match (&got, &want) {
            (Ok(got), Some(want)) if got == want => {}
            // A template's own words are passed on; those of Python about Python are not compared.
            (Err(error), None) => {
                refused += 1;
                let words = entry["refused"].as_str().unwrap();
                if let Some(own) = words.strip_prefix("TemplateError: ") {
                    assert!(error.to_string().ends_with(own), "{name}: {error} instead of {own}");
                }
            }
            _ => wrong.push(format!(
                "{name}, {}, tools {}, {}:\n-- want\n{}\n-- got\n{}",
                entry["chat"],
                entry["tools"].as_array().map_or(0, Vec::len),
                entry["kwargs"],
                want.as_deref().unwrap_or(entry["refused"].as_str().unwrap_or_default()),
                got.unwrap_or_else(|error| error.to_string()),
            )),
        }
    }
    assert!(refused > 0);
    assert!(wrong.is_empty(), "{} of {} differ; the first:\n{}", wrong.len(), entries.len(), wrong[0]);
}

/// A day as the template writes it; the system's own `date` knows what today is.
fn date(day: &str) -> String {
    let out = Command::new("date").args(["-u", "-d", day, "+%d %b %Y"]).env("LC_ALL", "C").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn expectations_should_keep_the_order_of_fields_when_they_are_read() {
    // What is compared above depends on it: templates write tools as they were sent.
    let tool: Value = serde_json::from_str(r#"{"z": 1, "a": 2}"#).unwrap();
    assert_eq!(tool.to_string(), r#"{"z":1,"a":2}"#);
}
