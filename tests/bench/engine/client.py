"""A client that asks servers of the OpenAI API and keeps the time. As lean as can be: it shares the cores.

Answers are streamed; each event that carries text has its time. How many tokens there were, the server says at the end
(`usage`); where an event holds several, they share its time.
"""
import asyncio
import http.client
import json
import random
import time
from urllib.parse import urlsplit

LIMIT_S = 240
PREFIX = 1024


class Answer:
    """Times of one answer, in seconds of `time.perf_counter`."""

    def __init__(self):
        self.sent = time.perf_counter()
        self.events, self.tokens, self.error = [], 0, None

    @property
    def ttft(self):
        return self.events[0] - self.sent


async def ask(url, body):
    """Sends one request and reads its stream to the end."""
    where, answer = urlsplit(url), Answer()
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 20)
    try:
        text = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        )
        answer.sent = time.perf_counter()
        writer.write(head.encode() + text)
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status.decode().strip()}: {(await reader.read(2000)).decode(errors='replace')[-400:]}")
        last = b""
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                # Neither the usage nor the end of an answer carries a token.
                if b'"choices":[]' not in line and b'"finish_reason":"' not in line:
                    answer.events.append(time.perf_counter())
                if b'"usage":{' in line or b'"usage": {' in line:
                    last = line
                elif b'"error"' in line[:12]:
                    raise RuntimeError(line.decode()[:400])
        answer.tokens = json.loads(last[6:])["usage"]["completion_tokens"] if last else len(answer.events)
        if not answer.events:
            raise RuntimeError("an answer without text")
        return answer
    finally:
        writer.close()


def together(url, bodies, starts=None):
    """All requests at once, or each at its second after the start."""

    async def later(body, wait):
        await asyncio.sleep(wait)
        return await ask(url, body)

    async def all_of_them():
        waits = starts or [0] * len(bodies)
        return await asyncio.wait_for(asyncio.gather(*map(later, bodies, waits)), LIMIT_S)

    return asyncio.run(all_of_them())


class Load:
    """Makes requests: the same ones for every server, never the same twice for one."""

    def __init__(self, model, vocab, seed):
        self.model, self.vocab, self.draw = model, vocab, random.Random(seed)

    def prompt(self, tokens):
        # Words: the first 256 tokens are bytes, and half a character is text that a server holds back.
        return [self.draw.randrange(256, self.vocab) for _ in range(tokens)]

    def body(self, prompt, tokens, **extra):
        return {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **extra}

    def warm_up(self, url):
        """What a program does once in its life should not fall on the first thing that is measured."""
        together(url, [self.body(self.prompt(32), 8) for _ in range(8)])

    def decode(self, url, batch, tokens, **extra):
        answers = together(url, [self.body(self.prompt(32), tokens, **extra) for _ in range(batch)])
        start, end = max(a.events[0] for a in answers), min(a.events[-1] for a in answers)
        if start >= end:
            raise RuntimeError("some answers ended before others began: ask for longer ones")
        # As in systems.py: a client that slept through the answers knows nothing of their speed.
        if end - start < 0.1 * (end - min(a.sent for a in answers)):
            raise RuntimeError("the tokens' times came in a heap: the machine is too busy to measure")
        counted = sum(a.tokens / len(a.events) * sum(start < t <= end for t in a.events) for a in answers)
        return {"tokens_per_s": counted / (end - start)}

    def prefill(self, url, tokens):
        (answer,) = together(url, [self.body(self.prompt(tokens), 2)])
        return {"tokens_per_s": tokens / answer.ttft, "ttft_ms": answer.ttft * 1e3}

    def mixed(self, url, requests, per_second):
        """Poisson arrivals; prompts of 64 to 512 tokens, answers of 16 to 64."""
        starts, at = [], 0.0
        for _ in range(requests):
            starts.append(at)
            at += self.draw.expovariate(per_second)
        bodies = [self.body(self.prompt(self.draw.randint(64, 512)), self.draw.randint(16, 64)) for _ in range(requests)]
        began = time.perf_counter()
        answers = together(url, bodies, starts)
        seconds = time.perf_counter() - began
        first = sorted(a.ttft * 1e3 for a in answers)
        gaps = sorted((b - a) * 1e3 for answer in answers for a, b in zip(answer.events, answer.events[1:]))
        return {"tokens_per_s": sum(a.tokens for a in answers) / seconds, **spread("ttft_ms", first), **spread("itl_ms", gaps)}

    def prefix(self, url, requests):
        """Requests one after the other that share a long beginning, the first of them not counted. Speed is of all
        tokens that were asked for or answered, those from the cache included."""
        shared = self.prompt(PREFIX)
        together(url, [self.body(shared + self.prompt(32), 2)])
        began, first, tokens = time.perf_counter(), [], 0
        for _ in range(requests):
            (answer,) = together(url, [self.body(shared + self.prompt(32), 16)])
            first.append(answer.ttft * 1e3)
            tokens += PREFIX + 32 + answer.tokens
        return {"tokens_per_s": tokens / (time.perf_counter() - began), **spread("ttft_ms", sorted(first))}

    def verify(self, url, batch, tokens):
        """Generating recorded answers, and then what checking one of them takes. Pacer only."""
        prompts = [self.prompt(32) for _ in range(batch)]
        bodies = [
            {**self.body(p, tokens, pacer={"inference_id": f"{self.draw.getrandbits(256):064x}"}), "temperature": 1, "stream": False}
            for p in prompts
        ]
        began = time.perf_counter()
        answers = asyncio.run(posts(url, "/v1/completions", bodies))
        generated = time.perf_counter() - began
        checks = []
        for prompt, answer in list(zip(prompts, answers))[:4]:
            ask_for = {"artifact": answer["pacer"]["artifact"], "prompt_token_ids": prompt}
            began = time.perf_counter()
            verdict = call(url, "/verify", ask_for)
            checks.append(time.perf_counter() - began)
            if verdict.get("fault") or verdict["tokens"] != tokens:
                raise RuntimeError(f"an honest answer was found wrong: {verdict}")
        check, made = sorted(checks)[len(checks) // 2], generated / batch
        return {"tokens_per_s": tokens / check, "generate_s": generated, "verify_s": check, "verify_to_generate": check / made}


async def posts(url, path, bodies):
    """Several at once, each in a thread: these answers are long, not many."""
    return await asyncio.gather(*(asyncio.to_thread(call, url, path, body) for body in bodies))


def call(url, path, body):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=LIMIT_S)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {text[:400].decode(errors='replace')}")
        return json.loads(text)
    finally:
        connection.close()


def spread(name, ordered):
    at = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
    return {f"{name}_p50": at(0.5), f"{name}_p95": at(0.95), f"{name}_p99": at(0.99)}
