#!/usr/bin/env python3
"""How fast a difference spreads: one bit of x_0 is flipped, and each later state is compared with what it was.

    avalanche.py [dev|bench] [flips]

Prints, for each state, which share of the values changed, among the positions that the flipped one can reach at all
(attention is causal, so only those from the flipped position on), and the same for y. Unrelated bytes differ in
255/256 = 0.9961 of all places. `tests/avalanche.rs` asserts what this prints.
"""
import sys

import numpy as np

from sprint import PRESETS, Sprint

preset = sys.argv[1] if len(sys.argv) > 1 else "dev"
flips = int(sys.argv[2]) if len(sys.argv) > 2 else {"dev": 512, "bench": 64}[preset]
config = PRESETS[preset]
sprint = Sprint(config, b"\7" * 32)
rng = np.random.default_rng(1)

x = sprint.inputs(b"\x09" * 32, range(flips))
position, column, bit = rng.integers(config.S, size=flips), rng.integers(config.d, size=flips), rng.integers(8, size=flips)
flipped = x.copy()
at = (np.arange(flips), position, column)
flipped[at] = (flipped[at].astype(np.int8) ^ (1 << bit).astype(np.uint8).view(np.int8)).astype(np.int64)
reached = np.arange(config.S)[None, :] >= position[:, None]

before, after = sprint.states(x), sprint.states(flipped)
print(f"{preset}: {flips} flips; share of values that changed (mean; least of any flip)")
for index, (a, b) in enumerate(zip(before, after)):
    if index == config.L:
        share = (a[:, -1] != b[:, -1]).mean(-1)
    else:
        share = ((a != b).sum(-1) * reached).sum(-1) / (config.d * reached.sum(-1))
    print(f"  x_{index:<3} {share.mean():.4f}  {share.min():.4f}")
share = (sprint.output(before[-1]) != sprint.output(after[-1])).mean(-1)
print(f"  y     {share.mean():.4f}  {share.min():.4f}")
