"""What the page says, section by section; page.html decides how it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..contract.schema import SPLITS
from . import pictures
from .documents import SIMILARITY_BINS, Documents, similarity_counts
from .numbers import NONE, Numbers, form_of, number, shortened
from .samples import read_samples

VERDICTS = {
    "pass": ("✓", "holds"),
    "fail": ("✕", "fails"),
    "skip": ("–", "no value"),
    "info": ("i", "for information"),
}
OUTCOMES = {
    "rejected": "bad rows, set aside",
    "collapsed": "same user, item and moment: counted once",
    "cold_user": "user with too few purchases",
    "cold_item": "item with too few purchases",
    "no_split": "user who is in no split",
    "history": "before the user's window: history",
    "later_unused": "after the user's window: left out, so that nothing leaks",
    "repurchase": "bought before, and repurchases are dropped",
    "short_history": "too few earlier purchases",
    "over_cap": "beyond the user's latest purchases that count",
    "not_on_sale": "item not on sale at the moment",
    "corpus_too_small": "too few items to draw negatives from",
}
SOURCES = {
    "item_cf": "items bought by the same people",
    "collaborative": "items just bought by other buyers of the positive",
    "category_crossing": "same price class, another product group",
    "fallback": "at random, for want of candidates",
    "random": "at random from what was on sale",
}
_MOST_ALERTS = 30


@dataclass(frozen=True)
class Step:
    """One line of a funnel: what left it, and how much was in it before."""

    name: str
    meaning: str
    lost: Markup
    start: float  # share of all that is left after it
    width: float  # share of all that left
    kept: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    note: str | Markup
    picture: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    wide: bool = False
    splits: bool = True  # whether its colors are splits


def render(documents: Documents, n_samples: int) -> str:
    """The whole page."""
    n = Numbers(manifest=documents.manifest, quality_report=documents.quality_report)
    here = Path(__file__).parent
    page = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters.update(short=shortened, percent=lambda share: f"{share:.4%}".replace(" ", ""))
    page.globals.update(n=n, number=number, dash=NONE, sources=SOURCES, splits=SPLITS)
    report = documents.quality_report
    failed = [(k, gate) for k, gate in enumerate(report["gates"]) if gate["verdict"] == "fail"]
    return page.get_template("page.html").render(
        name=documents.folder.resolve().name,
        style=Markup((here / "style.css").read_text("utf-8")),
        manifest=documents.manifest,
        report=report,
        certificate=documents.certificate,
        total_rows=sum(split["rows"] for split in documents.manifest["counts"].values()),
        total_positives=sum(split["groups"] for split in documents.manifest["counts"].values()),
        failed=failed,
        gates=_gates(report["gates"], n),
        sections=list(dict.fromkeys(gate["section"] for gate in report["gates"])),
        alerts=report["alerts"][:_MOST_ALERTS],
        hidden_alerts=max(0, len(report["alerts"]) - _MOST_ALERTS),
        funnel=_funnel(documents, n),
        timeline=_timeline(documents, n),
        distributions=_distributions(documents, n),
        hardness=_hardness(documents, n),
        samples=read_samples(documents, n_samples) if n_samples else [],
        config=_settings(documents.manifest["config"]),
    )


def _gates(gates: list[dict[str, Any]], n: Numbers) -> list[dict[str, Any]]:
    """The gates with their numbers written by their units."""
    rows = []
    for k, gate in enumerate(gates):
        value = partial(n, "quality_report", "gates", k, form=form_of(gate["metric"]))
        mark, word = VERDICTS[gate["verdict"]]
        if gate["verdict"] == "fail" and gate["severity"] != "critical":
            mark, word = "!", "warns" if gate["severity"] == "warning" else "is off"
        relation = {">=": "≥", "<=": "≤"}.get(gate["relation"], gate["relation"])
        written = {
            "value_text": value("value"),
            "threshold_text": value("threshold"),
            "relation": relation,
        }
        rows.append({**gate, **written, "mark": mark, "word": word})
    return rows


def _funnel(documents: Documents, n: Numbers) -> list[Step]:
    """Every transaction's fate, in the order in which they are told apart."""
    found, rows = (
        documents.quality_report["funnel"]["transactions"],
        documents.manifest["inputs"]["rows"]["transactions"],
    )
    total, left = max(1, found["read"]), found["read"]
    steps = []

    def step(name: str, lost: int, text: Markup, kept: bool = False) -> None:
        nonlocal left
        left -= lost
        steps.append(
            Step(
                name.replace("_", " "),
                OUTCOMES.get(name, ""),
                text,
                max(0, left) / total,
                lost / total,
                kept,
            )
        )

    if rows["rejected"]:
        step(
            "rejected",
            rows["rejected"],
            n("manifest", "inputs", "rows", "transactions", "rejected"),
        )
    if rows.get("collapsed"):
        step(
            "collapsed",
            rows["collapsed"],
            n("manifest", "inputs", "rows", "transactions", "collapsed"),
        )
    for name, lost in found.items():
        if isinstance(lost, int) and name not in ("read", "accepted") and lost:
            step(name, lost, n("quality_report", "funnel", "transactions", name))
    for split, kept in found["emitted"].items():
        step(split, kept, n("quality_report", "funnel", "transactions", "emitted", split), True)
    return steps


def _timeline(documents: Documents, n: Numbers) -> Chart:
    weeks = {split: documents.quality_report["distributions"][split]["weeks"] for split in SPLITS}
    rows = [
        [
            number(k + 1),
            *(n("quality_report", "distributions", split, "weeks", k) for split in SPLITS),
        ]
        for k in range(len(weeks["train"]))
    ]
    note = "Above, pale: how far back a split's histories may reach; full: when its positives happened. Below: positives by week."
    picture = pictures.draw(
        pictures.timeline(documents.manifest["split"], weeks),
        "Windows of the splits, and positives by week",
    )
    return Chart("Windows", note, picture, ["week", *SPLITS], rows, wide=True)


def _distributions(documents: Documents, n: Numbers) -> list[Chart]:
    counts = documents.quality_report["distributions"]
    n_history, n_price = (len(counts["train"][name]) for name in ("history", "price"))
    prices = [k / (n_price - 1) for k in range(n_price - 1)]
    activity, labels = _activity(counts)
    note = "Normalized: 0 is the 1st percentile of the train window's prices, 1 the 99th."
    charts = [_groups(documents, n)]
    share = "share of positives"
    charts.append(
        _by_split(
            "Price of the positive", note, "price", prices, "normalized price", share, counts, n
        )
    )
    note = "Purchases of the user before the positive, in doubling steps."
    charts.append(
        _by_split(
            "Experience of the user",
            note,
            "activity",
            labels,
            "earlier purchases",
            share,
            counts,
            n,
            activity,
        )
    )
    full = n_history - 1  # drawn with the others, it would hide them
    at_cap = {
        split: number(pictures.shares(counts[split]["history"])[full], "share") for split in SPLITS
    }
    at_cap = Markup(", ").join(
        Markup("{} {}").format(share, split) for split, share in at_cap.items()
    )
    note = Markup("Below {}, at which histories are cut; that many have {}.").format(
        number(full), at_cap
    )
    charts.append(
        _by_split(
            "Length of the history",
            note,
            "history",
            range(full),
            "items in the sequence",
            share,
            counts,
            n,
        )
    )
    return charts


def _activity(counts: dict[str, Any]) -> tuple[range, list[str]]:
    """The places of `activity` from the first to the last that any split fills, and what they stand for."""
    vectors = [counts[split]["activity"] for split in SPLITS]
    filled = [k for k in range(len(vectors[0])) if any(vector[k] for vector in vectors)] or [0]
    places = range(filled[0], filled[-1] + 1)
    return places, [f"{1 << k - 1:,}+" if k > 1 else f"{k}" for k in places]


def _by_split(
    title: str,
    note: str | Markup,
    name: str,
    labels: Sequence[Any],
    x_title: str,
    y_title: str,
    counts: dict[str, Any],
    n: Numbers,
    places: range | None = None,
) -> Chart:
    places = places if places is not None else range(len(labels))
    shown = {split: [counts[split][name][k] for k in places] for split in SPLITS}
    rows = [
        [number(label, "number") if not isinstance(label, str) else label,
         *(n("quality_report", "distributions", split, name, k) for split in SPLITS)]
        for label, k in zip(labels, places, strict=True)
    ]  # fmt: skip
    if len(places) < len(counts["train"][name]) and name != "activity":
        k = len(counts["train"][name]) - 1
        last = number(k) if name == "history" else "not known"
        rows.append(
            [last, *(n("quality_report", "distributions", split, name, k) for split in SPLITS)]
        )
    whole = {split: sum(counts[split][name]) for split in SPLITS}
    picture = pictures.draw(
        pictures.by_split(labels, shown, whole if name == "history" else None, x_title, y_title),
        title,
    )
    return Chart(title, note, picture, [x_title, *SPLITS], rows)


def _groups(documents: Documents, n: Numbers) -> Chart:
    """Product groups by their number of positives; those beyond the first dozen together, and in the table only."""
    names = documents.categories()
    vectors = {
        split: documents.quality_report["distributions"][split]["product_group"] for split in SPLITS
    }
    order = sorted(
        range(len(names)), key=lambda k: (-sum(vector[k] for vector in vectors.values()), k)
    )
    order = [k for k in order if any(vector[k] for vector in vectors.values())]
    top, others = order[: pictures.MOST_GROUPS], order[pictures.MOST_GROUPS :]
    labels = ["no product group" if names[k] is None else names[k] for k in top]
    shown = {split: [vector[k] for k in top] for split, vector in vectors.items()}
    rows = [
        [
            shortened(label),
            *(n("quality_report", "distributions", split, "product_group", k) for split in SPLITS),
        ]
        for label, k in zip(labels, top, strict=True)
    ]
    if others:
        sums = {split: sum(vector[k] for k in others) for split, vector in vectors.items()}
        rows.append([f"{len(others):,} others", *(number(sums[split]) for split in SPLITS)])
    whole = {split: sum(vector) for split, vector in vectors.items()}
    picture = pictures.draw(
        pictures.groups_by_split(labels, shown, whole), "Product groups of the positives, by split"
    )
    note = "Share of each split's positives, largest groups first. Where the marks lie apart, seasons or new ranges moved the shop."
    return Chart("Product groups", note, picture, ["product group", *SPLITS], rows, wide=True)


def _hardness(documents: Documents, n: Numbers) -> list[Chart]:
    counts = documents.quality_report["distributions"]
    bins = [k / SIMILARITY_BINS for k in range(SIMILARITY_BINS)]
    known = sum(sum(counts[split]["similarity"][:-1]) for split in SPLITS)
    unknown = sum(counts[split]["similarity"][-1] for split in SPLITS)
    note = Markup(
        "Similarity of a hard negative to its positive; {} have none: too few buyers in common."
    ).format(number(unknown / max(1, known + unknown), "share"))
    hard = _by_split(
        "Hardness",
        note,
        "similarity",
        bins,
        "similarity to the positive",
        "share of those known",
        counts,
        n,
    )
    pairs = similarity_counts(documents)
    picture = pictures.draw(
        pictures.histogram(pairs, "similarity", "pairs"), "Pairs of items by similarity"
    )
    rows = [[number(k / SIMILARITY_BINS, "number"), number(pair)] for k, pair in enumerate(pairs)]
    note = Markup(
        "{} pairs of items with buyers in common, as item_similarity_matrix.parquet keeps them."
    ).format(number(sum(pairs)))
    matrix = Chart("Similar items", note, picture, ["similarity from", "pairs"], rows, splits=False)
    popularity = documents.quality_report["popularity"]
    picture = pictures.draw(
        pictures.concentration(popularity), "Share of the rows that the most popular items take"
    )
    kinds = list(popularity)
    rows = [
        [share, *(n("quality_report", "popularity", kind, share, form="share") for kind in kinds)]
        for share in popularity[kinds[0]]
    ]
    note = "The higher the line, the more a kind of row leans on the most popular items; dotted: all items alike."
    curve = Chart("Popularity", note, picture, ["most popular", *kinds], rows, splits=False)
    return [hard, matrix, curve]


def _settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Every setting of the build as `section.key`, with its value."""
    found = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += [(f"{name}.{key}", shortened(inner, 200)) for key, inner in _settings(value)]
        else:
            found.append((name, shortened(value, 200)))
    return found
