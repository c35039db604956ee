"""Rows as a table for a person, or for docs/benchmarks.md.

    table.py FILE [--into PAGE]     the table of an engine.json in Markdown: printed, or put between the marks of a page
"""
import argparse
import json
import pathlib

START, END = "<!-- table -->", "<!-- /table -->"
COLUMNS = [
    ("model", lambda r: r["model"]),
    ("case", lambda r: r["case"]),
    ("where", lambda r: r["where"]),
    ("system", lambda r: r["system"]),
    ("precision", lambda r: r["precision"]),
    ("tokens/s", lambda r: number(r.get("tokens_per_s"))),
    ("rounds", lambda r: str(len(r.get("rounds", [])) or "")),
    ("spread", lambda r: percent(r.get("spread"))),
    ("of bound", lambda r: percent(r.get("of_bound"))),
    ("vs best peer", lambda r: ratio(r.get("vs_best_peer"))),
    ("vs without", lambda r: ratio(r.get("vs_without"))),
    ("peak MiB", lambda r: number(r.get("peak_mib"), 0)),
    ("more", lambda r: more(r)),
]


def number(value, digits=1):
    return "" if value is None else f"{value:,.{digits}f}"


def percent(value):
    return "" if value is None else f"{value:.0%}"


def ratio(value):
    return "" if value is None else f"{value:.2f}"


def more(row):
    parts = []
    if row.get("ttft_ms_p50") is not None:
        parts.append(f"TTFT {row['ttft_ms_p50']:.0f}/{row['ttft_ms_p95']:.0f} ms")
    if row.get("itl_ms_p50") is not None:
        parts.append(f"ITL {row['itl_ms_p50']:.0f}/{row['itl_ms_p95']:.0f} ms")
    if row.get("verify_to_generate") is not None:
        parts.append(f"{row['verify_to_generate']:.1%} of generating")
    if row.get("peak_to_budget") is not None:
        parts.append(f"memory {row['peak_to_budget']:.2f}")
    if row.get("error"):
        parts.append("FAILED: " + row["error"][:90])
    return "; ".join(parts)


def lines(rows):
    order = lambda r: (r["model"], r["where"], r["case"].split()[0], r["batch"], r["case"], -(r.get("tokens_per_s") or 0))
    return [[title for title, _ in COLUMNS]] + [[str(show(row)) for _, show in COLUMNS] for row in sorted(rows, key=order)]


def table(rows):
    shown = lines(rows)
    widths = [max(len(line[i]) for line in shown) for i in range(len(COLUMNS))]
    text = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in shown)
    return text + "\n" + "\n".join(sorted({machine(row) for row in rows}))


def machine(row):
    m = row["machine"]
    bandwidth = m.get("bandwidth_gb_per_s")
    share = m.get("foreign_share")
    return (
        f"{row['model']}: {m['cpu']}, {m['threads']} threads of {m['cores']} cores, {m['seconds']} s; load {m['load_before']:.1f} "
        f"before and {m['load_after']:.1f} after; others took {percent(share)} of the processors; "
        f"memory reads {number(bandwidth)} GB/s (of rounds: {', '.join(number(b) for b in m.get('bandwidths', []))})"
    )


def markdown(rows):
    head, *rest = lines(rows)
    text = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    text += ["| " + " | ".join(line) + " |" for line in rest] + [""]
    return "\n".join(text + [f"- {line}" for line in sorted({machine(row) for row in rows})])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--into", type=pathlib.Path)
    args = parser.parse_args()
    text = markdown(json.loads(args.file.read_text()))
    if not args.into:
        print(text)
        return
    page = args.into.read_text()
    start, end = page.index(START) + len(START), page.index(END)
    args.into.write_text(f"{page[:start]}\n{text}\n{page[end:]}")


if __name__ == "__main__":
    main()
