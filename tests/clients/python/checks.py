"""Named checks, one line of JSON each, and their result as the exit status; `js/lib/check.mjs` is the same for JavaScript."""

import json
import os
import sys
import time

MODEL = os.environ.get("PACER_MODEL") or "pacer-demo"
failed = 0


def check(name, body):
    """Runs a check, prints what it returns and returns it with `ok`; a failure does not keep later ones from running."""
    global failed
    start = time.monotonic()
    try:
        outcome = {"ok": True, **(body() or {})}
    except Exception as error:  # whatever it is, it is a failed check
        failed += 1
        outcome = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    print(json.dumps({"check": name, "ms": round((time.monotonic() - start) * 1e3), **outcome}), flush=True)
    return outcome


def ensure(condition, message):
    if not condition:
        raise AssertionError(message)


def same(actual, expected, what):
    ensure(actual == expected, f"{what} is {actual!r}, not {expected!r}")


def missing(what):
    """Ends the process because a variable is missing."""
    print(f"{what}; see tests/clients/README.md", file=sys.stderr)
    sys.exit(2)


def end():
    """Ends the process with the result of all checks."""
    print(json.dumps({"done": True, "failed": failed}))
    sys.exit(1 if failed else 0)
