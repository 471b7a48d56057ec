"""The results as Markdown: what was measured on what, a table beside peers, a table of builds, and how cost grows.

    python -m tests.benchmarks.report RESULTS.json ... [--log NAME ...]

Of several files, later ones replace what earlier ones say of the same case on the same log. The table beside peers has a
column for each log, or for those that --log names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .growth import growth

BESIDE_PEERS = ("similarity", "negatives", "sequences", "writing")
PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "pyarrow",
    "polars",
    "pandas",
    "sparse-dot-topn",
    "implicit",
    "lenskit",
    "recbole",
    "torch",
)


def read_results(paths: Iterable[Path]) -> dict[str, Any]:
    """Results of one or several files as one; the machine is that of the last."""
    merged: dict[str, Any] = {"logs": {}, "measurements": []}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in paths:
        results = json.loads(path.read_text("utf-8"))
        merged["machine"], merged["threads"] = results["machine"], results["threads"]
        merged["logs"] |= results["logs"]
        found |= {(m["suite"], m["name"], m["log"]): m for m in results["measurements"]}
    merged["measurements"] = list(found.values())
    return merged


def measured(results: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    return [m for m in results["measurements"] if m["suite"] == suite and m["status"] == "measured"]


def markdown(results: dict[str, Any], only: Iterable[str] = ()) -> str:
    """All of it; the table beside peers on the logs `only`, if any are named."""
    parts = [_conditions(results)]
    logs = sorted(
        {m["log"] for suite in BESIDE_PEERS for m in measured(results, suite)},
        key=lambda n: _size(results, n),
    )
    logs = [log for log in logs if not only or log in only]
    if logs:
        parts.append(_beside_peers(results, logs))
    if builds := measured(results, "builds"):
        parts.append(_builds(results, builds))
    if power := growth(results["measurements"]):
        listed = ", ".join(
            f"{name.partition(': ')[2]} {fit['exponent']:.2f}" for name, fit in power.items()
        )
        parts.append(
            f"Seconds grow with this power of the amount, from log to log (1 is linear): {listed}."
        )
    left = [
        f"{m['name']} on {m['log']} ({m['reason']})"
        for m in results["measurements"]
        if m["status"] != "measured"
    ]
    if left:
        parts.append("Not measured: " + "; ".join(left) + ".")
    return "\n\n".join(parts) + "\n"


def _size(results: dict[str, Any], log: str) -> int:
    return results["logs"][log]["transactions"]


def _conditions(results: dict[str, Any]) -> str:
    on = results["machine"]
    packages = ", ".join(
        f"{name} {on['packages'][name]}" for name in PACKAGES if name in on["packages"]
    )
    loads = [m["load_before"] for m in results["measurements"] if "load_before" in m]
    load = (
        f"; the machine's load was {min(loads):.1f} to {max(loads):.1f} meanwhile, this run included"
        if loads
        else ""
    )
    computer = f"{on['cores']} cores of {on['processor']}, {on['memory_bytes'] / 2**30:.0f} GiB, {on['system']}"
    return (
        f"{on['date'][:10]}, commit {on['commit']}: {computer}, Python {on['python']}, {packages}; {results['threads']} "
        f"threads{load}. Best of up to three runs; in brackets, seconds of cores, which other work changes less."
    )


def _beside_peers(results: dict[str, Any], logs: list[str]) -> str:
    """One row a case; a log's column has seconds (of cores in brackets), rate and peak memory."""
    head = [f"{log} ({_size(results, log):,} rows)" for log in logs]
    lines = [f"| | | {' | '.join(head)} | |", "|---|---|" + "---|" * len(logs) + "---|"]
    cases: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for suite in BESIDE_PEERS:
        for m in measured(results, suite):
            if m["log"] in logs:
                cases.setdefault((suite, m["name"]), {})[m["log"]] = m
    for (suite, name), by_log in cases.items():
        cells = [_cell(by_log[log]) if log in by_log else "not measured" for log in logs]
        last = by_log[max(by_log, key=lambda log: _size(results, log))]
        shown = f"**{name}**" if not last["peer"] else name
        lines.append(f"| {suite} | {shown} | {' | '.join(cells)} | {_remark(last)} |")
    return "\n".join(lines)


def _cell(m: dict[str, Any]) -> str:
    return f"{m['best_s']:.3g} s ({m['core_s']:.3g}), {m['per_s'] / 1e6:.3g} M {m['unit']}/s, {m['peak_bytes'] / 1e9:.2f} GB"


def _remark(m: dict[str, Any]) -> str:
    figures, remarks = m["figures"], [m["note"]] if m["note"] else []
    if "false_share" in figures:
        shares = (
            ("false_share", "false"),
            ("repeated_share", "repeated"),
            ("not_on_sale_share", "not on sale"),
        )
        remarks.append(", ".join(f"{figures[key]:.2%} {word}" for key, word in shares))
    if "bytes_a_row" in figures:
        remarks.append(f"{figures['bytes_a_row']:.1f} bytes a row")
    if "pairs" in figures:
        remarks.append(f"{figures['pairs']:,} pairs")
    return "; ".join(remarks)


def _builds(results: dict[str, Any], builds: list[dict[str, Any]]) -> str:
    stages = list(builds[-1]["figures"]["stages"])
    lines = [
        f"| log | build | samples | seconds | samples/s | peak memory | written | {' | '.join(stages)} |",
        "|---|---|" + "---|" * (5 + len(stages)),
    ]
    for m in sorted(builds, key=lambda m: _size(results, m["log"])):
        sizes = [
            f"{n_bytes / 1e9:.3g} GB"
            for n_bytes in (m["peak_bytes"], m["figures"]["bytes_written"])
        ]
        seconds = [f"{m['figures']['stages'].get(stage, 0):.3g}" for stage in stages]
        cells = [
            m["log"],
            m["name"],
            f"{m['amount']:,}",
            f"{m['best_s']:.4g}",
            f"{m['per_s']:,}",
            *sizes,
            *seconds,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.report", description=__doc__.splitlines()[0]
    )
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--log", nargs="+", default=[], help="logs of the table beside peers")
    options = parser.parse_args()
    print(markdown(read_results(options.results), options.log), end="")


if __name__ == "__main__":
    main()
