"""Second implementation of seeded sampling and of what is recorded of a row, in numpy, from design/inference.md alone.

Shares no code with the crate. Logits are f32, everything after them is f64. The design leaves open in which order sums
are added and how a logarithm's last bit is rounded; where a choice would hang on that, `choose` raises `Undecided`
rather than take a side, so that every token it does name is the only right one. `cases.py` draws and writes cases.
"""
import hashlib
import struct

import numpy as np

# Two results that the design calls equal may differ by this much, relative to their size (at least 1).
ROUNDING = 1e-11
GREEDY_BELOW = 1e-5
TOP = 5


class Undecided(Exception):
    """The choice would hang on the order of a sum or the last bit of a logarithm."""


# --- noise -----------------------------------------------------------------------------------------------------------


def sampling_key(kind, inference_id, seed, choice):
    origin = b"\x00" + inference_id if kind == "id" else b"\x01" + struct.pack("<q", seed)
    return hashlib.blake2b(b"pacer/sample/v1" + origin + struct.pack("<I", choice), digest_size=32).digest()


def chacha8(key, stream, numbers):
    """Blocks of ChaCha8 by their numbers: u32 [blocks, 16]. The state is four rows of four words, blocks side by side."""
    numbers = np.asarray(numbers, dtype=np.uint64)
    start = np.empty((4, 4, len(numbers)), dtype=np.uint32)
    start[0] = np.frombuffer(b"expand 32-byte k", dtype="<u4")[:, None]
    start[1:3] = np.frombuffer(key, dtype="<u4").reshape(2, 4, 1)
    start[3, 0], start[3, 1] = numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32)
    start[3, 2], start[3, 3] = stream & 0xFFFFFFFF, stream >> 32
    a, b, c, d = (row.copy() for row in start)

    def add_xor_turn(to, other, mixed, left):
        to += other
        mixed ^= to
        high = mixed << np.uint32(left)
        mixed >>= np.uint32(32 - left)
        mixed |= high

    for half in range(8):
        if half % 2:  # diagonals become columns
            b, c, d = b[[1, 2, 3, 0]], c[[2, 3, 0, 1]], d[[3, 0, 1, 2]]
        for to, other, mixed, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            add_xor_turn(to, other, mixed, left)
        if half % 2:
            b, c, d = b[[3, 0, 1, 2]], c[[2, 3, 0, 1]], d[[1, 2, 3, 0]]
    return (np.stack([a, b, c, d]) + start).reshape(16, -1).T


def words(key, position, tokens):
    """The word of every token."""
    tokens = np.asarray(tokens, dtype=np.int64)
    if len(tokens) > 64:
        return chacha8(key, position, np.arange(tokens.max() // 16 + 1)).reshape(-1)[tokens]
    return chacha8(key, position, tokens // 16)[np.arange(len(tokens)), tokens % 16]


def gumbel(word):
    u = (2.0 * np.asarray(word, dtype=np.float64) + 1.0) / 2.0**33
    return -np.log(-np.log(u))


# --- logits ----------------------------------------------------------------------------------------------------------


def edited(row, case, output, mask):
    """z: the row after masks, bias and penalties."""
    z = row.astype(np.float64)
    z[np.isnan(z)] = -np.inf
    never = np.zeros(len(z), dtype=bool)
    never[case["usable"] :] = True
    if mask is not None:
        never |= ~mask
    if case["allowed"]:
        others = np.ones(len(z), dtype=bool)
        others[case["allowed"]] = False
        never |= others
    for *start, last in case["bad"]:
        if len(output) >= len(start) and output[len(output) - len(start) :] == start:
            never[last] = True
    # A form that leaves nothing but an end is complete, however short the answer.
    complete = mask is not None and set(np.flatnonzero(mask)) <= set(case["eos"])
    if len(output) < case["min_tokens"] and not complete:
        never[case["eos"] + case["stop"]] = True
    z[never] = -np.inf

    for token, bias in case["bias"]:
        z[token] += bias
    seen = np.array(sorted(set(case["prompt"]) | set(output)), dtype=np.int64)
    z[seen] = np.where(z[seen] > 0, z[seen] / case["rep"], z[seen] * case["rep"])
    tokens, counts = np.unique(np.array(output, dtype=np.int64), return_counts=True)
    z[tokens] = z[tokens] - case["freq"] * counts - case["pres"]
    return z


def apart(a, b):
    """Whether each a and b are so far apart that rounding cannot order them otherwise."""
    return np.abs(a - b) > ROUNDING * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))


def decided(a, b):
    """Equal values are equal for everybody: they come from the same few operations. Nearly equal ones may not be."""
    if not np.all((a == b) | apart(a, b)):
        raise Undecided


def likeliest(ids, values, count):
    """Those that are no less than the one at this place, in the order given."""
    if count >= len(values):
        return ids, values
    chosen = values >= np.partition(values, len(values) - count)[len(values) - count]
    return ids[chosen], values[chosen]


def in_order(ids, values):
    """By value descending, id ascending; ids come ascending."""
    order = np.argsort(-values, kind="stable")
    return ids[order], values[order]


def kept(z, case):
    """Ids and x of what min-p, top-k and top-p leave; in order, if one of the latter two is on."""
    ids = np.flatnonzero(z > -np.inf)
    x = z[ids] / case["t"]
    if case["min_p"] > 0:
        floor = x.max() + np.log(case["min_p"])
        if case["min_p"] < 1 and not np.all(apart(x, floor)):
            raise Undecided
        ids, x = ids[x >= floor], x[x >= floor]
    if not case["top_k"] and case["top_p"] >= 1:
        return ids, x
    if case["top_k"]:
        # The one after the last is looked at, too.
        ids, x = likeliest(ids, x, case["top_k"] + 1)
    ids, x = in_order(ids, x)

    def cut(count):
        decided(x[count - 1 : count], x[count : count + 1] if count < len(x) else x[count - 1 : count])
        return ids[:count], x[:count]

    if case["top_k"]:
        ids, x = cut(min(case["top_k"], len(x)))
    if case["top_p"] < 1:
        mass = np.exp(x - x[0])
        before = np.concatenate(([0.0], np.cumsum(mass)[:-1]))
        before, share = before / mass.sum(), case["top_p"]
        if np.any(np.abs(before - share) <= ROUNDING):
            raise Undecided
        ids, x = cut(max(1, int(np.count_nonzero(before < share))))
    return ids, x


def choose(row, key, case, output, mask=None):
    """The token after `output`, None if nothing is possible."""
    z = edited(row, case, output, mask)
    if not np.any(z > -np.inf):
        return None
    if case["t"] < GREEDY_BELOW:
        ids = np.flatnonzero(z > -np.inf)
        scores = z[ids]
    else:
        ids, x = kept(z, case)
        scores = x + gumbel(words(key, len(output), ids))
    best = scores.max()
    decided(scores, best)
    return int(ids[scores == best].min())


# --- what is recorded ------------------------------------------------------------------------------------------------


def statistics(row):
    """log-sum-exp of the raw row and its five likeliest ids; None if fewer than five logits are finite or one is NaN."""
    finite = np.isfinite(row)
    if np.any(np.isnan(row)) or np.count_nonzero(finite) < TOP:
        return None
    logits = row.astype(np.float64)
    high = logits.max()
    top, _ = in_order(*likeliest(np.arange(len(row)), logits, TOP))
    return float(high + np.log(np.exp(logits - high).sum())), [int(i) for i in top[:TOP]]


def rank(row, token):
    """Number of tokens before this one by (logit descending, id ascending)."""
    return int(np.count_nonzero(row > row[token]) + np.count_nonzero(row[:token] == row[token]))
