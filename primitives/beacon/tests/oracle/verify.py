#!/usr/bin/env python3
"""Verifies the value of an epoch by hand: `verify.py FILE`, one JSON object a line, with what anybody can read from the
chain's blocks. Says the value, or stops at the first thing that is false. Needs nothing but Python.

    {"genesis": HEX, "epoch": NUMBER, "value_name": "race" or "audit", "threshold": NUMBER,
     "members": [{"host": HEX, "weight": NUMBER, "key": HEX, "proof": HEX}, ..],     key and proof only if registered
     "slots": NUMBER, "dealings": [{"dealer": HEX, "bytes": HEX}, ..], "openings": [{"host": HEX, "bytes": HEX}, ..],
     "value": HEX}                                                                  the value that the chain shows

A dealing of the running network takes about a second. Lines whose dealings are given only by their hash are skipped.
"""
import json
import sys

from beacon import Committee, Context, add, interpolate, seats, verify_key


def verify(line):
    genesis, epoch, threshold = bytes.fromhex(line["genesis"]), line["epoch"], line["threshold"]
    members = [(bytes.fromhex(member["host"]), member) for member in line["members"]]
    given = seats([(host, member["weight"]) for host, member in members], line["slots"])
    chairs = []
    for (host, member), slots in zip(members, given):
        key = bytes.fromhex(member["key"]) if "key" in member else None
        if key:
            verify_key(genesis, epoch, host, key, bytes.fromhex(member["proof"]))
        if slots:
            chairs.append((host, slots, key))
    committee = Committee(sorted(chairs), threshold)
    context = Context(genesis, epoch, line["value_name"].encode())
    dealings = [(bytes.fromhex(d["dealer"]), bytes.fromhex(d["bytes"])) for d in line["dealings"]]
    for dealer, dealing in dealings:
        assert committee.slots[dealer][1], "the dealer has no key"
        context.verify_dealing(committee, dealer, dealing)
    total, shares = add([dealing for _, dealing in dealings], len(committee.live())), []
    for entry in line["openings"]:
        host, opening = bytes.fromhex(entry["host"]), bytes.fromhex(entry["bytes"])
        context.verify_opening(committee, total, host, opening)
        shares += [(slot, opening[32 * i : 32 * i + 32]) for i, slot in enumerate(committee.slots[host][0])]
    assert len(shares) >= threshold, "too few slots are open"
    value = context.value(dealings, interpolate(shares[:threshold]))
    assert value.hex() == line["value"], "the chain shows another value: " + value.hex()
    return value.hex()


if __name__ == "__main__":
    if not __debug__:
        sys.exit("without -O, which leaves the checks out")
    for text in open(sys.argv[1]):
        line = json.loads(text)
        if all("bytes" in entry for entry in line["dealings"] + line["openings"]):
            print(line["value_name"], "of epoch", line["epoch"], "is", verify(line))
        else:
            print(line["value_name"], "of epoch", line["epoch"], "skipped: its dealings are given by their hash alone")
