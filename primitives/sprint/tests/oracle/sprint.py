#!/usr/bin/env python3
"""The Sprint's `dev` preset once more, from the definition alone (design/sprint.md). Needs numpy.

Shares nothing with the Rust code, not even a library: ChaCha8 is written out, BLAKE2b is Python's. Products are taken
whole, in int64, and every position is computed, needed or not.

    sprint.py            recomputes tests/golden/dev.jsonl and says whether it agrees
    sprint.py --write    writes it
"""
import hashlib
import json
import pathlib
import sys

import numpy as np

L, D, H, W, F, V, S = 4, 64, 4, 16, 256, 256, 4
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "dev.jsonl"
ONE_IN_4, ONE_IN_900 = 7_670_677, 155_029_188
CASES = [
    (hashlib.sha256(b"pacer golden seed %d" % case).digest(), hashlib.sha256(b"pacer golden host %d" % case).digest(), threshold, nonces)
    for case, threshold, nonces in [
        (0, ONE_IN_900, [0, 1, 2, 3]),
        (1, ONE_IN_4, [0, 1, 2, 3, 4, 5, 6, 7]),
        (2, ONE_IN_4, [255, 65_536, 2**32 - 1, 2**32, 2**53 + 1, 2**64 - 1]),
    ]
]


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


def stream(label, seed, extra, number, length):
    return chacha8(blake(b"pacer/sprint/v1/" + label + seed + extra), number, length)


def i8(x):
    return ((x + 128) & 255) - 128


def fold(x, s):
    return i8(x >> s)


def shift(k):
    return (k.bit_length() - 1) // 2


def weights(seed, m, n, k):
    packed = np.frombuffer(stream(b"weights", seed, b"", m, n * k // 2), dtype=np.uint8)
    return (np.stack([packed & 15, packed >> 4], 1).reshape(n, k).astype(np.int64)) - 8


def evaluate(seed, host, threshold, nonce):
    node = blake(b"pacer/sprint/v1/node" + host)
    table = [int(256 * 2 ** (-n / 16)) for n in range(256)]

    def product(x, m, n, k):
        return fold(x @ weights(seed, m, n, k).T, shift(k))

    def digest(x):
        return blake(x.astype(np.int8).tobytes()).hex()

    x = np.frombuffer(stream(b"input", seed, node, nonce, S * D), dtype=np.int8).astype(np.int64).reshape(S, D)
    states = [digest(x)]
    for layer in range(L):
        m = 7 * layer
        q, k, v = (product(x, m + i, H * W, D).reshape(S, H, W) for i in range(3))
        c = np.zeros((S, H, W), dtype=np.int64)
        for head in range(H):
            for i in range(S):
                a = [int(q[i, head] @ k[j, head]) >> ((W.bit_length() - 1) // 2 + 8) for j in range(i + 1)]
                for j, score in enumerate(a):
                    c[i, head] += table[min(255, max(a) - score)] * v[j, head]
        x = i8(x + product(fold(c, 6).reshape(S, H * W), m + 3, D, H * W))
        f = fold(product(x, m + 4, F, D) * product(x, m + 5, F, D), 4)
        x = i8(x + product(f, m + 6, D, F))
        states.append(digest(x if layer < L - 1 else x[S - 1]))
    y = product(x[S - 1 :], 7 * L, V, D)[0]

    words = np.frombuffer(stream(b"permutation", seed, node, nonce, 4 * V), dtype="<u4")
    p = list(range(V))
    for word, i in zip(words, range(V - 1, 0, -1)):
        j = (int(word) * (i + 1)) >> 32
        p[i], p[j] = p[j], p[i]
    z = y[p]
    t = np.frombuffer(stream(b"target", seed, b"", 0, V), dtype=np.int8).astype(np.int64)
    dot, zz, tt = (int(a @ b) for a, b in [(2 * z + 1, 2 * t + 1), (2 * z + 1, 2 * z + 1), (2 * t + 1, 2 * t + 1)])
    return {
        "preset": "dev", "seed": seed.hex(), "host": host.hex(), "threshold": threshold, "nonce": nonce, "states": states,
        "y": y.astype(np.int8).tobytes().hex(), "z": z.astype(np.int8).tobytes().hex(), "dot": dot, "zz": zz, "tt": tt,
        "appropriate": dot > 0 and dot * dot * 2**32 >= threshold * zz * tt,
    }


text = "".join(json.dumps(evaluate(seed, host, c, n), separators=(",", ":")) + "\n" for seed, host, c, nonces in CASES for n in nonces)
if "--write" in sys.argv:
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(text)
elif text != GOLDEN.read_text():
    sys.exit("the golden vectors differ from the definition")
print(text.count("\n"), "vectors,", text.count('"appropriate":true'), "of them appropriate")
