#!/usr/bin/env python3
"""How fast the race is: `make bench-sprint`. Everything in one run, engine and float side in turns; medians.

    sprint.py --engine PATH [--presets dev,bench] [--device cpu] [--threads 2] [--rounds 5] [--seconds 4]
              [--model DIR] [--out FILE]

Prints a table and writes FILE (target/bench/sprint.json): a list with an object a preset,

    preset, device, threads, batch          what was measured
    nonces_per_s                            of the whole race: inputs, network, permutation, verdict
    efficiency                              integer operations a second in the race over those of bare int8 products of
                                            the same shapes in the same process; the median of turns of 0.3 s
    step_p50_ms, step_p99_ms,               device time of the race's steps: on a CPU the processor time of a lane
    longest_step_ms
    weights_s, weights_cpu_s                deriving the weights, and the processor time of that
    vs_float                                nonces_per_s over those of the float transformer without norms (float_transformer.py)
    vs_float_with_norm                      and with them
    verify_ms_per_nonce                     recomputing one nonce of another Host
    seed_to_first_nonce_s                   from the seed to the first nonce that was tried
    peak_mib                                most memory the engine held
    shortcuts                               correlation of cheaper computations with the output
    contention                              time to the first token of a request with and without a race
                                            (contention.py), where it was asked for
    rounds, load                            what each round measured; the machine's load before and after

and whatever else the engine says of itself. Nothing else should run beside it: `load` tells.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


class Engine:
    """The engine's own measurements."""

    def __init__(self, path, device, threads):
        self.path, self.device, self.threads = path, device, threads

    def run(self, *arguments):
        done = subprocess.run([self.path, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout

    def objects(self, *arguments):
        return [json.loads(line) for line in self.run(*arguments).splitlines() if line.startswith("{")]

    def bench(self, preset, seconds, batch):
        arguments = ["sprint", "bench", "--json", "--preset", preset, "--seconds", str(seconds), "--device", self.device]
        if self.device == "cpu":
            arguments += ["--threads", str(self.threads)]
        if batch:
            arguments += ["--batch", str(batch)]
        return self.objects(*arguments)[-1]

    def shortcuts(self, preset):
        """Fails if a shortcut predicts the output."""
        return self.objects("sprint", "shortcuts", "--json", "--preset", preset)[-1]


def measure(engine, preset, args):
    """One preset: tunes the float side, then rounds of engine, float, float with norms."""
    from float_transformer import FloatTransformer

    model = FloatTransformer(preset, args.device)
    plain, normed = model.tune(False, args.seconds / 4), model.tune(True, args.seconds / 4)
    rounds, batch = [], None
    for _ in range(args.rounds):
        row = engine.bench(preset, args.seconds, batch)
        batch = row["batch"]
        row["float_nonces_per_s"] = model.nonces_per_s(*plain, False, args.seconds)
        row["float_with_norm_nonces_per_s"] = model.nonces_per_s(*normed, True, args.seconds)
        row["vs_float"] = row["nonces_per_s"] / row["float_nonces_per_s"]
        row["vs_float_with_norm"] = row["nonces_per_s"] / row["float_with_norm_nonces_per_s"]
        rounds.append(row)
        print(
            f"  {preset} round {len(rounds)}: {row['nonces_per_s']:.1f} nonces/s, efficiency {row['efficiency']:.3f}, "
            f"float {row['float_nonces_per_s']:.1f}, with norm {row['float_with_norm_nonces_per_s']:.1f}",
            file=sys.stderr,
        )
    numbers = [key for key, value in rounds[0].items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    whole = {key: median(row.get(key) for row in rounds) for key in numbers}
    for key in ["peak_mib", "longest_step_ms", "longest_step_wall_ms"]:
        whole[key] = max((row[key] for row in rounds if row.get(key) is not None), default=None)
    whole["float_batch"], whole["float_attention"] = plain
    kept = ["nonces_per_s", "efficiency", "vs_float", "float_nonces_per_s", "float_with_norm_nonces_per_s"]
    return {**rounds[0], **whole, "rounds": [{key: row[key] for key in kept} for row in rounds]}


def table(rows):
    keys = ["preset", "device", "nonces_per_s", "efficiency", "vs_float", "vs_float_with_norm", "verify_ms_per_nonce",
            "seed_to_first_nonce_s", "weights_s", "step_p99_ms", "longest_step_ms", "peak_mib"]
    show = lambda value: "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    lines = [keys] + [[show(row.get(key)) for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(keys))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description="How fast the race is")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--presets", default="dev,bench")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--shortcuts", default="dev,bench", help="presets whose shortcuts are tried")
    parser.add_argument("--contention", default="bench", help="presets raced beside requests")
    parser.add_argument("--model", type=pathlib.Path, help="a model to serve meanwhile; without one that part is left out")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/bench/sprint.json"))
    args = parser.parse_args()

    # As the engine does for itself: threads that spin while they wait are at each other's throats on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(args.threads)
    engine = Engine(args.engine, args.device, args.threads)
    rows = []
    for preset in args.presets.split(","):
        before, started = os.getloadavg()[0], time.time()
        row = measure(engine, preset, args)
        if preset in args.shortcuts.split(","):
            row["shortcuts"] = engine.shortcuts(preset)
        if args.model and preset in args.contention.split(","):
            from contention import measure as contention

            row["contention"] = contention(args.engine, args.model, preset, args.device, args.threads)
        row["cpu"], row["taken_at"] = cpu_name(), int(started)
        row["load"] = {"before": before, "after": os.getloadavg()[0], "cores": os.cpu_count()}
        rows.append(row)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    for row in rows:
        for line in row.get("shortcuts", {}).get("rows", []):
            print(f"{row['preset']}: correlation of '{line['shortcut']}' with the output {line['correlation']:+.4f}")
        if "contention" in row:
            idle, racing = row["contention"]["ttft_idle_ms"], row["contention"]["ttft_racing_ms"]
            print(
                f"{row['preset']}: first token after {idle['p50']:.1f} ms (p99 {idle['p99']:.1f}) without a race, "
                f"{racing['p50']:.1f} ms (p99 {racing['p99']:.1f}) with one"
            )
    print(f"written to {args.out}")


main()
