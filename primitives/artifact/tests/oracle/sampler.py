#!/usr/bin/env python3
"""Second implementation of seeded sampling and of the artifact's encoding, from design/inference.md alone.

Shares no code with the crate and needs nothing but Python. `python3 sampler.py > ../golden/sampler.txt` writes the
vectors that `tests/golden.rs` checks. Rows of logits come from splitmix64, in steps of 1/128, so that every language
makes the same floats and ties are frequent.
"""
import hashlib
import math
import random
import struct

MASK32 = 0xFFFFFFFF


def chacha8_block(key, counter, stream):
    state = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I", key))
    state += [counter & MASK32, counter >> 32, stream & MASK32, stream >> 32]
    x = state[:]

    def quarter(a, b, c, d):
        for first, second, third, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[first] = (x[first] + x[second]) & MASK32
            mixed = x[third] ^ x[first]
            x[third] = ((mixed << turn) | (mixed >> (32 - turn))) & MASK32

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & MASK32 for a, b in zip(x, state)]


class Noise:
    def __init__(self, key, position):
        self.key, self.position, self.blocks = key, position, {}

    def gumbel(self, token):
        number = token // 16
        if number not in self.blocks:
            self.blocks[number] = chacha8_block(self.key, number, self.position)
        u = (2 * self.blocks[number][token % 16] + 1) / 2.0**33
        return -math.log(-math.log(u))


def sampling_key(kind, inference_id, seed, choice):
    origin = b"\x00" + inference_id if kind == "id" else b"\x01" + struct.pack("<q", seed)
    return hashlib.blake2b(b"pacer/sample/v1" + origin + struct.pack("<I", choice), digest_size=32).digest()


def splitmix(state):
    z = (state + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def make_row(seed, vocab):
    return [(splitmix(seed * 2**32 + i) % 4096 - 2048) / 128.0 for i in range(vocab)]


def sample(row, key, c):
    never = -math.inf
    z = [v if i < c["usable"] else never for i, v in enumerate(row)]
    prompt, output = c["prompt"], c["output"]
    for i in range(len(z)):
        if c["allowed"] and i not in c["allowed"]:
            z[i] = never
        if len(output) < c["min_tokens"] and i in c["eos"] + c["stop"]:
            z[i] = never
    for word in c["bad"]:
        start = word[:-1]
        if len(start) == 0 or output[-len(start):] == start:
            z[word[-1]] = never
    for token, bias in c["bias"]:
        z[token] += bias
    for token in set(prompt) | set(output):
        z[token] = z[token] / c["rep"] if z[token] > 0 else z[token] * c["rep"]
    for token in set(output):
        z[token] = z[token] - c["freq"] * output.count(token) - c["pres"]
    possible = [i for i in range(len(z)) if z[i] > never]
    if c["t"] < 1e-5:
        return min(possible, key=lambda i: (-z[i], i))
    x = {i: z[i] / c["t"] for i in possible}
    high = max(x.values())
    if c["min_p"] > 0:
        x = {i: v for i, v in x.items() if v >= high + math.log(c["min_p"])}
    order = sorted(x, key=lambda i: (-x[i], i))
    if c["top_k"]:
        order = order[: c["top_k"]]
    if c["top_p"] < 1:
        total = sum(math.exp(x[i] - high) for i in sorted(order))
        kept, before = [], 0.0
        for i in order:
            if kept and before >= c["top_p"] * total:
                break
            kept.append(i)
            before += math.exp(x[i] - high)
        order = kept
    noise = Noise(key, len(output))
    return min(order, key=lambda i: (-(x[i] + noise.gumbel(i)), i))


def case(rng):
    vocab = rng.choice([7, 90, 700, 2100])
    token = lambda: rng.randrange(vocab)
    ids = lambda most: [token() for _ in range(rng.randrange(most))]
    some = lambda value, otherwise, share=0.4: value if rng.random() < share else otherwise
    return {
        "row": rng.randrange(2**31), "vocab": vocab, "usable": vocab - rng.randrange(2),
        "kind": rng.choice(["id", "seed"]), "id": rng.randbytes(32).hex(), "seed": rng.randrange(-2**63, 2**63),
        "choice": rng.randrange(3), "prompt": ids(12), "output": ids(12),
        "t": rng.choice([0.0, 0.3, 0.7, 1.0, 1.0, 2.5, 8.0]), "top_p": some(rng.choice([0.1, 0.5, 0.9, 0.99]), 1.0),
        "top_k": some(rng.choice([1, 3, 40, 1000]), 0), "min_p": some(rng.choice([0.001, 0.05, 0.5]), 0.0),
        "rep": some(rng.choice([0.8, 1.3]), 1.0), "freq": some(0.7, 0.0), "pres": some(-0.4, 0.0),
        "bias": some([(i, rng.choice([-3.5, 2.25, 6.0])) for i in sorted(set(ids(5)))], []),
        "allowed": some(sorted(set(ids(30)) | set(range(5))), [], 0.15),
        "bad": some([[token()], [token(), token()]], [], 0.2),
        "min_tokens": some(20, 0, 0.2), "eos": [2], "stop": [4],
    }


def write(value):
    if isinstance(value, (list, tuple)):
        return ",".join(":".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for v in value)
    return repr(value) if isinstance(value, float) else str(value)


def artifact_bytes():
    """The artifact `tests/golden.rs` builds, encoded by hand."""
    real = lambda v: struct.pack("<d", v)
    compact = lambda n: struct.pack("<B", n << 2) if n < 64 else struct.pack("<H", n << 2 | 1)
    token = lambda i: struct.pack("<I", i)[:3]
    entry = lambda i, lp: token(i) + struct.pack("<H", min(65535, round(-1024 * lp)))
    top = b"".join(entry(i, lp) for i, lp in ((11, -0.5), (70000, -1.25), (3, -4.0), (5, -8.5), (6, -70.0)))
    out = b"\x01" + b"\x11" * 32 + b"\x22" * 32 + b"\x01" + b"\x33" * 32 + b"\x44" * 32 + b"\x55" * 32
    out += struct.pack("<I", 1) + compact(4) + b"demo" + b"\x66" * 32
    out += bytes([0, 0, 0, 1])  # CPU, f32 weights, f32 cache, fused attention
    out += real(0.7) + real(0.9) + b"\x01" + struct.pack("<I", 40) + real(0.0) + real(1.1) + real(0.0) + real(0.25)
    out += compact(1) + token(9) + real(-1.5)
    out += b"\x00" + compact(1) + compact(2) + token(4) + token(5)
    out += struct.pack("<II", 0, 100) + compact(1) + compact(2) + b"\n\n" + compact(0) + b"\x00" + b"\x00"
    out += b"\x01" + struct.pack("<q", -5)
    out += compact(70) + b"".join(token(i) for i in range(70))
    out += compact(2) + b"\x01" + top + b"\xff" + entry(900, -11.0) + top
    return out + b"\x03"


def main():
    rng = random.Random(20261121)
    print("# Written by tests/oracle/sampler.py. key=value pairs of a case, then the token.")
    encoded = artifact_bytes()
    print(f"artifact len={len(encoded)} hash={hashlib.blake2b(encoded, digest_size=32).hexdigest()}")
    for _ in range(160):
        c = case(rng)
        key = sampling_key(c["kind"], bytes.fromhex(c["id"]), c["seed"], c["choice"])
        token = sample(make_row(c["row"], c["vocab"]), key, c)
        print("sample", *(f"{k}={write(v)}" for k, v in c.items()), f"key={key.hex()}", f"token={token}")


main()
