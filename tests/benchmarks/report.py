"""Render the results as Markdown: conditions, other libraries, builds, and how cost grows.

    python -m tests.benchmarks.report RESULTS.json ... [--log NAME ...]

With several files, later results replace earlier ones of the same case on the same log. The table
of other libraries has a column for each log, or for those that --log names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .growth import fit_growth

PEER_SUITES = ("similarity", "negatives", "sequences", "writing")
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
    """Merge the results of several files; the machine is that of the last."""
    merged: dict[str, Any] = {"logs": {}, "measurements": []}
    by_case: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in paths:
        results = json.loads(path.read_text("utf-8"))
        merged["machine"], merged["threads"] = results["machine"], results["threads"]
        merged["logs"] |= results["logs"]
        by_case |= {(m["suite"], m["name"], m["log"]): m for m in results["measurements"]}
    merged["measurements"] = list(by_case.values())
    return merged


def select_measured(results: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    return [m for m in results["measurements"] if m["suite"] == suite and m["status"] == "measured"]


def render_markdown(results: dict[str, Any], only: Iterable[str] = ()) -> str:
    """Render all results; the table of other libraries on the logs `only`, if any."""
    parts = [_render_conditions(results)]
    logs = sorted(
        {m["log"] for suite in PEER_SUITES for m in select_measured(results, suite)},
        key=lambda n: _count_transactions(results, n),
    )
    logs = [log for log in logs if not only or log in only]
    if logs:
        parts.append(_render_peers(results, logs))
    if builds := select_measured(results, "builds"):
        parts.append(_render_builds(results, builds))
    if power := fit_growth(results["measurements"]):
        listed = ", ".join(
            f"{name.partition(': ')[2]} {fit['exponent']:.2f}" for name, fit in power.items()
        )
        parts.append(
            f"Seconds grow with this power of the amount, from log to log (1 is linear): {listed}."
        )
    skipped = [
        f"{m['name']} on {m['log']} ({m['reason']})"
        for m in results["measurements"]
        if m["status"] != "measured"
    ]
    if skipped:
        parts.append("Not measured: " + "; ".join(skipped) + ".")
    return "\n\n".join(parts) + "\n"


def _count_transactions(results: dict[str, Any], log: str) -> int:
    return results["logs"][log]["transactions"]


def _render_conditions(results: dict[str, Any]) -> str:
    machine = results["machine"]
    packages = ", ".join(
        f"{name} {machine['packages'][name]}" for name in PACKAGES if name in machine["packages"]
    )
    loads = [m["load_before"] for m in results["measurements"] if "load_before" in m]
    load = f"; load {min(loads):.1f} to {max(loads):.1f}, this run included" if loads else ""
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    computer = f"{machine['cores']} cores of {machine['processor']}, {memory}, {machine['system']}"
    return (
        f"{machine['date'][:10]}, commit {machine['commit']}: {computer}, "
        f"Python {machine['python']}, {packages}; {results['threads']} threads{load}. "
        "Best of up to three runs; in brackets, CPU seconds, which other load changes less."
    )


def _render_peers(results: dict[str, Any], logs: list[str]) -> str:
    """Render one row a case: seconds (CPU in brackets), rate and peak memory by log."""
    head = [f"{log} ({_count_transactions(results, log):,} rows)" for log in logs]
    lines = [f"| | | {' | '.join(head)} | |", "|---|---|" + "---|" * len(logs) + "---|"]
    cases: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for suite in PEER_SUITES:
        for m in select_measured(results, suite):
            if m["log"] in logs:
                cases.setdefault((suite, m["name"]), {})[m["log"]] = m
    for (suite, name), by_log in cases.items():
        cells = [_render_cell(by_log[log]) if log in by_log else "not measured" for log in logs]
        last = by_log[max(by_log, key=lambda log: _count_transactions(results, log))]
        shown = f"**{name}**" if not last["peer"] else name
        lines.append(f"| {suite} | {shown} | {' | '.join(cells)} | {_render_remark(last)} |")
    return "\n".join(lines)


def _render_cell(m: dict[str, Any]) -> str:
    rate, memory = f"{m['per_s'] / 1e6:.3g} M {m['unit']}/s", f"{m['peak_bytes'] / 1e9:.2f} GB"
    return f"{m['best_s']:.3g} s ({m['core_s']:.3g}), {rate}, {memory}"


def _render_remark(m: dict[str, Any]) -> str:
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


def _render_builds(results: dict[str, Any], builds: list[dict[str, Any]]) -> str:
    stages = list(builds[-1]["figures"]["stages"])
    head = ["log", "build", "samples", "seconds", "samples/s", "peak memory", "written", *stages]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for m in sorted(builds, key=lambda m: _count_transactions(results, m["log"])):
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
    parser.add_argument("--log", nargs="+", default=[], help="logs of the table of other libraries")
    options = parser.parse_args()
    print(render_markdown(read_results(options.results), options.log), end="")


if __name__ == "__main__":
    main()
