#!/usr/bin/env python3
"""Cases for the sampler of this crate, answered by the one in `sampler.py`. Needs numpy.

    cases.py draw SEED ROWS     draws sequences until they have so many rows; writes them with their answers
    cases.py check FILE ...     answers the cases of files anew; fails at the first other answer

`golden/rows.txt` is `cases.py draw 20261122 5000`; `golden/sampler.txt` was written by an earlier oracle in plain Python.
`tests/rows.rs` holds the crate against both, and against cases drawn while it runs.

A line `sequence` holds the fields of a case that are not as in DEFAULTS; `rows`, each as `shape:seed:log_sum_exp:ids`
with the five likeliest ids, or `shape:seed` if the row cannot be recorded; then `|` and the positions one after another,
each as `row[/mask]=token:rank`, row being an index, and every token joining the output. A token `-` says that nothing is
possible, a rank `-` that there is none. A line `bites` tells for every feature in how many positions the token would be
another one without it; `undecided`, how many positions were left out. Rows and masks come from splitmix64, and rows are
multiples of a power of two, so that every language makes the same floats.
"""
import random
import sys

import numpy as np

from sampler import Undecided, choose, gumbel, rank, sampling_key, statistics, words

DEFAULTS = {
    "kind": "seed", "id": "", "seed": 0, "choice": 0, "vocab": 0, "usable": 0, "prompt": [], "output": [], "t": 1.0,
    "top_p": 1.0, "top_k": 0, "min_p": 0.0, "rep": 1.0, "freq": 0.0, "pres": 0.0, "bias": [], "allowed": [], "bad": [],
    "min_tokens": 0, "eos": [], "stop": [],
}  # fmt: skip
SIZES = {5: 2, 17: 3, 90: 6, 700: 10, 2100: 10, 4096: 14, 32_000: 8, 50_257: 3, 128_256: 1.5, 151_936: 1.5}
SHAPES = {"uniform": 3, "bell": 4, "peaked": 8, "steps": 5, "flat": 1, "low": 2, "cliff": 2, "holes": 2, "broken": 1}
# What a feature is without effect; the mask and the noise have none of their own.
FEATURES = ("top_p", "top_k", "min_p", "rep", "freq", "pres", "bias", "allowed", "bad", "min_tokens")


# --- rows and masks --------------------------------------------------------------------------------------------------


def splitmix(state):
    z = np.asarray(state, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def drawn(seed, vocab):
    """A word for every token."""
    return splitmix((np.uint64(seed) << np.uint64(32)) + np.arange(vocab, dtype=np.uint64))


def make_row(shape, seed, vocab):
    word = drawn(seed, vocab)
    again = splitmix(word)
    quarters = sum((word >> np.uint64(16 * i) & np.uint64(0xFFFF)).astype(np.int64) for i in range(4)) - 131_070
    bell = quarters / 2.0**14  # standard deviation 2.3
    row = {
        "uniform": lambda: ((word % np.uint64(4096)).astype(np.int64) - 2048) / 128.0,
        "bell": lambda: bell,
        # A few tokens stand out, as after a prompt.
        "peaked": lambda: bell / 2 + np.where(again % np.uint64(1024) == 0, (again >> np.uint64(10)) % np.uint64(65), 0) / 4.0,
        # Many ties.
        "steps": lambda: quarters // 4096 / 4.0,
        "flat": lambda: np.full(vocab, 0.5),
        "low": lambda: bell - 12,
        "cliff": lambda: bell * 64,
        "holes": lambda: np.where(again % np.uint64(3) == 0, -np.inf, bell),
        "broken": lambda: np.where(again % np.uint64(50) == 0, np.nan, bell),
    }[shape]()
    single = row.astype(np.float32)
    assert np.array_equal(single, row, equal_nan=True), "a row is not exact in f32"
    return single


def named_row(name, vocab):
    shape, seed = name.split(":")[:2]
    return make_row(shape, int(seed), vocab)


def make_mask(text, vocab):
    """`divisor.seed.id.id..`: one token in so many (0: none), and these."""
    divisor, seed, *ids = map(int, text.split("."))
    mask = drawn(seed, vocab) % np.uint64(divisor) == 0 if divisor else np.zeros(vocab, dtype=bool)
    mask[ids] = True
    return mask


# --- text ------------------------------------------------------------------------------------------------------------


def write(value):
    if isinstance(value, list):
        return ",".join(":".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for v in value)
    return repr(value) if isinstance(value, float) else str(value)


def read(name, text):
    items = [item for item in text.split(",") if item]
    if name == "bad":
        return [[int(i) for i in item.split(":")] for item in items]
    if name == "bias":
        return [(int(token), float(bias)) for token, bias in (item.split(":") for item in items)]
    return [int(i) for i in items] if isinstance(DEFAULTS[name], list) else type(DEFAULTS[name])(text)


def key_of(case):
    return sampling_key(case["kind"], bytes.fromhex(case["id"]), case["seed"], case["choice"])


def described(name, row):
    """A row with what is recorded of it."""
    found = statistics(row)
    return name if found is None else f"{name}:{found[0]:.9f}:{'.'.join(map(str, found[1]))}"


def answer(row, token):
    recorded = token is not None and statistics(row) is not None
    return f"{'-' if token is None else token}:{rank(row, token) if recorded else '-'}"


# --- drawing ---------------------------------------------------------------------------------------------------------


class Drawer:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.bites = dict.fromkeys((*FEATURES, "bad_sequences", "t", "mask", "key"), 0)
        self.undecided = 0

    def weighted(self, table):
        return self.rng.choices(list(table), list(table.values()))[0]

    def some(self, value, otherwise, share):
        return value() if self.rng.random() < share else otherwise

    def case(self, vocab, rows):
        """A case over these rows. Most ids are likely ones, so that what names them matters."""
        rng, some = self.rng, self.some
        likely = [int(i) for row in rows for i in np.argsort(-row, kind="stable")[: min(vocab, 12)]]
        tops = [likely[i] for i in range(len(likely)) if i % min(vocab, 12) < 3]
        token = lambda: rng.choice(likely) if rng.random() < 0.7 else rng.randrange(vocab)
        ids = lambda most: [token() for _ in range(rng.randrange(most))]
        ascending = lambda most: sorted(set(ids(most)))
        eos = sorted({token() for _ in range(rng.choice([1, 1, 2]))})
        kind = rng.choice(["id", "seed"])
        return {
            "kind": kind, "id": rng.randbytes(32).hex() if kind == "id" else "",
            "seed": rng.randrange(-2**63, 2**63) if kind == "seed" else 0, "choice": rng.choice([0, 0, 1, 7]),
            "vocab": vocab, "usable": vocab - some(lambda: rng.randrange(1 + (vocab - 5) // 20), 0, 0.4),
            "prompt": ids(rng.choice([3, 12, 60])), "output": some(lambda: ids(rng.choice([8, 40])), [], 0.4),
            "t": rng.choice([0.0, 0.2, 0.7, 0.7, 1.0, 1.0, 1.0, 1.5, 30.0]),
            "top_p": some(lambda: rng.choice([0.1, 0.5, 0.8, 0.9, 0.95, 0.99]), 1.0, 0.4),
            "top_k": some(lambda: rng.choice([1, 3, 20, 50, 1000]), 0, 0.35),
            "min_p": some(lambda: rng.choice([1e-4, 0.01, 0.05, 0.5, 1.0]), 0.0, 0.25),
            "rep": some(lambda: rng.choice([0.8, 1.05, 1.3, 2.0]), 1.0, 0.35),
            "freq": some(lambda: rng.choice([-0.5, 0.3, 0.7, 2.0]), 0.0, 0.35),
            "pres": some(lambda: rng.choice([-0.4, 0.6, 1.5]), 0.0, 0.35),
            "bias": some(lambda: [(i, rng.choice([-100.0, -3.5, 0.1, 2.25, 6.0])) for i in ascending(6)], [], 0.4),
            "allowed": some(lambda: ascending(40), [], 0.15),
            "bad": some(lambda: [[rng.choice(tops) for _ in range(rng.choice([1, 2, 2, 3]))] for _ in range(9)], [], 0.3),
            "min_tokens": some(lambda: rng.randrange(1, 50), 0, 0.4), "eos": eos, "stop": ascending(3),
        }  # fmt: skip

    def mask(self, case):
        rng, vocab = self.rng, case["vocab"]
        seed, known = rng.randrange(10**6), rng.randrange(case["usable"])
        kind = rng.choice(["dense", "thin", "thin", "single", "end"])
        if kind == "end":
            return ".".join(map(str, [0, 0, *case["eos"]]))
        return f"{ {'dense': 2, 'thin': min(vocab, 300), 'single': 0}[kind]}.{seed}.{known}"

    def sequence(self):
        """A case with its rows and answers, as text; and their number."""
        rng = self.rng
        vocab = self.weighted(SIZES)
        # Few rows that come again and again, so that penalties meet the tokens they were made for.
        names = [f"{self.weighted(SHAPES)}:{rng.randrange(10**6)}" for _ in range(rng.choice([1, 2, 4]))]
        rows = [named_row(name, vocab) for name in names]
        case = self.case(vocab, rows)
        key, output, answers = key_of(case), list(case["output"]), []
        masked = rng.random() < 0.25
        for _ in range(rng.choice([2, 8, 16, 24])):
            index = rng.randrange(len(rows))
            row, mask = rows[index], self.mask(case) if masked and rng.random() < 0.7 else ""
            bits = make_mask(mask, vocab) if mask else None
            try:
                token = choose(row, key, case, output, bits)
            except Undecided:
                self.undecided += 1
                continue
            answers.append(f"{index}{'/' + mask if mask else ''}={answer(row, token)}")
            if token is None:
                break
            if vocab < 5000:
                self.count_bites(row, key, case, output, bits, token)
            output.append(token)
        fields = [f"{name}={write(value)}" for name, value in case.items() if value != DEFAULTS[name]]
        told = ",".join(described(name, row) for name, row in zip(names, rows))
        return " ".join(["sequence", *fields, f"key={key.hex()}", f"rows={told}", "|", *answers]), len(answers)

    def count_bites(self, row, key, case, output, bits, token):
        without = {name: ({**case, name: DEFAULTS[name]}, key, bits) for name in FEATURES if case[name] != DEFAULTS[name]}
        # Bad words of several tokens hang on what came before.
        if any(len(word) > 1 for word in case["bad"]):
            without["bad_sequences"] = ({**case, "bad": [word for word in case["bad"] if len(word) == 1]}, key, bits)
        without["key"] = (case, bytes(32), bits)
        if case["t"] != 1:
            without["t"] = ({**case, "t": 1.0}, key, bits)
        if bits is not None:
            without["mask"] = (case, key, None)
        for name, (other, other_key, other_bits) in without.items():
            try:
                self.bites[name] += choose(row, other_key, other, output, other_bits) != token
            except Undecided:
                pass


def noise_lines(rng):
    """Words and noise of single tokens, the largest ids and positions included."""
    for _ in range(40):
        key = rng.randbytes(32)
        position = rng.choice([0, 1, rng.randrange(10**5), 2**32 - 1, 2**32 + 5])
        token = rng.choice([0, 15, 16, rng.randrange(2**17), 2**24 - 1])
        word = int(words(key, position, [token])[0])
        yield f"noise key={key.hex()} position={position} token={token} word={word} gumbel={float(gumbel(word))!r}"


def draw(seed, wanted):
    drawer, made = Drawer(seed), 0
    print(f"# Written by tests/oracle/cases.py draw {seed} {wanted}, which says what it means.")
    for line in noise_lines(drawer.rng):
        print(line)
    while made < wanted:
        line, count = drawer.sequence()
        if count:
            print(line)
            made += count
    print(f"undecided positions={drawer.undecided}")
    print("bites", *(f"{name}={count}" for name, count in drawer.bites.items()))


# --- checking --------------------------------------------------------------------------------------------------------


def answered(line):
    """The cases of a line as (what is asked, what was answered, what is answered now)."""
    kind, *items = line.split("|")[0].split()
    given = dict(item.split("=", 1) for item in items)
    case = {**DEFAULTS, **{name: read(name, text) for name, text in given.items() if name in DEFAULTS}}
    key = key_of(case)
    yield "key", given["key"], key.hex()
    if kind == "sample":
        row = make_row("uniform", int(given["row"]), case["vocab"])
        yield "position", given["token"], str(choose(row, key, case, case["output"]))
        return
    output, told_rows = list(case["output"]), given["rows"].split(",")
    rows = [named_row(told, case["vocab"]) for told in told_rows]
    for told, row in zip(told_rows, rows):
        now = described(":".join(told.split(":")[:2]), row)
        yield "row", *without_sum(told, now)
    for item in line.split("|")[1].split():
        asked, _, told = item.partition("=")
        index, _, mask = asked.partition("/")
        token = choose(rows[int(index)], key, case, output, make_mask(mask, case["vocab"]) if mask else None)
        yield asked, told, answer(rows[int(index)], token)
        output.append(token)


def without_sum(told, now):
    """Both, without their sums if these are equal but for the last digits."""
    a, b = told.split(":"), now.split(":")
    if len(a) == len(b) == 4 and abs(float(a[2]) - float(b[2])) < 1e-8:
        return a[:2] + a[3:], b[:2] + b[3:]
    return told, now


def check(paths):
    count = 0
    for path in paths:
        for line in open(path, encoding="utf-8"):
            if not line.startswith(("sample ", "sequence ")):
                continue
            for asked, told, now in answered(line):
                if told != now:
                    sys.exit(f"{path}: {asked} is {now}, not {told}: {line[:300]}")
                count += asked not in ("key", "row")
    print(f"checked {count}")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "draw":
        draw(int(sys.argv[2]), int(sys.argv[3]))
    elif len(sys.argv) > 2 and sys.argv[1] == "check":
        check(sys.argv[2:])
    else:
        sys.exit(__doc__)
