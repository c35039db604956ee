"""Conversations rendered by transformers' `apply_chat_template`: the expectations of tests/parity_templates.rs."""

from pathlib import Path

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place, in °C <now>",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "A \"town\" & its land"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "about": {"type": "object", "properties": {"wind": {"type": "boolean"}, "days": {"type": "integer"}}},
    }, "required": ["place"]}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "description": "Die Uhrzeit", "parameters": {"type": "object", "properties": {}},
    "return": {"type": "string"}}}

SYSTEM = {"role": "system", "content": "  Be brief.\nVery.  "}


def call(name, arguments, id="abcdefgh1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "question": [{"role": "user", "content": "Hello?"}],
    "system": [SYSTEM, {"role": "user", "content": " What <is> \"this\" & that? é 日本 🙂 \n"}],
    "turns": [
        SYSTEM, {"role": "user", "content": "One"}, {"role": "assistant", "content": "  Two\n"},
        {"role": "user", "content": "Three"}, {"role": "assistant", "content": "Four"}, {"role": "user", "content": "Five"},
    ],
    "answered": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}],
    "thoughts": [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\nadd them\n</think>\n\nFour."},
        {"role": "user", "content": "And 3+3?"},
        {"role": "assistant", "reasoning_content": "\nagain\n", "content": "Six."},
    ],
    "call": [
        SYSTEM, {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "tool_calls": [
            call("get_weather", {"unit": "celsius", "place": "Köln", "n": 1.5, "deep": {"b": [1, None, True], "a": "x"}})]},
        {"role": "tool", "tool_call_id": "abcdefgh1", "name": "get_weather", "content": "{\"temp\": 7.5, \"sky\": \"grau\"}"},
    ],
    "calls": [
        {"role": "user", "content": "Weather and time?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [
            call("get_weather", {"place": "Rom"}), call("clock", {}, "abcdefgh2")]},
        {"role": "tool", "tool_call_id": "abcdefgh1", "content": "warm"},
        {"role": "tool", "tool_call_id": "abcdefgh2", "content": "12:00"},
        {"role": "assistant", "content": "Warm, and noon."}, {"role": "user", "content": "Thanks"},
    ],
    "wrong order": [{"role": "assistant", "content": "I begin"}, {"role": "user", "content": "No"}],
    "stranger": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}, {"role": "wizard", "content": "Ho"}],
}

OPTIONS = {
    "chatml": [{}],
    "llama3": [{"date_string": "26 Jul 2024"}, {"date_string": "26 Jul 2024", "tools_with_question": False},
               {"date_string": "1 Jan 2025", "builtin_tools": ["search", "interpreter"]}, {"today": True}],
    "mistral": [{}],
    "qwen3": [{}, {"enable_thinking": False}, {"enable_thinking": True}],
    "deepseek": [{}, {"thinking": True}],
    "features": [{"x": 1}],
}


def chats(folder: Path):
    """One entry for each template, conversation, set of tools and options: the text, or what it was refused with."""
    from jinja2.exceptions import TemplateError
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>", unk_token=None)
    out = []
    for name, options in OPTIONS.items():
        tokenizer.chat_template = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        for chat, messages in CONVERSATIONS.items():
            for tools in [None, [WEATHER], [CLOCK, WEATHER]]:
                for kwargs in options:
                    for prompt in [True, False]:
                        entry = {"template": name, "chat": chat, "messages": messages, "tools": tools, "kwargs": kwargs,
                                 "add_generation_prompt": prompt}
                        if kwargs.get("today"):
                            # Compared only if both see the same day.
                            from datetime import datetime
                            entry["day"] = datetime.now().strftime("%Y-%m-%d")
                        try:
                            entry["text"] = tokenizer.apply_chat_template(
                                messages, tools=tools, tokenize=False, add_generation_prompt=prompt, **kwargs)
                        except (TemplateError, TypeError, KeyError, AttributeError) as error:
                            entry["refused"] = f"{type(error).__name__}: {error}"
                        out.append(entry)
    return out
