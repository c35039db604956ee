#!/usr/bin/env python3
"""How fast the engine is, beside others: `make bench-engine`. docs/benchmarks.md says how it measures, and why so.

    run.py --engine PATH [--models 0.5b,1b] [--cases decode,prefill,...] [--quick] [--rounds 5] [--out FILE]

Writes FILE (target/bench/engine.json), a list with an object for each case and system:

    case, model, where                      what was measured; `process` or `server`
    system, version, precision, batch       who did it; `batch` is how many answers at once
    tokens_per_s, spread                    the median over rounds; between the slowest and the fastest one, over the median
    bound_tokens_per_s, of_bound            what memory (decoding) or bare products (prefill) would allow, and the share
    best_peer, vs_best_peer                 the fastest other system of the same case, place and precision (for bf16: any
                                            float), and how many times as fast this one is
    peak_mib, peak_to_budget                most memory of the process; over weights and cache, where both are known
    wait_policy                             how its threads wait: the better one of two that were tried
    ttft_ms_*, itl_ms_*, ...                what else a case measures
    rounds                                  speeds of all rounds
    machine                                 load, the share of the processors that others took, bandwidth, products
    error                                   instead of the numbers, where a system failed: the others go on

Nothing else should run beside it: `machine.foreign_share` tells whether something did.
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

import checkpoints
from plan import Plan
from systems import Foreign
from table import table

CASES = ["decode", "prefill", "artifacts", "seeding", "mixed", "prefix", "verify", "speculation"]


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def rows_of(plan, machine):
    """Medians, bounds and ratios of everything that a plan measured."""
    rows = []
    for (case, where, name), rounds in plan.found.items():
        system = plan.systems[name]
        good = [r for r in rounds if "error" not in r]
        row = {"case": case.label, "model": plan.model, "where": where, "system": system.shown, "precision": system.precision,
               "version": system.version, "batch": case.batch, "wait_policy": system.policy, "machine": machine}
        if good:
            for key in [k for k, v in good[0].items() if isinstance(v, (int, float))]:
                values = [r[key] for r in good if isinstance(r.get(key), (int, float))]
                row[key] = statistics.median(values)
            speeds = row["rounds"] = [r["tokens_per_s"] for r in good]
            row["spread"] = (max(speeds) - min(speeds)) / row["tokens_per_s"] if len(speeds) > 1 else None
            bound = plan.bound(case, system)
            if bound:
                row["bound_tokens_per_s"], row["of_bound"] = bound, row["tokens_per_s"] / bound
            row["peak_mib"] = system.peak
            if system.budget_mib and system.peak:
                row["peak_to_budget"] = system.peak / system.budget_mib
        errors = [r["error"] for r in rounds if "error" in r]
        if errors:
            row["error"] = errors[-1]
        rows.append(row)
    floats = {"bf16", "f16", "f32"}
    for row in rows:
        same = [
            r for r in rows
            if r is not row and r["case"] == row["case"] and r["where"] == row["where"] and "tokens_per_s" in r
            and not r["system"].startswith("pacer") and (r["precision"] in floats) == (row["precision"] in floats)
        ]
        if row["system"].startswith("pacer") and same and "tokens_per_s" in row:
            best = max(same, key=lambda r: r["tokens_per_s"])
            row["best_peer"] = f"{best['system']} {best['precision']}"
            row["vs_best_peer"] = row["tokens_per_s"] / best["tokens_per_s"]
    plain = {(r["where"], r["batch"]): r for r in rows if (r["system"], r["precision"]) == ("pacer", "bf16") and r["case"].startswith("decode")}
    for row in rows:
        # What a feature costs: the same system in the same place without it.
        without = plan.compared(row, plain, rows)
        if without and without.get("tokens_per_s") and row.get("tokens_per_s"):
            row["vs_without"] = row["tokens_per_s"] / without["tokens_per_s"]
    return rows


def main():
    cache = pathlib.Path(os.environ.get("PACER_CACHE", pathlib.Path.home() / ".cache/pacer"))
    parser = argparse.ArgumentParser(description="How fast the engine is, beside others")
    parser.add_argument("--engine", required=True, type=pathlib.Path)
    parser.add_argument("--models", default="0.5b,1b")
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--systems", default="", help="only these, by their names in the table, separated by commas")
    parser.add_argument("--rounds", type=int, default=None, help="5, or 2 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wait", choices=["auto", "passive", "active"], default="auto", help="how threads wait; auto tries both for each system")
    parser.add_argument("--minutes", type=float, default=None, help="no further case begins after so long: 28, or 7 with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, and the 0.5B shape only")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/bench/engine.json"))
    args = parser.parse_args()
    if args.quick and args.models == parser.get_default("models"):
        args.models = "0.5b"
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.minutes = args.minutes or (7 if args.quick else 28)
    unknown = set(args.cases.split(",")) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    # Everything that is started runs on these, and so does this client.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    peers = json.loads(subprocess.run([pathlib.Path(__file__).parent.parent / "setup-peers.sh"], stdout=subprocess.PIPE, check=True).stdout)
    if peers["error"]:
        say(peers["error"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows, models, end = [], args.models.split(","), time.monotonic() + 60 * args.minutes
    interrupted = False
    for number, model in enumerate(models):
        say(f"{model}: checkpoint")
        folder = checkpoints.make(model, cache / "bench-models")
        foreign, load, began = None, os.getloadavg(), time.time()
        plan = Plan(model, folder, args, peers, say)
        try:
            foreign = Foreign(plan.pids)
            plan.start()
            # What is left is shared by the models that are left; the larger of two takes twice as long.
            left = len(models) - number
            plan.measure(time.monotonic() + (end - time.monotonic()) * (1 if left == 1 else 1 / (2 * left - 1)))
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted: what was measured so far is kept")
        finally:
            share = foreign.share() if foreign else None
            plan.end()
        machine = {
            "cpu": cpu_name(), "cores": os.cpu_count(), "threads": args.threads, "taken_at": int(began),
            "seconds": round(time.time() - began), "load_before": load[0], "load_after": os.getloadavg()[0],
            "foreign_share": share, **plan.machine(),
        }
        rows += rows_of(plan, machine)
        # After each model, so that what was measured is not lost.
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
        if interrupted:
            break
    print(table(rows))
    print(f"\nwritten to {args.out}")
    if not any("tokens_per_s" in row and row["system"].startswith("pacer") for row in rows):
        sys.exit("the engine was not measured")


if __name__ == "__main__":
    main()
