"""The whole API of an engine through the official OpenAI client for Python, every answer held strictly to its types.

The client itself takes whatever comes. Here each object is validated again by the client's own pydantic models in strict
mode, and fields that they do not know are errors, but for those that docs/api.md lists as extensions.

Environment: PACER_ENGINE_API (http://host:port/v1), PACER_API_KEY, PACER_MODEL (pacer-demo), PACER_CHECKS (names, separated
by commas; all if left out). The engine must know how to read tool calls (--tool-call-parser). Prints a line of JSON per
check; fails if one of them does.
"""

import json
import os
from typing import Literal

import openai
from pydantic import BaseModel

from checks import MODEL, check, end, ensure, missing, same

ASK = [{"role": "user", "content": "What is a Host?"}]
EXTENSIONS = {"pacer", "max_model_len", "prompt_logprobs", "reasoning_content"}


def unknown_fields(value, place):
    """Fields of a model that its type does not have."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            if name not in EXTENSIONS:
                yield f"{place}.{name}"
        for name in type(value).model_fields:
            yield from unknown_fields(getattr(value, name, None), f"{place}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from unknown_fields(item, f"{place}.{index}")


def strict(model):
    """The model again, after strict validation of what the server sent."""
    sent = json.dumps(model.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False))
    again = type(model).model_validate_json(sent, strict=True)
    unknown = list(unknown_fields(again, type(model).__name__))
    ensure(not unknown, f"unknown fields: {unknown}")
    return model


FUNCTION = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}, "score": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["answer", "score"],
    "additionalProperties": False,
}


class Checks:
    def __init__(self, client):
        self.client = client

    def ask(self, **more):
        return self.client.chat.completions.create(**{"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 48, **more})

    def models(self):
        for model in self.client.models.list():
            strict(model)
        strict(self.client.models.retrieve(MODEL))

    def chat(self):
        plain = strict(self.ask(n=2, logprobs=True, top_logprobs=3))
        same(len(plain.choices), 2, "the number of choices")
        same(plain.choices[0].message.content, plain.choices[1].message.content, "a greedy answer's second choice")
        same(plain.usage.completion_tokens_details.reasoning_tokens, 0, "reasoning_tokens")

    def chat_stream(self):
        text, usage = "", None
        for chunk in self.ask(stream=True, logprobs=True, top_logprobs=1, stream_options={"include_usage": True}):
            strict(chunk)
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
        same(text, self.ask().choices[0].message.content, "the streamed text")
        ensure(usage.completion_tokens > 0, "there is no usage")

    def completions(self):
        strict(self.client.completions.create(model=MODEL, prompt="An epoch is", max_tokens=4, n=2, logprobs=2))
        # Not strictly: the first token has no log-probability, which OpenAI's server says by null and its types do not.
        whole = self.client.completions.create(model=MODEL, prompt=["An epoch is", "A Host is"], max_tokens=4, echo=True, logprobs=2, temperature=0)
        for choice in whole.choices:
            found = choice.logprobs
            written = [(at, token) for at, token in zip(found.text_offset, found.tokens) if not token.startswith("<|")]
            same("".join(token for _, token in written), choice.text, "the tokens joined")
            ensure(found.token_logprobs[0] is None and all(value <= 0 for value in found.token_logprobs[1:]), "a value is wrong")
            ensure(all(choice.text.encode()[at:].startswith(token.encode()) for at, token in written), "an offset is wrong")
        pieces = self.client.completions.create(model=MODEL, prompt="An epoch is", max_tokens=4, temperature=0, stream=True)
        # Nor here: only the last chunk has a finish reason.
        text = "".join(choice.text for chunk in pieces for choice in chunk.choices)
        same("An epoch is" + text, whole.choices[0].text, "the streamed text")

    def prompt_logprobs(self):
        answer = strict(self.ask(max_tokens=1, extra_body={"prompt_logprobs": 2}))
        found = answer.prompt_logprobs
        same(len(found), answer.usage.prompt_tokens, "the number of positions")
        ensure(found[0] is None and all(any(e["rank"] == 1 for e in position.values()) for position in found[1:]), f"wrong: {found}")

    def embeddings(self):
        texts = ["What is a Host?", "What is a Host", "An epoch is"]
        # The client asks for base64 unless told otherwise, and unpacks it.
        unpacked = strict(self.client.embeddings.create(model=MODEL, input=texts))
        plain = strict(self.client.embeddings.create(model=MODEL, input=texts, encoding_format="float"))
        vectors = [item.embedding for item in plain.data]
        same([item.index for item in plain.data], [0, 1, 2], "the order")
        ensure(all(abs(a - b) < 1e-6 for x, y in zip(unpacked.data, plain.data) for a, b in zip(x.embedding, y.embedding)), "base64 is not the same")
        dot = lambda a, b: sum(x * y for x, y in zip(a, b))
        ensure(abs(dot(vectors[0], vectors[0]) - 1) < 1e-4, "not of length one")
        ensure(dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]), "what is nearly the same is no nearer")
        short = self.client.embeddings.create(model=MODEL, input=texts[0], dimensions=8, encoding_format="float").data[0].embedding
        ensure(len(short) == 8 and abs(dot(short, short) - 1) < 1e-4, "not shortened")

    def responses(self):
        whole = strict(self.client.responses.create(model=MODEL, input="What is a Host?", temperature=0, max_output_tokens=48, include=["message.output_text.logprobs"], top_logprobs=2))
        same(whole.output_text, self.ask().choices[0].message.content, "the text")
        text, last = "", None
        with self.client.responses.stream(model=MODEL, input="What is a Host?", temperature=0, max_output_tokens=48) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    text += event.delta
            last = stream.get_final_response()
        same((text, last.status), (whole.output_text, whole.status), "the streamed response")
        kinds = []
        for event in self.client.responses.create(model=MODEL, input="What is a Host?", temperature=0, max_output_tokens=4, stream=True):
            strict(event)
            kinds.append(event.type)
        same((kinds[0], kinds[-1]), ("response.created", "response.incomplete"), "the first and the last event")
        again = [{"role": "user", "content": "Hi"}, *whole.output, {"role": "user", "content": "What is a Host?"}]
        strict(self.client.responses.create(model=MODEL, input=again, max_output_tokens=4))
        return {"text": text}

    def formats(self):
        for kind in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}):
            answer = strict(self.ask(response_format=kind, max_tokens=400, temperature=1, seed=3)).choices[0]
            if kind["type"] == "json_schema":
                value = json.loads(answer.message.content)
                ensure(value["answer"] in ("yes", "no") and 0 <= value["score"] <= 9, f"{value} does not fit")

        class Verdict(BaseModel):
            answer: bool
            score: Literal[1, 2, 3]

        parsed = self.client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Verdict, max_tokens=400)
        ensure(isinstance(parsed.choices[0].message.parsed, Verdict), "it was not parsed")
        for more, fits in (
            ({"guided_choice": ["left", "right"]}, lambda text: text in ("left", "right")),
            ({"guided_regex": "[0-9]{3}-[ab]"}, lambda text: len(text) == 5 and text[:3].isdigit()),
            ({"guided_json": SCHEMA}, lambda text: json.loads(text)["answer"] in ("yes", "no")),
            ({"guided_grammar": 'start: "<" /[a-c]{2}/ ">"'}, lambda text: len(text) == 4 and text[0] == "<"),
            ({"structured_outputs": {"choice": ["up", "down"]}}, lambda text: text in ("up", "down")),
        ):
            text = strict(self.ask(extra_body=more, temperature=1, seed=1, max_tokens=400)).choices[0].message.content
            ensure(fits(text), f"{more} gave {text!r}")
        formed = strict(self.client.responses.create(model=MODEL, input="Yes?", max_output_tokens=400, text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}))
        ensure(json.loads(formed.output_text)["answer"] in ("yes", "no"), formed.output_text)

    def tools(self):
        tools = [{"type": "function", "function": FUNCTION}]
        for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
            answer = strict(self.ask(tools=tools, tool_choice=choice, max_tokens=500, parallel_tool_calls=False)).choices[0]
            same(answer.finish_reason, "tool_calls", "the finish reason")
            call = answer.message.tool_calls[0]
            same(call.function.name, "get_weather", "the function")
            arguments = json.loads(call.function.arguments)
            ensure(arguments["city"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 9, f"{arguments} do not fit")
        streamed = ""
        for chunk in self.ask(tools=tools, tool_choice="required", max_tokens=500, parallel_tool_calls=False, stream=True):
            for delta in (one for choice in strict(chunk).choices for one in choice.delta.tool_calls or []):
                streamed += delta.function.arguments or ""
        same(json.loads(streamed), arguments, "the streamed arguments")
        turns = [*ASK, answer.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        try:
            strict(self.ask(messages=turns, tools=tools, tool_choice="none", max_tokens=8))
        except openai.BadRequestError as error:
            # Whether there is such a role is for the model's template to say, in its own words.
            ensure("role" in error.message and error.param == "messages", f"it is {error}")
        flat = [{"type": "function", **FUNCTION, "strict": True}]
        response = strict(self.client.responses.create(model=MODEL, input="Weather?", tools=flat, tool_choice="required", max_output_tokens=500, parallel_tool_calls=False))
        same([item.type for item in response.output], ["function_call"], "the items")
        for event in self.client.responses.create(model=MODEL, input="Weather?", tools=flat, tool_choice="required", max_output_tokens=500, stream=True):
            strict(event)

    def errors(self):
        for wish, kind, param in (
            ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
            ({"temperature": -1}, openai.BadRequestError, "temperature"),
            ({"model": "none"}, openai.NotFoundError, "model"),
            ({"tools": [{"type": "x"}]}, openai.BadRequestError, "tools.0"),
            ({"messages": "x"}, openai.BadRequestError, "messages"),
            ({"extra_headers": {"authorization": "Bearer wrong"}}, openai.AuthenticationError, None),
        ):
            try:
                self.ask(**wish)
            except kind as error:
                same(error.param, param, f"the field of {wish}")
                ensure(error.request_id, "there is no request id")
            else:
                raise AssertionError(f"{wish} should have failed")


def main():
    address = os.environ.get("PACER_ENGINE_API")
    if not address:
        missing("PACER_ENGINE_API is not set")
    client = openai.OpenAI(base_url=address, api_key=os.environ.get("PACER_API_KEY", "none"), max_retries=0, timeout=120)
    checks = Checks(client)
    wanted = ["models", "chat", "chat_stream", "completions", "prompt_logprobs", "embeddings", "responses", "formats", "tools", "errors"]
    for name in os.environ.get("PACER_CHECKS", ",".join(wanted)).split(","):
        check(name.replace("_", " "), getattr(checks, name))
    end()


if __name__ == "__main__":
    main()
