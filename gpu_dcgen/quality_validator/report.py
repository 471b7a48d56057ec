"""Judge a build: verdicts, alerts, quality_report.json and junit.xml (D20)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from ..config import DatasetConfig
from ..contract.manifest import Balancing, FailedGates, Performance, QualitySummary
from ..contract.quality_report import (
    QUALITY_REPORT,
    Alert,
    GateResult,
    QualityReport,
    Regression,
    ReportedPerformance,
)
from ..contract.schema import CONTRACT
from ..errors import ConfigError, InputError, spell_option
from ..monitoring.alerts import TrackerGroup
from ..monitoring.timing import BuildTimer
from .statistics import Statistics
from .verdicts import Verdict, evaluate, overall, performance_values, require, write_junit

LOW_DIVERSITY, IMBALANCE = 0.6, 0.30  # contract, "Alerting Thresholds"
_WARNED_BY_TIMER = ("performance",)  # sections; `BuildTimer` warns of their failures
_WARNED_BY_STAGES = ("positive_shares",)


class Measures(NamedTuple):
    """What the report needs beside the statistics of the samples."""

    performance: Performance
    data_quality_score: float  # of the inputs
    balancing: Balancing | None


def read_baseline(dataset: Path) -> dict[str, GateResult]:
    """Read the gates of another dataset by name. ConfigError where there are none."""
    try:
        report = QualityReport.load(
            dataset / QUALITY_REPORT, "Give the folder of a dataset that this version built."
        )
    except InputError as error:
        raise ConfigError(f"{spell_option('baseline', str(dataset))}: {error}") from error
    return {gate.name: gate for gate in report.gates}


def write_quality_report(
    folder: Path,
    statistics: Statistics,
    measures: Measures,
    baseline: dict[str, GateResult] | None,
    config: DatasetConfig,
    timer: BuildTimer,
    trackers: TrackerGroup,
) -> QualityReport:
    """Judge the build, raise its alerts, and write quality_report.json and junit.xml.

    Raises GateError when a critical gate failed; the files are written then too.
    """
    values = {
        **statistics.values,
        **performance_values(measures.performance),
        "no_regression": None,
    }
    regressions = None
    if baseline is not None:
        regressions = _regressions(evaluate(values, config), baseline, config.quality.regression)
        values["no_regression"] = len(regressions)
    verdicts = evaluate(values, config)
    _warn(verdicts, timer)
    timer.warn(_alerts(statistics, measures.balancing))
    performance = measures.performance
    sections = {
        name: section
        for name, section in asdict(statistics).items()
        if name not in ("values", "scores")
    }
    report = QualityReport(
        contract=CONTRACT,
        verdict=overall(verdicts),
        scores={**statistics.scores, "input_quality": measures.data_quality_score},
        gates=[GateResult.model_validate(verdict.as_dict()) for verdict in verdicts],
        alerts=[Alert.model_validate(alert) for alert in trackers.alerts],
        regressions=regressions,
        performance=ReportedPerformance(
            seconds=performance.seconds,
            samples_per_s=performance.samples_per_s,
            peak_memory_bytes=performance.peak_memory_bytes,
            written_bytes=performance.written_bytes,
            validation_share=round(timer.checking_share, 4),
        ),
        **sections,
    )
    report.write(folder / QUALITY_REPORT)
    write_junit(folder / "junit.xml", verdicts)
    require(verdicts, folder)
    return report


def manifest_summary(report: QualityReport) -> QualitySummary:
    """Return the manifest's section on quality."""
    failed = [gate for gate in report.gates if gate.verdict == "fail"]
    return QualitySummary(
        verdict=report.verdict,
        scores=report.scores,
        passed=sum(gate.verdict == "pass" for gate in report.gates),
        failed=FailedGates(
            warning=[gate.name for gate in failed if gate.severity == "warning"],
            info=[gate.name for gate in failed if gate.severity == "info"],
        ),
    )


def _warn(verdicts: list[Verdict], timer: BuildTimer) -> None:
    """Warn of gates that failed, but for those of which somebody has warned before."""
    for verdict in verdicts:
        gate = verdict.gate
        is_timed = gate.section in _WARNED_BY_TIMER and gate.name != "no_regression"
        is_reported = is_timed or gate.name in _WARNED_BY_STAGES
        if verdict.failed and gate.severity != "info" and not is_reported:
            timer.warn((f"{verdict.text()}. {gate.remedy}",), gate.severity)


def _alerts(statistics: Statistics, balancing: Balancing | None) -> tuple[str, ...]:
    """Return the contract's alerts that are no gates."""
    alerts = []
    diversity = statistics.scores["diversity"]
    if diversity is not None and diversity < LOW_DIVERSITY:
        alerts.append(
            f"low_negative_diversity: the diversity score is {diversity:.3f}; "
            f"below {LOW_DIVERSITY} warns"
        )
    segments = balancing.segments if balancing else {}
    imbalanced = [
        f"{name} has a weighted share of {segment.share_after:.1%}, target {segment.target:.1%}"
        for name, segment in segments.items()
        if abs(segment.share_after - segment.target) > IMBALANCE * segment.target
    ]
    if imbalanced:
        listed = "; ".join(imbalanced)
        alerts.append(f"category_imbalance: {listed}; more than {IMBALANCE:.0%} off warns")
    return tuple(alerts)


def _regressions(
    verdicts: list[Verdict], baseline: dict[str, GateResult], tolerance: float
) -> list[Regression]:
    """Return the gates that are worse than in the baseline.

    These are gates that passed there and fail now, and gates with a value that is worse by more
    than `tolerance` times the baseline's value.
    """
    worse = []
    for verdict in verdicts:
        earlier = baseline.get(verdict.gate.name)
        if earlier is None or earlier.value is None or verdict.value is None:
            continue
        if verdict.verdict == "info" or verdict.gate.severity == "info":
            continue
        before, now = earlier.value, verdict.value
        loss = before - now if verdict.gate.relation in (">", ">=") else now - before
        has_failed = verdict.failed and earlier.verdict == "pass"
        if has_failed or (loss > 0 and loss > tolerance * abs(before)):
            worse.append(Regression(gate=verdict.gate.name, before=before, now=now))
    return worse
