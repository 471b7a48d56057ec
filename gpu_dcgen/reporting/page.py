"""Compile the content of the page, section by section; page.html lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..contract.quality_report import GateResult, QualityReport
from ..contract.schema import SPLITS
from . import charts
from .documents import SIMILARITY_BINS, Documents, count_similarities
from .numbers import NONE, Numbers, choose_form, format_number, shorten
from .samples import read_samples

VERDICTS = {
    "pass": ("✓", "passed"),
    "fail": ("✕", "failed"),
    "skip": ("–", "no value"),
    "info": ("i", "for information"),
}
OUTCOMES = {
    "left_out": "left out by the settings: times, events or ratings",
    "rejected": "bad rows, set aside",
    "collapsed": "same user, item and time: counted once",
    "cold_user": "user with too few purchases",
    "cold_item": "item with too few purchases",
    "no_split": "user in no split",
    "history": "before the user's window: history",
    "later_unused": "after the user's window: left out, so that nothing leaks",
    "repurchase": "bought before, and repurchases are dropped",
    "in_gap": "within split.gap_days before val or test",
    "short_history": "too few earlier purchases",
    "over_cap": "beyond the user's latest purchases that count",
    "not_on_sale": "item not on sale at the time",
    "corpus_too_small": "too few items to draw negatives from",
}
SOURCES = {
    "item_cf": "items bought by the same people",
    "collaborative": "items recently bought by other buyers of the positive",
    "viewed": "items recently viewed, and not bought, by other buyers of the positive",
    "category_crossing": "same price category, another product group",
    "fallback": "at random, for lack of candidates",
    "random": "at random from the items on sale",
}
_MAX_ALERTS = 30
_SEVERITIES = ("critical", "warning", "info")  # the most important first
_SIMILAR_BIN = round(0.3 * SIMILARITY_BINS)  # the first that the contract calls hard
_POPULARITY_GAP = 0.1  # between shares of rows, below which popularity tells little
_SHARE_OF_POSITIVES = "share of positives"


@dataclass(frozen=True)
class FunnelStep:
    """A line of the funnel: the transactions with one outcome."""

    name: str
    meaning: str
    n_lost: Markup
    remaining: float  # share of all transactions that is left after it
    share: float  # of all transactions
    is_positive: bool = False


@dataclass(frozen=True)
class GateRow:
    """A gate, with its numbers formatted by their units."""

    gate: GateResult
    mark: str
    word: str
    relation: str
    value: Markup
    threshold: Markup


@dataclass(frozen=True)
class Chart:
    """A chart with the table of its numbers."""

    title: str
    note: str | Markup
    svg: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    is_wide: bool = False
    colors: Sequence[str] = SPLITS  # what the colors are, for the key


@dataclass(frozen=True)
class Distribution:
    """A distribution of quality_report.json to chart, by split."""

    name: str  # its key
    title: str
    note: str | Markup
    labels: Sequence[Any]  # of the entries that are charted
    x_title: str
    y_title: str = _SHARE_OF_POSITIVES
    first: int = 0  # entry of the first label
    last_label: str | Markup | None = None  # of the last entry, where only the table has it
    is_of_all: bool = False  # whether shares are of all entries, not of the charted ones


def render(documents: Documents, n_samples: int) -> str:
    """Render the whole page."""
    manifest, report = documents.manifest, documents.quality_report
    n = Numbers(manifest=manifest.to_dict(), quality_report=report.to_dict(), probe=documents.probe)
    folder = Path(__file__).parent
    page = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters.update(short=shorten, percent=lambda share: f"{share:.4%}")
    page.globals.update(n=n, number=format_number, dash=NONE, sources=SOURCES, splits=SPLITS)
    gates = [_format_gate(k, gate, n) for k, gate in enumerate(report.gates)]
    return page.get_template("page.html").render(
        name=documents.folder.resolve().name,
        style=Markup((folder / "style.css").read_text("utf-8")),
        manifest=manifest,
        report=report,
        certificate=documents.certificate,
        probe=documents.probe,
        failed=sorted(
            (row for row in gates if row.gate.verdict == "fail"),
            key=lambda row: _SEVERITIES.index(row.gate.severity),
        ),
        gates=gates,
        sections=list(dict.fromkeys(gate.section for gate in report.gates)),
        # The sort is stable: within a level, in the order of the build.
        alerts=sorted(report.alerts, key=lambda alert: alert.level != "critical")[:_MAX_ALERTS],
        n_hidden_alerts=max(0, len(report.alerts) - _MAX_ALERTS),
        funnel=_list_funnel(documents, n),
        timeline=_chart_timeline(documents, n),
        distributions=_chart_distributions(documents, n),
        hardness=_chart_hardness(documents, n),
        samples=read_samples(documents, n_samples) if n_samples else [],
        config=_list_settings(manifest.config),
    )


def _format_gate(position: int, gate: GateResult, n: Numbers) -> GateRow:
    value = partial(n, "quality_report", "gates", position, form=choose_form(gate.metric))
    mark, word = VERDICTS[gate.verdict]
    if gate.verdict == "fail" and gate.severity != "critical":
        mark, word = "!", "warning" if gate.severity == "warning" else "not met"
    relation = {">=": "≥", "<=": "≤"}.get(gate.relation, gate.relation)
    return GateRow(gate, mark, word, relation, value("value"), value("threshold"))


def _list_funnel(documents: Documents, n: Numbers) -> list[FunnelStep]:
    """List the outcomes of all transactions, in the order in which they are decided."""
    funnel = documents.quality_report.funnel.transactions
    rows = documents.manifest.inputs.rows["transactions"]
    steps: list[FunnelStep] = []
    n_left = funnel.read

    def add(name: str, n_lost: int, number: Markup, is_positive: bool = False) -> None:
        nonlocal n_left
        n_left -= n_lost
        total = max(1, funnel.read)
        title, meaning = name.replace("_", " "), OUTCOMES.get(name, "")
        shares = max(0, n_left) / total, n_lost / total
        steps.append(FunnelStep(title, meaning, number, *shares, is_positive))

    # `collapsed` is here copies of a row, in the funnel below duplicate lines of a purchase.
    for name, n_lost in (
        ("left_out", rows.left_out),
        ("rejected", rows.rejected),
        ("collapsed", rows.collapsed),
    ):
        if n_lost:
            add(name, n_lost, n("manifest", "inputs", "rows", "transactions", name))
    for name, n_lost in funnel.to_dict().items():
        if isinstance(n_lost, int) and name not in ("read", "accepted") and n_lost:
            add(name, n_lost, n("quality_report", "funnel", "transactions", name))
    for split, n_emitted in funnel.emitted.items():
        number = n("quality_report", "funnel", "transactions", "emitted", split)
        add(split, n_emitted, number, is_positive=True)
    return steps


def _get_counts(report: QualityReport, name: str) -> dict[str, list[int]]:
    """Return a distribution of each split."""
    return {split: getattr(report.distributions[split], name) for split in SPLITS}


def _format_counts(name: str, position: int, n: Numbers) -> list[Markup]:
    """Format an entry of a distribution, for each split."""
    return [n("quality_report", "distributions", split, name, position) for split in SPLITS]


def _chart_timeline(documents: Documents, n: Numbers) -> Chart:
    weeks = _get_counts(documents.quality_report, "weeks")
    rows = [
        [format_number(k + 1), *_format_counts("weeks", k, n)] for k in range(len(weeks["train"]))
    ]
    note = (
        "Above, pale: how far back a split's histories may reach; full: when its positives "
        "happened. Below: positives by week."
    )
    spec = charts.show_timeline(documents.manifest.split.windows, weeks)
    svg = charts.draw_svg(spec, "Windows of the splits, and positives by week")
    return Chart("Windows", note, svg, ["week", *SPLITS], rows, is_wide=True)


def _chart_distributions(documents: Documents, n: Numbers) -> list[Chart]:
    report = documents.quality_report
    n_prices = len(report.distributions["train"].price) - 1  # the last entry has no price
    price = Distribution(
        "price",
        "Price of the positive",
        "Normalized: 0 is the 1st percentile of the train window's prices, 1 the 99th.",
        [k / n_prices for k in range(n_prices)],
        "normalized price",
        last_label="not known",
    )
    first, labels = _label_activity(_get_counts(report, "activity"))
    activity = Distribution(
        "activity",
        "Experience of the user",
        "Purchases of the user before the positive, in doubling steps.",
        labels,
        "earlier purchases",
        first=first,
    )
    histories = _get_counts(report, "history")
    full = len(histories["train"]) - 1  # in the chart, full histories would dwarf the others
    full_shares = Markup(", ").join(
        Markup("{} {}").format(
            format_number(charts.compute_shares(histories[split])[full], "share"), split
        )
        for split in SPLITS
    )
    note = Markup("Below {}, at which histories are cut; that many have {}.")
    history = Distribution(
        "history",
        "Length of the history",
        note.format(format_number(full), full_shares),
        range(full),
        "items in the sequence",
        last_label=format_number(full),
        is_of_all=True,
    )
    distributions = (price, activity, history)
    return [
        _chart_groups(documents, n),
        *(_chart_distribution(distribution, report, n) for distribution in distributions),
    ]


def _label_activity(counts: dict[str, list[int]]) -> tuple[int, list[str]]:
    """Return the first entry of `activity` that any split has, and labels up to the last one."""
    vectors = list(counts.values())
    filled = [k for k in range(len(vectors[0])) if any(vector[k] for vector in vectors)] or [0]
    return filled[0], [
        f"{1 << k - 1:,}+" if k > 1 else f"{k}" for k in range(filled[0], filled[-1] + 1)
    ]


def _chart_distribution(distribution: Distribution, report: QualityReport, n: Numbers) -> Chart:
    name, labels = distribution.name, distribution.labels
    counts = _get_counts(report, name)
    last = distribution.first + len(labels)
    shown = {split: vector[distribution.first : last] for split, vector in counts.items()}
    rows = [
        [
            label if isinstance(label, str) else format_number(label, "number"),
            *_format_counts(name, distribution.first + k, n),
        ]
        for k, label in enumerate(labels)
    ]
    if distribution.last_label is not None:
        rows.append([distribution.last_label, *_format_counts(name, last, n)])
    totals = {split: sum(vector) for split, vector in counts.items()}
    spec = charts.show_by_split(
        labels,
        shown,
        totals if distribution.is_of_all else None,
        distribution.x_title,
        distribution.y_title,
    )
    svg = charts.draw_svg(spec, distribution.title)
    return Chart(distribution.title, distribution.note, svg, [distribution.x_title, *SPLITS], rows)


def _chart_groups(documents: Documents, n: Numbers) -> Chart:
    """Chart product groups by their positives; those beyond the first dozen are only summed."""
    names = documents.list_product_groups()
    counts = _get_counts(documents.quality_report, "product_group")
    size = [sum(vector[k] for vector in counts.values()) for k in range(len(names))]
    order = [k for k in sorted(range(len(names)), key=lambda k: (-size[k], k)) if size[k]]
    top, rest = order[: charts.MAX_GROUPS], order[charts.MAX_GROUPS :]
    labels = [name if (name := names[k]) is not None else "no product group" for k in top]
    rows: list[list[Any]] = [
        [shorten(label), *_format_counts("product_group", k, n)]
        for label, k in zip(labels, top, strict=True)
    ]
    if rest:
        sums = [format_number(sum(counts[split][k] for k in rest)) for split in SPLITS]
        rows.append([f"{len(rest):,} others", *sums])
    shown = {split: [vector[k] for k in top] for split, vector in counts.items()}
    totals = {split: sum(vector) for split, vector in counts.items()}
    svg = charts.draw_svg(
        charts.show_groups_by_split(labels, shown, totals),
        "Product groups of the positives, by split",
    )
    note = (
        "Share of each split's positives, largest groups first. Where the marks lie apart, seasons "
        "or new ranges changed the shop."
    )
    return Chart("Product groups", note, svg, ["product group", *SPLITS], rows, is_wide=True)


def _chart_hardness(documents: Documents, n: Numbers) -> list[Chart]:
    counts = _get_counts(documents.quality_report, "similarity").values()
    n_unknown = sum(vector[-1] for vector in counts)
    n_hard = sum(map(sum, counts))
    n_similar = sum(sum(vector[_SIMILAR_BIN:-1]) for vector in counts)
    share = n_similar / max(1, n_hard)
    note = Markup(
        "{} Similarity of a hard negative to its positive: {} have 0.3 or more, which the contract "
        "calls hard; {} have none, for too few buyers in common."
    )
    verdict = "Most are hard." if share >= 0.5 else "Most are hard by category or co-purchase only."
    hardness = Distribution(
        "similarity",
        "Hardness",
        note.format(
            verdict,
            format_number(share, "share"),
            format_number(n_unknown / max(1, n_hard), "share"),
        ),
        [k / SIMILARITY_BINS for k in range(SIMILARITY_BINS)],
        "similarity to the positive",
        "share of those known",
        last_label="not known",
    )
    return [
        _chart_distribution(hardness, documents.quality_report, n),
        _chart_similarities(documents),
        _chart_popularity(documents.quality_report.popularity, n),
    ]


def _chart_similarities(documents: Documents) -> Chart:
    counts = count_similarities(documents)
    spec = charts.show_histogram(counts, "similarity", "pairs")
    svg = charts.draw_svg(spec, "Pairs of items by similarity")
    rows = [
        [format_number(k / SIMILARITY_BINS, "number"), format_number(n_pairs)]
        for k, n_pairs in enumerate(counts)
    ]
    note = Markup("{} pairs of items with buyers in common, in item_similarity_matrix.parquet.")
    note = note.format(format_number(sum(counts)))
    return Chart("Similar items", note, svg, ["similarity from", "pairs"], rows, colors=())


def _chart_popularity(popularity: dict[str, dict[str, float]], n: Numbers) -> Chart:
    spec = charts.show_concentration(popularity)
    svg = charts.draw_svg(spec, "Share of the rows that the most popular items take")
    kinds = list(popularity)
    rows = [
        [share, *(n("quality_report", "popularity", kind, share, form="share") for kind in kinds)]
        for share in popularity[kinds[0]]
    ]
    note = (
        f"{_judge_popularity(popularity)} The higher the line, the more a kind of row consists of "
        "the most popular items; dotted: all items equally popular."
    )
    return Chart("Popularity", note, svg, ["most popular", *kinds], rows, colors=kinds)


def _judge_popularity(popularity: dict[str, dict[str, float]]) -> str:
    """Say whether popularity alone tells positives from negatives."""
    shares = {kind: shares["10.0%"] for kind, shares in popularity.items()}
    gap = shares["positive"] - shares["random"]
    listed = ", ".join(f"{share:.0%} of the {kind} rows" for kind, share in shares.items())
    verdict = "Popularity alone tells most positives from random negatives"
    if gap < _POPULARITY_GAP:
        verdict = "Popularity alone hardly tells positives from random negatives"
    return f"{verdict}: the most popular tenth of the items has {listed}."


def _list_settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """List the settings of the build as `section.key` with their values."""
    settings: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            settings += [
                (f"{name}.{key}", shorten(inner, 200)) for key, inner in _list_settings(value)
            ]
        else:
            settings.append((name, shorten(value, 200)))
    return settings
