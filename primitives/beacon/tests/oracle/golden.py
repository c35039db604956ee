#!/usr/bin/env python3
"""The golden vectors of tests/golden, by the oracle (beacon.py). Six seconds.

    golden.py            recomputes the file and says whether it agrees byte for byte
    golden.py --write    writes it

One epoch's value a line, with all that went into it and came out. What is longer than a kilobyte is given by its hash.
"""
import json
import pathlib
import sys

from beacon import Committee, Context, Key, add, hash256, interpolate, seats
from ristretto import G, ORDER


def epoch(name, which, epoch, weights, slots, threshold, keyless, dealers):
    genesis = hash256(b"golden genesis " + name.encode())
    hosts = [hash256(b"host %d" % i) for i in range(len(weights))]
    seeds = {host: hash256(b"seed " + host) for host in hosts}
    given = dict(zip(hosts, seats(list(zip(hosts, weights)), slots)))
    keys = {host: Key(seeds[host], genesis, epoch, host) for i, host in enumerate(hosts) if i not in keyless}
    members = sorted(host for host in hosts if given[host])
    committee = Committee([(h, given[h], keys[h].public if h in keys else None) for h in members], threshold)
    context = Context(genesis, epoch, which.encode())
    dealings, exponent = [], 0
    assert all(given[hosts[at]] and hosts[at] in keys for at in dealers)
    for at in dealers:
        dealing, secret = context.deal(committee, hosts[at], seeds[hosts[at]])
        context.verify_dealing(committee, hosts[at], dealing)
        dealings.append((hosts[at], dealing))
        exponent += secret
    total = add([dealing for _, dealing in dealings], len(committee.live()))
    openings, shares = [], []
    for host in members:
        if host in keys:
            opening = context.open(committee, total, host, keys[host])
            openings.append((host, opening))
            shares += [(slot, opening[32 * i : 32 * i + 32]) for i, slot in enumerate(committee.slots[host][0])]
    secret = interpolate(shares[:threshold])
    assert secret == interpolate(shares[-threshold:]) == (G * (exponent % ORDER)).encode()

    def text(data):
        return {"bytes": data.hex()} if len(data) <= 1024 else {"hash": hash256(data).hex()}

    return {
        "name": name,
        "genesis": genesis.hex(),
        "epoch": epoch,
        "value_name": which,
        "slots": slots,
        "threshold": threshold,
        "members": [
            {
                "host": host.hex(),
                "weight": weights[i],
                "slots": given[host],
                "seed": seeds[host].hex(),
                **({"key": keys[host].public.hex(), "proof": keys[host].proof().hex()} if host in keys else {}),
            }
            for i, host in enumerate(hosts)
        ],
        "committee": committee.digest.hex(),
        "dealings": [{"dealer": h.hex(), "hash": hash256(d).hex(), **text(d)} for h, d in dealings],
        "sum": text(total),
        "openings": [{"host": h.hex(), **text(o)} for h, o in openings],
        "secret": secret.hex(),
        "value": context.value(dealings, secret).hex(),
    }


CASES = [
    ("one member", "race", 0, [1], 1, 1, [], [0]),
    ("three members", "race", 7, [5, 3, 2], 5, 3, [], [0, 1, 2]),
    ("audit, one without a key, one silent", "audit", 7, [5, 3, 2, 2], 8, 4, [2], [3, 0]),
    ("last epoch, dust without slots", "audit", 2**32 - 1, [900, 700, 500, 1, 1], 6, 4, [], [2, 1]),
    ("the running network's shape", "race", 1234, [3000 + 77 * i for i in range(64)], 128, 65, [3, 40], [0, 63]),
]

if __name__ == "__main__":
    path = pathlib.Path(__file__).resolve().parent.parent / "golden" / "beacon.jsonl"
    text = "".join(json.dumps(epoch(*case)) + "\n" for case in CASES)
    if "--write" in sys.argv:
        path.write_text(text)
    elif path.read_text() != text:
        sys.exit("the oracle disagrees with " + str(path))
    else:
        print("the oracle agrees")
