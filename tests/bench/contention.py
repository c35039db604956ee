"""Does a race delay users?  Time to the first token of requests to `pacer-engine serve`, with and without a race.

Both conditions in turns, on one engine: short streamed completions, one after the other, with pauses of 30 to 80 ms in
which a race gets going again, so that every request meets one in the middle of a step. The prompts differ, so that no
cache answers. Also says how many nonces were tried meanwhile: a race that stood still would delay nobody.
"""
import http.client
import json
import random
import socket
import subprocess
import time

SEED, HOST = "11" * 32, "22" * 32
ROUNDS, REQUESTS = 6, 60
THRESHOLDS = {"dev": 155_029_188}  # one in 900; the others have 8,192 outputs
WIDE_THRESHOLD = 4_903_485


class Server:
    """An engine that serves a model on a port of its own."""

    def __init__(self, engine, model, device, threads):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [engine, "serve", "--model", str(model), "--served-model-name", "bench", "--port", str(self.port), "--device", device]
        if device == "cpu":
            command += ["--threads", str(threads)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        limit = time.monotonic() + 120
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                if self.call("GET", "/health")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        raise RuntimeError("the engine did not come up")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def first_token_ms(self, number):
        """Milliseconds from sending a request to the first piece of its answer."""
        prompt = f"Question {number}: what does a Host on the network do between two races, and who checks its answers?"
        body = {"model": "bench", "prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": True, "ignore_eos": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            started = time.perf_counter()
            connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            first = None
            for line in answer:
                if first is None and line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                    first = (time.perf_counter() - started) * 1e3
            if answer.status != 200 or first is None:
                raise RuntimeError(f"the engine answered with {answer.status}")
            return first
        finally:
            connection.close()

    def race(self, preset):
        threshold = THRESHOLDS.get(preset, WIDE_THRESHOLD)
        status, text = self.call("POST", "/sprint/start", {"preset": preset, "seed": SEED, "host": HOST, "threshold": threshold})
        if status != 200:
            raise RuntimeError(f"no race: {text.decode()}")

    def tried(self):
        return int(json.loads(self.call("GET", "/sprint/status")[1])["tried"])


def percentiles(times):
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
    return {"p50": at(0.5), "p99": at(0.99), "max": times[-1]}


def measure(engine, model, preset, device="cpu", threads=2):
    """Times to the first token in milliseconds, idle and racing, and the nonces a second between requests."""
    draw, number = random.Random(1), 0
    idle, racing, nonces, seconds = [], [], 0, 0.0

    def requests(times):
        nonlocal number
        for _ in range(REQUESTS):
            time.sleep(draw.uniform(0.03, 0.08))
            number += 1
            times.append(server.first_token_ms(number))

    with Server(engine, model, device, threads) as server:
        requests([])
        for _ in range(ROUNDS):
            requests(idle)
            server.race(preset)
            # The race derives its weights and finds its batch first.
            until = time.monotonic() + 120
            while server.tried() == 0 and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(1)
            before, started = server.tried(), time.monotonic()
            requests(racing)
            nonces, seconds = nonces + server.tried() - before, seconds + time.monotonic() - started
            server.call("POST", "/sprint/stop")
    if nonces == 0:
        raise RuntimeError("the race stood still")
    rate = nonces / seconds
    return {"preset": preset, "requests": len(racing), "ttft_idle_ms": percentiles(idle), "ttft_racing_ms": percentiles(racing), "nonces_per_s": rate}
