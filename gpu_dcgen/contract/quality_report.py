"""quality_report.json: gates, alerts, distributions and the funnel of a build (D20).

Shares and scores are 0..1; a value that does not exist in a build is null.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from .documents import Document, Number, Section

QUALITY_REPORT = "quality_report.json"


class GateResult(Section):
    """A gate with its value: `value relation threshold` is to hold."""

    name: str
    """Its name, as in `quality.thresholds`."""
    section: str
    """The section of the contract."""
    line: str
    """The contract's own words, or a decision."""
    metric: str
    """What the value is, with its unit."""
    relation: str
    """`>`, `>=`, `<=` or `<`."""
    threshold: Number | None
    """Null where the value is only reported."""
    severity: Literal["critical", "warning", "info"]
    """What a failure means; a critical one stops publication."""
    remedy: str
    """What to do about a failure."""
    threshold_reason: str | None
    """Why this threshold; null where it is the contract's or a decision's."""
    value: Number | None
    """The value; null where it does not exist in this build."""
    verdict: Literal["pass", "fail", "skip", "info"]
    """`skip` without a value, `info` without a threshold."""


class Alert(Section):
    """A warning or critical message of the build."""

    level: Literal["warning", "critical"]
    """Its level."""
    text: str
    """The message."""


class Regression(Section):
    """A gate that is worse than in the baseline."""

    gate: str
    """Its name."""
    before: Number
    """The baseline's value."""
    now: Number
    """This build's value."""


class ReportedPerformance(Section):
    """Time and resources of the build; manifest.json has more."""

    seconds: float
    """Wall-clock time."""
    samples_per_s: int
    """Rows per second of the whole build."""
    peak_memory_bytes: int
    """Peak memory."""
    written_bytes: int
    """Size of all files."""
    validation_share: float
    """Of the time of stage `samples`: checking the samples."""


class LabelCounts(Section):
    """Rows of a split by label."""

    positive: int
    """Positives."""
    negative: int
    """Negatives."""


class Distributions(Section):
    """Counts of a split's positives; price and similarity are of all its rows."""

    product_group: list[int]
    """First without a product group, then by its code in category_mappings.json."""
    weeks: list[int]
    """By week of the log."""
    activity: list[int]
    """By earlier purchases of the user: 0, 1, 2-3, 4-7, 8-15, ..."""
    history: list[int]
    """By length of the history."""
    price: list[int]
    """By normalized price: 20 bins of equal width over 0..1, then without one."""
    similarity: list[int]
    """By similarity: 20 bins of equal width over 0..1, then without one."""


class TransactionFunnel(Section):
    """Where each transaction went.

    Beside the keys below, each key is a reason for which transactions became no positive.
    """

    __pydantic_extra__: dict[str, int] = Field(init=False)

    read: int
    """Rows of the input."""
    rejected: dict[str, int]
    """By reason, bad rows (D2)."""
    accepted: int
    """Rows that were accepted."""
    collapsed: int
    """Repeated purchases of an item within a basket, counted once (D4)."""
    cold_user: int
    """Of users with too few purchases."""
    cold_item: int
    """Of items with too few purchases."""
    emitted: dict[str, int]
    """By split, transactions that became a positive."""


class DrawnNegatives(Section):
    """The negatives of a source."""

    drawn: int
    """Negatives."""
    later_bought: int
    """Of which the user bought the item after the window."""
    later_bought_share: float | None
    """The share of these; null without negatives."""


class CandidateOutcomes(Section):
    """What became of the candidates of a source; all but `offered` add up to it."""

    offered: int
    """Candidates."""
    owned: int
    """Bought by the user before the window's end."""
    not_drawn: int
    """Others were drawn, or chosen for their score."""
    chosen: int
    """Became a hard negative."""


class CandidateFunnel(Section):
    """What became of the candidates for hard negatives, on a seeded sample of positives."""

    positives: int
    """Positives with counted candidates."""
    one_in: int
    """One in this many positives was looked at."""
    by_source: dict[str, CandidateOutcomes]
    """By source."""


class NegativeFunnel(Section):
    """Where negatives come from."""

    drawn: int
    """Negatives of all splits."""
    by_source: dict[str, DrawnNegatives]
    """By source."""
    candidates: CandidateFunnel | None
    """The candidates for hard negatives; null without hard negatives."""
    shortfall: int
    """Hard negatives that no source had, drawn at random instead."""
    relaxed: int | None
    """Hard negatives beyond the cap on the positive's own product group; null without groups."""


class Funnel(Section):
    """From input rows to samples."""

    transactions: TransactionFunnel
    """Where each transaction went."""
    negatives: NegativeFunnel
    """Where negatives come from."""


class QualityReport(Document):
    """quality_report.json, also written when a critical gate failed."""

    model_config = ConfigDict(title=QUALITY_REPORT)

    contract: str
    """Name and version of the data contract."""
    verdict: Literal["passed", "passed with warnings", "failed"]
    """The verdict of all gates."""
    scores: dict[str, float | None]
    """completeness, consistency, diversity, coverage and input_quality."""
    gates: list[GateResult]
    """Every gate, in the order of the reference."""
    alerts: list[Alert]
    """Warnings and critical messages in the order in which they came."""
    regressions: list[Regression] | None
    """Gates that are worse than in the baseline; null without one."""
    performance: ReportedPerformance
    """Time and resources of the build."""
    labels: dict[str, LabelCounts]
    """By split, its rows by label."""
    completeness: dict[str, float]
    """By column, the share of samples with a value."""
    distributions: dict[str, Distributions]
    """By split, counts of its positives."""
    popularity: dict[str, dict[str, float]]
    """For positive, hard and random rows: the share taken by the most popular 0.1 %, 1 %, ..."""
    segments: dict[str, float] | None
    """By segment of users, its share of the train positives' weight; null without weights."""
    funnel: Funnel
    """From input rows to samples."""
