"""What is measured on one checkpoint, in which order, and what it means.

A *case* has a label, a number of answers at once, and for each place (`process`, `server`) what a system of that place is
asked to do. A *round* goes through all cases and asks every system once, one after the other, all others held still. Their
turns are shuffled, anew for each case and round: nobody is always the first on a rested machine.
"""
import pathlib
import random
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from typing import Callable, Optional

import checkpoints
from client import Load
from systems import Failed, LlamaBench, Server, Worker

POLICIES = ["PASSIVE", "ACTIVE"]


@dataclass(frozen=True)
class Case:
    group: str
    label: str
    batch: int
    # For a worker: its words for it. For a server: a function of (load, url).
    worker: Optional[str] = None
    server: Optional[Callable] = None
    # Shares of the rounds it is measured in; long ones are not measured in all.
    every: int = 1
    only: tuple = ()
    # Tokens in the cache of each answer half way, for the bound.
    context: int = 0


@dataclass
class System:
    name: str
    shown: str
    where: str
    precision: str
    make: Callable
    only: tuple = ()
    every: int = 1
    policy: Optional[str] = None
    running: object = None
    budget_mib: Optional[float] = None
    peak: Optional[float] = None
    broken: Optional[str] = None
    twin: Optional[str] = None
    version: Optional[str] = None
    facts: dict = field(default_factory=dict)


class Plan:
    def __init__(self, model, folder, args, peers, say):
        self.model, self.folder, self.args, self.peers, self.say = model, pathlib.Path(folder), args, peers, say
        self.logs = args.out.parent / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.found, self.bandwidths, self.products = {}, [], {512: [], 2048: []}
        self.quick, self.big = args.quick, model != "0.5b"
        groups = args.cases.split(",")
        self.cases = [case for case in self.all_cases() if case.group in groups]
        wanted = {where for case in self.cases for where, how in (("process", case.worker), ("server", case.server)) if how}
        chosen = [name for name in args.systems.split(",") if name]
        systems = [s for s in self.all_systems() if s.where == "probe" or s.where in wanted and (not chosen or s.shown in chosen)]
        self.systems = {system.name: system for system in systems}

    # What there is to measure.

    def all_cases(self):
        few = self.quick or self.big
        n, n32 = (32, 16) if few else (64, 32)
        for batch, tokens in ((1, n), (8, n), (32, n32)):
            yield Case("decode", f"decode batch {batch}", batch, f"decode:{batch}:{tokens}",
                       lambda load, url, b=batch, t=tokens: load.decode(url, b, t), context=32 + tokens // 2)
        for tokens in (512, 2048):
            yield Case("prefill", f"prefill {tokens}", 1, f"prefill:{tokens}",
                       lambda load, url, t=tokens: load.prefill(url, t), every=1 if tokens == 512 else 2)
        for batch, tokens in ((1, n), (32, n32)):
            yield Case("seeding", f"seeded decode batch {batch}", batch, f"decode:{batch}:{tokens}:seeded", only=("pacer",))
            yield Case("artifacts", f"recorded decode batch {batch}", batch, f"decode:{batch}:{tokens}:recorded", only=("pacer",))
        requests, rate = (8 if few else 24), (0.3 if self.big else 0.8)
        yield Case("mixed", f"mixed load, {rate} requests/s", requests, server=lambda load, url: load.mixed(url, requests, rate), every=3)
        yield Case("prefix", "shared prefix of 1,024", 1, server=lambda load, url: load.prefix(url, 3 if few else 6), every=2)
        for batch, every in ((1, 2), (32, 5)):
            if batch == 1 or not few:
                yield Case("verify", f"verify 256 tokens made at batch {batch}", batch,
                           server=lambda load, url, b=batch: load.verify(url, b, 256), every=every, only=("pacer",))
        # The likeliest words of random weights repeat, so every guess is right; drawn ones never do, and none is.
        for text, temperature in (("repeats", 0), ("never repeats", 1)):
            yield Case("speculation", f"speculation, a text that {text}", 1, only=("pacer", "pacer n-gram"),
                       server=lambda load, url, t=temperature: load.decode(url, 1, n, temperature=t))

    def all_systems(self):
        engine, threads, folder = str(self.args.engine), str(self.args.threads), str(self.folder)
        torch, llama = self.peers["torch"], pathlib.Path(self.peers["llama"])
        bf16, q8 = str(self.folder / "model-bf16.gguf"), str(self.folder / "model-q8_0.gguf")
        log = lambda name: str(self.logs / f"{self.model}-{name}.log")
        here = pathlib.Path(__file__).parent

        def worker(command, name):
            return lambda policy: Worker(command, policy, log(name))

        def server(command, name):
            return lambda policy: Server(command, policy, log(name))

        pacer = [engine, "bench", "--stdin", "--json", "--model", folder, "--threads", threads, "--device", "cpu"]
        # Probes in a process of their own: they take memory.
        yield System("probe", "probe", "probe", "bf16", worker([*pacer, "--dtype", "bf16"], "probe"), policy=POLICIES[1])
        yield System("pacer", "pacer", "process", "bf16", worker([*pacer, "--dtype", "bf16"], "pacer"))
        llama_bench = lambda model, name: lambda policy: LlamaBench(str(llama / "llama-batched-bench"), model, threads, policy, log(name))
        release = f"llama-cpp-python {self.peers['llama_release']}"
        yield System("llama", "llama.cpp", "process", "bf16", llama_bench(bf16, "llama"), version=release)
        # All are in memory together: the larger shape in f32, in int8 and with guesses would not fit 24 GB beside the rest.
        for dtype in ("bf16",) if self.big else ("bf16", "f32"):
            command = [torch, str(here / "torch_worker.py"), "--model", folder, "--dtype", dtype, "--threads", threads]
            yield System(f"transformers-{dtype}", "transformers", "process", dtype, worker(command, f"transformers-{dtype}"),
                         every=1 if dtype == "bf16" else 3)
        # Candle has no products in bf16 on a CPU: it widens all weights to f32 in every step. In f16 as many bytes are read as by
        # the others; f32 would not fit beside them all. Its threads are not OpenMP's and wait in their own way.
        command = ["env", f"RAYON_NUM_THREADS={threads}", self.peers["candle"], "--model", folder, "--dtype", "f16"]
        yield System("candle-f16", "candle", "process", "f16", worker(command, "candle-f16"), every=3, policy="OWN")
        # Each server keeps room for as many tokens as any case wants, and one sequence may use 2,560 of them.
        serve = lambda extra: lambda port: [
            engine, "serve", "--model", folder, "--served-model-name", "bench", "--port", str(port), "--threads", threads,
            "--device", "cpu", "--dtype", "bf16", "--max-num-seqs", "32", "--max-model-len", "2560", "--kv-blocks", "1024", *extra]
        yield System("pacer-server", "pacer", "server", "bf16", server(serve([]), "pacer-server"), twin="pacer")
        llama_serve = lambda model: lambda port: [
            self.peers["llama_server"], "-m", model, "--alias", "bench", "--port", str(port), "-t", threads, "-np", "32",
            "-c", str(16 * 1024), "-kvu", "-lm", "none", "--cache-ram", "0", "--no-webui"]
        yield System("llama-server", "llama.cpp", "server", "bf16", server(llama_serve(bf16), "llama-server"), twin="llama", version=release)
        can = self.engine_options()
        if "int8" in can and not self.quick and not self.big:
            yield System("pacer-int8", "pacer", "server", "int8", server(serve(["--quantize", "int8"]), "pacer-int8"),
                         only=("decode", "prefill"), every=2, twin="pacer")
            yield System("llama-q8", "llama.cpp", "server", "q8_0", lambda policy: (self.quantise(q8), server(llama_serve(q8), "llama-q8")(policy))[1],
                         only=("decode", "prefill"), every=2, twin="llama", version=release)
        if "n-gram" in can and not self.big:
            yield System("pacer-ngram", "pacer n-gram", "server", "bf16", server(serve(["--speculate", "4"]), "pacer-ngram"),
                         only=("speculation",), every=2, twin="pacer")

    def engine_options(self):
        """What this engine can do beside: it says so in its help."""
        words = {"int8": "--quantize", "n-gram": "--speculate"}
        text = self.engine_says("serve", "--help")
        return [ability for ability, word in words.items() if word in text]

    def engine_says(self, *words):
        return subprocess.run([self.args.engine, *words], capture_output=True, text=True).stdout

    def quantise(self, file):
        if not pathlib.Path(file).exists():
            program = str(pathlib.Path(self.peers["llama"]) / "llama-quantize")
            done = subprocess.run([program, str(self.folder / "model-bf16.gguf"), file + ".part", "Q8_0", str(self.args.threads)], capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(f"llama-quantize: {done.stderr[-300:]}")
            pathlib.Path(file + ".part").rename(file)

    # Measuring it.

    def start(self):
        """Starts every system with the wait policy that suits it on this machine now."""
        for system in self.systems.values():
            twin = self.systems.get(system.twin)
            try:
                if twin and twin.policy or system.policy:
                    system.policy = system.policy or twin.policy
                    system.running = system.make(system.policy)
                else:
                    self.choose_policy(system)
                system.facts = getattr(system.running, "facts", {})
                system.version = system.version or system.facts.get("version") or self.engine_says("--version").split()[-1]
                if system.where == "server":
                    system.running.go_on()
                    Load("bench", self.vocab(), "warm-up").warm_up(system.running.url)
                    system.running.hold()
                if system.name == "pacer" and "kv_bytes" in system.facts:
                    system.budget_mib = (system.facts["weight_bytes"] + system.facts["kv_bytes"]) / 2**20
                self.say(f"{self.model}: {system.shown} {system.precision} ({system.where}) is up, waits {system.policy.lower()}")
            except Exception as error:  # as in `ask`
                self.give_up(system, error)
        self.compare()

    def compare(self):
        """A peer that does not compute the same model is not measured. What says so is the logits of a prompt."""
        case = "logits:" + ",".join(map(str, random.Random(self.model).sample(range(self.vocab()), 48)))
        rows = {}
        for system in self.systems.values():
            if system.running and system.shown in ("transformers", "candle"):
                try:
                    rows[system.name] = system.running.case(case)["logits"]
                except (Failed, OSError) as error:
                    self.give_up(system, error)
        truth = rows.get("transformers-f32") or rows.get("transformers-bf16")
        for name, row in rows.items() if truth else ():
            off = sum((a - b) ** 2 for a, b in zip(row, truth)) ** 0.5 / sum(b**2 for b in truth) ** 0.5
            self.say(f"{self.model}: {name}'s logits are {off:.1e} off")
            if not off < 0.1:
                self.give_up(self.systems[name], f"it computes another model: its logits are {off:.0%} off")

    def choose_policy(self, system):
        tried = {}
        policies = POLICIES if self.args.wait == "auto" else [self.args.wait.upper()]
        for policy in policies:
            running = system.make(policy)
            try:
                # The first case loads the model. Servers come here only without their like in this process; then sleeping
                # is as good a guess as any.
                trial = ("decode:1:12", "decode:8:8") if len(policies) > 1 else ("decode:1:2",)
                cases = () if isinstance(running, Server) else trial
                speeds = [running.case(case, checked=False)["tokens_per_s"] for case in cases] or [1.0]
            except BaseException:
                running.end()
                raise
            score = statistics.geometric_mean(speeds)
            if system.running is None or score > max(tried.values()):
                if system.running:
                    system.running.end()
                system.policy, system.running = policy, running
            else:
                running.end()
            tried[policy] = score

    def give_up(self, system, error):
        system.broken = str(error)
        self.say(f"{self.model}: {system.shown} {system.precision} ({system.where}) FAILED: {error}")
        if system.running:
            system.peak = system.running.peak or system.peak
            system.running.end()
            system.running = None

    def measure(self, until):
        """The first round whatever it takes, more until the time is over: each row tells its rounds."""
        for number in range(self.args.rounds):
            self.probe(first=number == 0)
            for case in self.cases:
                if number > 0 and time.monotonic() > until:
                    self.say(f"{self.model}: the time is over in round {number + 1} of {self.args.rounds}, before {case.label}")
                    self.probe(first=False)
                    return
                shown = []
                due = [system for system in self.systems.values() if self.is_due(case, system, number)]
                random.Random(f"{case.label} {number}").shuffle(due)
                for system in due:
                    found = self.ask(case, system, number)
                    self.found.setdefault((case, system.where, system.name), []).append(found)
                    shown.append(f"{system.name} {found.get('tokens_per_s', float('nan')):.1f}")
                if shown:
                    self.say(f"{self.model} round {number + 1}/{self.args.rounds}, {case.label}: {', '.join(shown)}")
        self.probe(first=False)

    def is_due(self, case, system, number):
        if system.where == "probe" or (case.worker if system.where == "process" else case.server) is None:
            return False
        if system.only and case.group not in system.only or case.only and system.shown not in case.only:
            return False
        if case.group == "speculation" and "pacer-ngram" not in self.systems:
            return False
        if system.broken and (case, system.where, system.name) in self.found:
            return False
        return number % case.every == 0 and number % system.every == 0

    def ask(self, case, system, number):
        if system.broken:
            return {"error": system.broken}
        try:
            if system.where == "process":
                return system.running.case(case.worker)
            system.running.go_on()
            # The same prompts for every server, others in every round.
            found = case.server(Load("bench", self.vocab(), f"{case.label} {number}"), system.running.url)
            system.running.hold()
            return found
        except Exception as error:  # one system's failure is its row's, and no other's
            child = getattr(system.running, "child", None)
            if child and child.poll() is not None or isinstance(error, TimeoutError):
                self.give_up(system, f"{type(error).__name__}: {error}")
            elif child:
                system.running.hold()
            return {"error": f"{error}"}

    def vocab(self):
        return checkpoints.SHAPES[self.model]["vocab_size"] - len(checkpoints.SPECIAL)

    def probe(self, first):
        """What the machine allows, by the engine's own probes."""
        system = self.systems["probe"]
        if not system.running:
            return
        try:
            self.bandwidths.append(system.running.case("bandwidth")["bytes_per_s"] / 1e9)
            for rows, speeds in self.products.items():
                if first or len(speeds) < 2:
                    speeds.append(system.running.case(f"products:{rows}")["tokens_per_s"])
        except (Failed, OSError) as error:
            self.give_up(system, error)

    def end(self):
        for system in self.systems.values():
            if system.running:
                system.running.end()
                system.peak = system.running.peak

    def pids(self):
        return [s.running.child.pid for s in self.systems.values() if s.running and hasattr(s.running, "child")]

    # What it means.

    def machine(self):
        return {
            "bandwidth_gb_per_s": statistics.median(self.bandwidths) if self.bandwidths else None,
            "bandwidths": self.bandwidths,
            "products_tokens_per_s": {rows: max(speeds) for rows, speeds in self.products.items() if speeds},
        }

    def bound(self, case, system):
        """Decoding reads all weights and the caches in every step; prefill has to do the layers' products."""
        facts = self.systems["probe"].facts
        if not facts:
            return None
        if case.group == "decode" and self.bandwidths:
            parameters, width = facts["parameters"], {"f32": 4, "bf16": 2, "f16": 2, "q8_0": 34 / 32, "int8": 1}[system.precision]
            kv = facts["kv_bytes_per_token"] * (2 if system.precision == "f32" else 1)
            step = parameters * width + case.batch * case.context * kv
            return statistics.median(self.bandwidths) * 1e9 / step * case.batch
        if case.group == "prefill" and system.precision == "bf16":
            speeds = self.products[int(case.label.split()[1])]
            return max(speeds) if speeds else None
        return None

    def compared(self, row, plain, rows):
        """The row of the same system without what this row is about."""
        if row["system"] == "pacer n-gram":
            return next((r for r in rows if (r["system"], r["where"], r["precision"], r["case"]) == ("pacer", "server", "bf16", row["case"])), None)
        if row["case"].startswith(("seeded", "recorded")):
            return plain.get((row["where"], row["batch"]))
        return None
