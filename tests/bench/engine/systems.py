"""The programs that are measured: started, held still while another one has its turn, asked, and ended.

Two kinds. A *worker* holds a model and answers cases on stdin (`pacer-engine bench`, torch_worker.py); llama.cpp's
batched-bench has no such mode and is started anew for its turn. A *server* listens; client.py asks it.
"""
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
import urllib.request

PRCTL = ctypes.CDLL(None).prctl
START_S = 300
CASE_S = 240
# Part of a case that its measured part must be.
LEAST_SHARE = 0.1


class Failed(Exception):
    """A system that cannot go on, or a case that it cannot do."""


def environment(policy):
    """Memory in huge pages for everybody; threads that stay on their core, and wait as `policy` says."""
    return {
        **os.environ, "OMP_WAIT_POLICY": policy, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "OMP_PROC_BIND": "close",
        "OMP_PLACES": "cores", "RUST_LOG": "warn", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    }


def peak_mib(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def die_with_parent():
    """In a child: whoever is held still must not outlive this program and its memory."""
    PRCTL(1, signal.SIGKILL)


class Process:
    """A child that can be held still."""

    def __init__(self, command, policy, log, **pipes):
        self.policy, self.log = policy, open(log, "ab")
        self.child = subprocess.Popen(command, env=environment(policy), stderr=self.log, preexec_fn=die_with_parent, **pipes)
        self.peak = None

    def hold(self):
        self.peak = peak_mib(self.child.pid) or self.peak
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self):
        if self.child.poll() is not None:
            raise Failed(f"it ended with status {self.child.returncode}; see {self.log.name}")
        self.child.send_signal(signal.SIGCONT)

    def end(self):
        self.peak = peak_mib(self.child.pid) or self.peak
        if self.child.poll() is None:
            self.child.kill()
            self.child.send_signal(signal.SIGCONT)
        self.child.wait()
        self.log.close()


class Worker(Process):
    """Answers cases one at a time. Held still between them."""

    def __init__(self, command, policy, log):
        super().__init__(command, policy, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.rest = b""
        try:
            self.facts = self.line(START_S)
        except Failed:
            self.end()
            raise
        self.hold()

    def line(self, limit_s):
        until = time.monotonic() + limit_s
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.child.stdout], [], [], max(0, until - time.monotonic()))
            if not ready:
                self.child.kill()
                raise Failed(f"no answer in {limit_s} s")
            data = os.read(self.child.stdout.fileno(), 1 << 16)
            if not data:
                raise Failed(f"it ended with status {self.child.wait()}; see {self.log.name}")
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def case(self, case, checked=True):
        """Not `checked`: the case may take longer than what it measures, as the first one loads the model."""
        self.go_on()
        began = time.monotonic()
        try:
            self.child.stdin.write(case.encode() + b"\n")
            self.child.stdin.flush()
            found = self.line(CASE_S)
        except BrokenPipeError:
            raise Failed(f"it is gone; see {self.log.name}") from None
        self.hold()
        if "error" in found:
            raise Failed(found["error"])
        # On a busy machine whoever keeps the time may wake up when all is done; what it then says is no speed.
        if checked and case.startswith("decode") and found["seconds"] < LEAST_SHARE * (time.monotonic() - began):
            raise Failed("the tokens' times came in a heap: the machine is too busy to measure")
        return found


class LlamaBench:
    """llama.cpp without its server. Its log is written by a thread that the program does not wait for at its end, so the
    last line is lost now and then: a small measurement comes behind the one that counts."""

    def __init__(self, program, model, threads, policy, log):
        self.program, self.model, self.threads, self.policy, self.log = program, model, threads, policy, log
        self.peak, self.facts = None, {}
        if not os.access(program, os.X_OK):
            raise Failed(f"{program} is not there")

    def case(self, case, checked=True):
        kind, *numbers = case.split(":")
        batch, prompt, tokens = (int(numbers[0]), 32, int(numbers[1])) if kind == "decode" else (1, int(numbers[0]), 1)
        prompts, answers = (str(prompt), f"{tokens},1") if kind == "decode" else (f"{prompt},16", "1")
        # Every sequence has a part of its own in the cache, of a multiple of 256 tokens.
        room = batch * -(-(prompt + tokens) // 256) * 256
        command = [self.program, "-m", self.model, "-c", str(room), "-b", "2048", "-ub", "512", "-npp", prompts, "-ntg", answers,
                   "-npl", str(batch), "-t", str(self.threads), "-lm", "none", "--output-format", "jsonl"]
        with open(self.log, "ab") as log:
            child = subprocess.Popen(command, env=environment(self.policy), stdout=subprocess.PIPE, stderr=log, text=True,
                                     preexec_fn=die_with_parent)
            limit = threading.Timer(CASE_S, child.kill)
            limit.start()
            try:
                out = child.stdout.read()
                # The kernel's word about this child alone, which `wait` does not pass on.
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
            finally:
                limit.cancel()
                child.stdout.close()
        self.peak = max(self.peak or 0, usage.ru_maxrss / 1024)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        lines = [line for line in lines if line["pp"] == prompt and line["tg"] == tokens]
        if child.returncode != 0 or not lines:
            raise Failed(f"it ended with status {child.returncode} and without its line; see {self.log}")
        line = lines[0]
        speed = line["speed_tg"] if kind == "decode" else line["speed_pp"]
        return {"tokens_per_s": speed}

    def hold(self):
        pass

    def end(self):
        pass


class Server(Process):
    """A program that listens on a port of its own. `command` takes the port."""

    def __init__(self, command, policy, log):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        super().__init__(command(self.port), policy, log, stdout=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}"
        until = time.monotonic() + START_S
        while True:
            if self.child.poll() is not None or time.monotonic() > until:
                self.end()
                raise Failed(f"it does not come up (status {self.child.returncode}); see {log}")
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.1)
        self.hold()


class Foreign:
    """How much of the machine others used while something was measured: the share of all processor time that was
    neither idle nor of this process and its children."""

    def __init__(self, pids):
        self.pids = pids
        self.start = self.now()

    def now(self):
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        all_time = sum(fields)
        idle = fields[3] + fields[4]
        own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    parts = stat.read().rsplit(")", 1)[1].split()
                own += int(parts[11]) + int(parts[12])
            except OSError:
                pass
        return all_time, idle, own

    def share(self):
        all_time, idle, own = (after - before for before, after in zip(self.start, self.now()))
        return max(0.0, (all_time - idle - own) / all_time) if all_time > 0 else 0.0
