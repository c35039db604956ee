#!/usr/bin/env python3
"""The golden vectors of tests/golden, by the oracle (sprint.py). Half a minute.

    golden.py            recomputes the files and says whether they agree byte for byte
    golden.py --write    writes them
    golden.py --search   prints, for each case, the first nonces that are appropriate (how SOME below were found)

A line is one nonce: what was asked (preset, seed, host, threshold, nonce) and what `pacer-engine sprint vectors` prints
for it: BLAKE2b-256 of x_0 .. x_L (i8 bytes, position-major; x_L is the last position alone), y and z in hex, the three
sums of the verdict, and the verdict. Both verdicts, both ends of the nonces and every width of integer between are there.
"""
import hashlib
import json
import pathlib
import sys

from sprint import PRESETS, Sprint, appropriate, as_bytes, blake

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
ONE_IN_4 = {"dev": 7_670_677, "bench": 238_555}
ONE_IN_900 = {"dev": 155_029_188, "bench": 4_903_485}
# The smallest nonces that are appropriate at one in 900.
SOME = {"dev": [23], "bench": [1000]}
CASES = [
    ("dev", 0, ONE_IN_900, [0, 1, 2, 3] + SOME["dev"]),
    ("dev", 1, ONE_IN_4, [0, 1, 2, 3, 4, 5, 6, 7]),
    ("dev", 2, ONE_IN_4, [255, 65_536, 2**32 - 1, 2**32, 2**53 + 1, 2**64 - 1]),
    ("bench", 3, ONE_IN_900, [0] + SOME["bench"] + [2**64 - 1]),
    ("bench", 4, ONE_IN_4, [2, 2**32 + 1, 2**63]),
]


def seed(case):
    return hashlib.sha256(b"pacer golden seed %d" % case).digest()


def host(case):
    return hashlib.sha256(b"pacer golden host %d" % case).digest()


def lines(preset, case, threshold, nonces):
    sprint = Sprint(PRESETS[preset], seed(case))
    states = sprint.states(sprint.inputs(host(case), nonces))
    outputs = sprint.output(states[-1])
    # The last state is the last position alone.
    states[-1] = states[-1][:, -1]
    for index, nonce in enumerate(nonces):
        y = outputs[index]
        z = sprint.permuted(host(case), nonce, y)
        dot, zz, tt = sprint.score(z)
        line = {
            "preset": preset, "seed": seed(case).hex(), "host": host(case).hex(), "threshold": threshold, "nonce": nonce,
            "states": [blake(as_bytes(x[index])).hex() for x in states], "y": as_bytes(y).hex(), "z": as_bytes(z).hex(),
            "dot": dot, "zz": zz, "tt": tt, "appropriate": appropriate(dot, zz, tt, threshold),
        }
        yield json.dumps(line, separators=(",", ":")) + "\n"


def search(preset, case, threshold, many):
    sprint, found = Sprint(PRESETS[preset], seed(case)), []
    for start in range(0, 20_000, 100):
        nonces = range(start, start + 100)
        x = sprint.inputs(host(case), nonces)
        for index in range(sprint.c.L):
            x = sprint.layer(index, x)
        for nonce, y in zip(nonces, sprint.output(x)):
            if appropriate(*sprint.score(sprint.permuted(host(case), nonce, y)), threshold):
                found.append(nonce)
        if len(found) >= many:
            break
    print(preset, "case", case, "appropriate:", found[:many])


def main():
    if "--search" in sys.argv:
        for preset, case, thresholds, _ in CASES:
            search(preset, case, thresholds[preset], 2)
        return
    for preset in PRESETS:
        cases = [case for case in CASES if case[0] == preset]
        text = "".join(line for _, case, c, nonces in cases for line in lines(preset, case, c[preset], nonces))
        path = GOLDEN / f"{preset}.jsonl"
        if "--write" in sys.argv:
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(text)
        elif text != path.read_text():
            sys.exit(f"{path.name} differs from the definition")
        print(f"{path.name}: {text.count(chr(10))} vectors, {text.count('true')} of them appropriate, {len(text)} bytes")


if __name__ == "__main__":
    main()
