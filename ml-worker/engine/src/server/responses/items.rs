//! An answer as items (reasoning, message, calls), and the events that tell of them as they grow.

use crate::server::reading::Piece;
use serde_json::{json, Value};

#[derive(Debug)]
enum Kind {
    Reasoning,
    Message { logprobs: Vec<Value> },
    Call { call_id: String, name: String },
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

impl Open {
    fn item(&self, status: &str) -> Value {
        // An item that has just begun is told without its parts.
        let begun = status != "in_progress";
        match &self.kind {
            Kind::Reasoning => json!({"id": self.id, "type": "reasoning", "summary": [], "status": status,
                "content": begun.then(|| self.part()).into_iter().collect::<Vec<_>>()}),
            Kind::Message { .. } => json!({"id": self.id, "type": "message", "role": "assistant", "status": status,
                "content": begun.then(|| self.part()).into_iter().collect::<Vec<_>>()}),
            Kind::Call { call_id, name } => json!({"id": self.id, "type": "function_call", "call_id": call_id,
                "name": name, "arguments": self.text, "status": status}),
        }
    }

    fn part(&self) -> Value {
        match &self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            Kind::Message { logprobs } => {
                json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs})
            }
            Kind::Call { .. } => Value::Null,
        }
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Items {
    suffix: String,
    done: Vec<Value>,
    open: Option<Open>,
    events: Vec<Value>,
}

impl Items {
    /// No items yet; `id` is the response's, from which theirs are made.
    pub fn new(id: &str) -> Self {
        let suffix = id.rsplit(['-', '_']).next().unwrap_or(id).to_owned();
        Self { suffix, done: Vec::new(), open: None, events: Vec::new() }
    }

    /// Items that are complete.
    pub fn done(&self) -> &[Value] {
        &self.done
    }

    /// Events since the last time, without their sequence numbers.
    pub fn events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }

    /// Takes what was read, and the log-probabilities that came with it.
    pub fn push(&mut self, pieces: Vec<Piece>, logprobs: Vec<Value>) {
        let mut logprobs = Some(logprobs);
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => {
                    if !matches!(self.open, Some(Open { kind: Kind::Reasoning, .. })) {
                        self.begin(Kind::Reasoning, "rs");
                    }
                    self.grow(&text, "response.reasoning_text.delta", None);
                }
                Piece::Content(text) => {
                    if !matches!(self.open, Some(Open { kind: Kind::Message { .. }, .. })) {
                        self.begin(Kind::Message { logprobs: Vec::new() }, "msg");
                    }
                    self.grow(&text, "response.output_text.delta", Some(logprobs.take().unwrap_or_default()));
                }
                Piece::Call { id, name, .. } => self.begin(Kind::Call { call_id: id, name }, "fc"),
                Piece::Arguments { text, .. } => self.grow(&text, "response.function_call_arguments.delta", None),
            }
        }
        // Tokens whose text is still held back.
        if let (Some(Open { kind: Kind::Message { logprobs: all }, .. }), Some(rest)) = (&mut self.open, logprobs) {
            all.extend(rest);
        }
    }

    /// Completes the last item. An answer without any gets an empty message.
    pub fn finish(&mut self, status: &str) {
        if self.open.is_none() && self.done.is_empty() {
            self.begin(Kind::Message { logprobs: Vec::new() }, "msg");
        }
        self.close(status);
    }

    fn begin(&mut self, kind: Kind, prefix: &str) {
        self.close("completed");
        let id = format!("{prefix}_{}_{}", self.suffix, self.done.len());
        let open = Open { kind, id, text: String::new() };
        let at = self.done.len();
        self.events
            .push(json!({"type": "response.output_item.added", "output_index": at, "item": open.item("in_progress")}));
        if !matches!(open.kind, Kind::Call { .. }) {
            self.events.push(json!({"type": "response.content_part.added", "item_id": open.id, "output_index": at,
                "content_index": 0, "part": open.part()}));
        }
        self.open = Some(open);
    }

    fn grow(&mut self, text: &str, kind: &str, logprobs: Option<Vec<Value>>) {
        let at = self.done.len();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let mut event = json!({"type": kind, "item_id": open.id, "output_index": at, "delta": text});
        if !matches!(open.kind, Kind::Call { .. }) {
            event["content_index"] = 0.into();
        }
        if let (Kind::Message { logprobs: all }, Some(fresh)) = (&mut open.kind, logprobs) {
            event["logprobs"] = fresh.iter().map(brief).collect();
            all.extend(fresh);
        }
        self.events.push(event);
    }

    fn close(&mut self, status: &str) {
        let Some(open) = self.open.take() else { return };
        let at = self.done.len();
        let place = json!({"item_id": open.id, "output_index": at});
        let mut tell = |kind: &str, more: Value| {
            let mut event = place.clone();
            event["type"] = kind.into();
            if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            self.events.push(event);
        };
        match &open.kind {
            Kind::Reasoning => {
                tell("response.reasoning_text.done", json!({"content_index": 0, "text": open.text}));
                tell("response.content_part.done", json!({"content_index": 0, "part": open.part()}));
            }
            Kind::Message { logprobs } => {
                let logprobs: Vec<Value> = logprobs.iter().map(brief).collect();
                let text = json!({"content_index": 0, "text": open.text, "logprobs": logprobs});
                tell("response.output_text.done", text);
                tell("response.content_part.done", json!({"content_index": 0, "part": open.part()}));
            }
            Kind::Call { .. } => tell("response.function_call_arguments.done", json!({"arguments": open.text})),
        }
        let item = open.item(status);
        self.events.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}));
        self.done.push(item);
    }
}

/// An entry as events tell it: without bytes.
fn brief(entry: &Value) -> Value {
    let one = |entry: &Value| json!({"token": entry["token"], "logprob": entry["logprob"]});
    let mut brief = one(entry);
    brief["top_logprobs"] = entry["top_logprobs"].as_array().into_iter().flatten().map(one).collect();
    brief
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_should_follow_the_pieces_when_they_change_kind() {
        let mut items = Items::new("resp-1");
        let call = Piece::Call { index: 0, id: "call_1".into(), name: "f".into() };
        items.push(vec![Piece::Reasoning("hm".into())], vec![]);
        items.push(vec![Piece::Content("a".into()), Piece::Content("b".into()), call], vec![json!({"token": "x"})]);
        items.push(vec![Piece::Arguments { index: 0, text: "{}".into() }], vec![]);
        items.finish("completed");
        let kinds: Vec<_> = items.done().iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"]);
        assert_eq!(items.done()[1]["content"][0]["text"], "ab");
        assert_eq!(items.done()[1]["content"][0]["logprobs"][0]["token"], "x");
        assert_eq!(items.done()[2]["arguments"], "{}");
        let events = items.events();
        let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
        assert_eq!((count("response.output_item.added"), count("response.output_item.done")), (3, 3));
        assert_eq!((count("response.content_part.added"), count("response.content_part.done")), (2, 2));
        assert_eq!(count("response.output_text.delta"), 2);
    }

    #[test]
    fn items_should_hold_an_empty_message_when_nothing_was_said() {
        let mut items = Items::new("resp-1");
        items.finish("incomplete");
        assert_eq!((items.done().len(), &items.done()[0]["status"]), (1, &json!("incomplete")));
        assert_eq!(items.done()[0]["content"][0]["text"], "");
    }
}
