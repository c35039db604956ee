"""The official OpenAI client for Python against a Pacer network and against an engine alone.

Environment: PACER_API (http://host:port/v1) with PACER_API_KEY, PACER_PROXY_API (of `pacer-agent proxy`),
PACER_ENGINE_API; at least one of the three addresses.
PACER_MODEL names the model (pacer-demo). Prints a line of JSON per check; fails if one of them does.
"""

import asyncio
import os

import openai

from checks import MODEL, check, end, ensure, missing, same

MESSAGES = [{"role": "user", "content": "What is a Host?"}]
SETTINGS = {"max_retries": 0, "timeout": 120}


def failure(kind, request, what):
    """The error that a request ends with, which must be of this kind."""
    try:
        request()
    except kind as error:
        return error
    raise AssertionError(f"{what} should have failed")


class Server:
    """The checks against one server."""

    def __init__(self, name, base_url, api_key):
        self.name, self.base_url, self.api_key = name, base_url, api_key
        self.client = openai.OpenAI(base_url=base_url, api_key=api_key, **SETTINGS)
        self.answer, self.tokens = "", 0

    def ask(self, **more):
        wish = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 64, **more}
        return self.client.chat.completions.create(**wish)

    def models(self):
        names = [model.id for model in self.client.models.list()]
        ensure(MODEL in names, f"{MODEL} is not among {names}")
        return {"names": names}

    def chat(self):
        response = self.ask()
        choice, usage = response.choices[0], response.usage
        ensure(choice.message.content.strip(), "the answer is empty")
        same(choice.finish_reason, "stop", "the finish reason")
        same(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total_tokens")
        self.answer, self.tokens = choice.message.content, usage.completion_tokens
        return {"answer": self.answer, "completion_tokens": self.tokens}

    def streamed(self):
        text, pieces, reason, usage = "", 0, None, None
        for chunk in self.ask(stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                if choice.delta.content:
                    text, pieces = text + choice.delta.content, pieces + 1
                reason = choice.finish_reason or reason
            usage = chunk.usage or usage
        same(text, self.answer, "the text")
        same(reason, "stop", "the finish reason")
        ensure(pieces > 1, "it came in one piece")
        ensure(usage is not None, "the usage is missing")
        same(usage.completion_tokens, self.tokens, "completion_tokens")
        return {"pieces": pieces}

    def helper(self):
        """The client's own helper puts a stream together again."""
        wish = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 64}
        with self.client.chat.completions.stream(**wish) as stream:
            for _ in stream:
                pass
            same(stream.get_final_completion().choices[0].message.content, self.answer, "the text")

    def logprobs(self):
        choice = self.ask(logprobs=True, top_logprobs=2).choices[0]
        tokens = choice.logprobs.content
        same("".join(token.token for token in tokens), choice.message.content, "the tokens joined")
        ensure(all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens), "a value is wrong")
        return {"tokens": len(tokens)}

    def seeds(self):
        def hot(seed, temperature):
            return self.ask(seed=seed, temperature=temperature, max_tokens=24).choices[0].message.content

        text = hot(11, 0.8)
        same(hot(11, 0.8), text, "the second answer with the same seed")
        others = {hot(seed, 2) for seed in (1, 2, 3, 4)}
        ensure(len(others) > 1, "four seeds at temperature 2 gave one answer")
        return {"text": text, "answers_of_four_seeds": len(others)}

    def stop(self):
        words = self.answer.split()
        stop = words[min(4, len(words) - 1)]
        choice = self.ask(stop=stop).choices[0]
        same(choice.message.content, self.answer[: self.answer.index(stop)], "the text")
        same(choice.finish_reason, "stop", "the finish reason")
        return {"stop": stop}

    def limit(self):
        response = self.ask(max_tokens=3)
        same(response.choices[0].finish_reason, "length", "the finish reason")
        same(response.usage.completion_tokens, 3, "completion_tokens")

    def completions(self):
        response = self.client.completions.create(model=MODEL, prompt="An epoch is", temperature=0, max_tokens=8)
        ensure(response.choices[0].text, "the text is empty")
        return {"text": response.choices[0].text}

    def at_once(self):
        async def ask_all():
            wish = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
            async with openai.AsyncOpenAI(base_url=self.base_url, api_key=self.api_key, **SETTINGS) as client:
                return await asyncio.gather(*(client.chat.completions.create(**wish) for _ in range(4)))

        for response in asyncio.run(ask_all()):
            ensure(self.answer.startswith(response.choices[0].message.content), "an answer differs")

    def unknown_model(self):
        error = failure(openai.NotFoundError, lambda: self.ask(model="no-such-model"), "an unknown model")
        same(error.code, "model_not_found", "the code")
        return {"message": error.message}

    def nonsense(self):
        error = failure(openai.BadRequestError, lambda: self.ask(max_tokens=0), "a request for no tokens")
        return {"message": error.message}

    def wrong_key(self):
        stranger = openai.OpenAI(base_url=self.base_url, api_key="sk-not-a-key", **SETTINGS)
        request = {"model": MODEL, "messages": MESSAGES, "max_tokens": 8}
        error = failure(openai.AuthenticationError, lambda: stranger.chat.completions.create(**request), "a wrong key")
        same(error.code, "invalid_api_key", "the code")
        return {"message": error.message}

    def run(self, key_is_checked):
        first = [("models.list names the model", self.models), ("chat answers", self.chat)]
        rest = [
            ("a streamed chat gives the same answer in pieces", self.streamed),
            ("the client's stream helper works", self.helper),
            ("logprobs come with every token", self.logprobs),
            ("a seed makes a hot answer repeatable", self.seeds),
            ("a stop string ends the answer before it", self.stop),
            ("max_tokens ends the answer", self.limit),
            ("completions go on with a text", self.completions),
            ("requests at the same time are all answered", self.at_once),
            ("an unknown model is a 404", self.unknown_model),
            ("nonsense is a 400", self.nonsense),
        ]
        if key_is_checked:
            rest.append(("a wrong API key is a 401", self.wrong_key))
        # Without an answer the rest has nothing to compare with.
        if all([check(f"{self.name}: {name}", body)["ok"] for name, body in first]):
            for name, body in rest:
                check(f"{self.name}: {name}", body)


def main():
    network, proxy, engine = (os.environ.get(f"PACER_{name}") for name in ("API", "PROXY_API", "ENGINE_API"))
    if not network and not proxy and not engine:
        missing("no address is set")
    # The client insists on a key; a proxy, which signs, and an engine without one do not look at it.
    if engine:
        Server("engine", engine, "none").run(key_is_checked=False)
    if proxy:
        Server("proxy", proxy, "none").run(key_is_checked=False)
    if network:
        Server("network", network, os.environ["PACER_API_KEY"]).run(key_is_checked=True)
    end()


if __name__ == "__main__":
    main()
