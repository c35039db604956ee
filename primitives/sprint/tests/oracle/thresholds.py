#!/usr/bin/env python3
"""Computes the table of src/threshold.rs. Needs mpmath.

The squared cosine between a fixed direction and a uniform one in V dimensions follows Beta(1/2, (V-1)/2). One in n
passes (with the right sign) where the upper tail holds 2/n.
"""
from mpmath import betainc, mp, mpf, nint

mp.dps = 40


def threshold(one_in: int, outputs: int) -> int:
    low, high = mpf(0), mpf(1)
    for _ in range(120):
        middle = (low + high) / 2
        tail = betainc(mpf(1) / 2, mpf(outputs - 1) / 2, middle, 1, regularized=True)
        low, high = (middle, high) if tail > mpf(2) / one_in else (low, middle)
    return int(nint(low * 2**32))


for outputs in (256, 1024, 8192):
    for one_in in (4, 16, 64, 256, 900):
        print(f"({outputs}, {one_in}, {threshold(one_in, outputs):_}),")
