"""The Sprint once more, from the definition alone (docs/sprint.md). Needs numpy; `tests/bench/setup.sh` has one.

Shares nothing with the Rust code, not even a library: ChaCha8 is written out, BLAKE2b is Python's. Every position is
computed, needed or not. Products are taken in float64, which is exact: no sum reaches 2^25, far below 2^53.
`golden.py` and `avalanche.py` use it.
"""
import hashlib
from typing import NamedTuple

import numpy as np


class Config(NamedTuple):
    """Layers, model width, heads, head width, FFN width, output width, positions."""

    L: int
    d: int
    H: int
    h: int
    F: int
    V: int
    S: int


PRESETS = {
    "dev": Config(4, 64, 4, 16, 256, 256, 4),
    "bench": Config(16, 512, 16, 64, 2048, 8192, 4),
}
LUT = np.array([int(256 * 2 ** (-n / 16)) for n in range(256)])


def blake(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def chacha8(key, stream, length):
    """Keystream with a 64-bit block counter from 0 and a 64-bit stream number."""
    blocks = -(-length // 64)
    start = np.zeros((16, blocks), dtype=np.uint32)
    start[0:4] = np.frombuffer(b"expand 32-byte k", dtype="<u4")[:, None]
    start[4:12] = np.frombuffer(key, dtype="<u4")[:, None]
    start[12] = np.arange(blocks)
    start[14], start[15] = stream & 0xFFFFFFFF, stream >> 32
    s = start.copy()

    def turn(x, n):
        return (x << np.uint32(n)) | (x >> np.uint32(32 - n))

    def quarter(a, b, c, d):
        s[a] += s[b]; s[d] = turn(s[d] ^ s[a], 16)
        s[c] += s[d]; s[b] = turn(s[b] ^ s[c], 12)
        s[a] += s[b]; s[d] = turn(s[d] ^ s[a], 8)
        s[c] += s[d]; s[b] = turn(s[b] ^ s[c], 7)

    for _ in range(4):
        quarter(0, 4, 8, 12); quarter(1, 5, 9, 13); quarter(2, 6, 10, 14); quarter(3, 7, 11, 15)
        quarter(0, 5, 10, 15); quarter(1, 6, 11, 12); quarter(2, 7, 8, 13); quarter(3, 4, 9, 14)
    s += start
    return s.T.astype("<u4").tobytes()[:length]


def i8(x):
    return ((x + 128) & 255) - 128


def fold(x, s):
    return i8(x >> s)


def lg(n):
    return n.bit_length() - 1


class Sprint:
    """One race: shape and seed. Activations are int64 arrays of nonces x positions x width."""

    def __init__(self, config, seed):
        self.c, self.seed = config, seed
        self.t = np.frombuffer(self.stream(b"target", b"", 0, config.V), dtype=np.int8).astype(np.int64)
        self.w = {}

    def stream(self, label, extra, number, length):
        return chacha8(blake(b"pacer/sprint/v1/" + label + self.seed + extra), number, length)

    def weights(self, m, n, k):
        if m not in self.w:
            packed = np.frombuffer(self.stream(b"weights", b"", m, n * k // 2), dtype=np.uint8)
            self.w[m] = np.stack([packed & 15, packed >> 4], 1).reshape(n, k).astype(np.float64) - 8
        return self.w[m]

    def product(self, x, m, n):
        k = x.shape[-1]
        sums = x.reshape(-1, k).astype(np.float64) @ self.weights(m, n, k).T
        return fold(sums.astype(np.int64), lg(k) // 2).reshape(*x.shape[:-1], n)

    def node(self, host):
        return blake(b"pacer/sprint/v1/node" + host)

    def inputs(self, host, nonces):
        size = self.c.S * self.c.d
        rows = [np.frombuffer(self.stream(b"input", self.node(host), n, size), dtype=np.int8) for n in nonces]
        return np.stack(rows).astype(np.int64).reshape(-1, self.c.S, self.c.d)

    def layer(self, index, x):
        """Every position of x_(index + 1)."""
        c, m = self.c, 7 * index
        q, k, v = (self.product(x, m + i, c.H * c.h).reshape(-1, c.S, c.H, c.h) for i in range(3))
        mixed = np.zeros_like(v)
        for i in range(c.S):
            scores = np.stack([(q[:, i] * k[:, j]).sum(-1) >> (lg(c.h) // 2 + 8) for j in range(i + 1)])
            parts = LUT[np.minimum(255, scores.max(0) - scores)]
            mixed[:, i] = sum(parts[j][..., None] * v[:, j] for j in range(i + 1))
        x = i8(x + self.product(fold(mixed, 6).reshape(-1, c.S, c.H * c.h), m + 3, c.d))
        f = fold(self.product(x, m + 4, c.F) * self.product(x, m + 5, c.F), 4)
        return i8(x + self.product(f, m + 6, c.d))

    def states(self, x):
        """x_0 .. x_L, all positions of each."""
        states = [x]
        for index in range(self.c.L):
            states.append(self.layer(index, states[-1]))
        return states

    def output(self, x):
        return self.product(x[:, -1], 7 * self.c.L, self.c.V)

    def permuted(self, host, nonce, y):
        v = self.c.V
        words = np.frombuffer(self.stream(b"permutation", self.node(host), nonce, 4 * v), dtype="<u4").tolist()
        p = list(range(v))
        for word, i in zip(words, range(v - 1, 0, -1)):
            j = (word * (i + 1)) >> 32
            p[i], p[j] = p[j], p[i]
        return y[p]

    def score(self, z):
        centred, target = 2 * z + 1, 2 * self.t + 1
        return int(centred @ target), int(centred @ centred), int(target @ target)


def appropriate(dot, zz, tt, threshold):
    return dot > 0 and dot * dot * 2**32 >= threshold * zz * tt


def as_bytes(x):
    return x.astype(np.int8).tobytes()
