"""Statistics and performance -> verdicts, alerts, and what lies beside the dataset: quality_report.json and junit.xml (D20).

quality_report.json; shares and scores are 0..1, SPLIT is train, val or test, a value that does not exist is null:

contract        "DC-002 1.0.0"
verdict         "passed", "passed with warnings" or "failed"
scores          completeness, consistency, diversity, coverage, input_quality
gates           [{name, section, line, metric, relation, threshold, severity, remedy, threshold_reason, value, verdict}] in order
                of `gate_rules`; threshold null: only reported; threshold_reason null: the contract's or a decision's;
                verdict "pass", "fail", "skip" (no value in this build) or "info"
alerts          [{level, text}] warning and critical ones, as they came
regressions     null without a baseline, else [{gate, before, now}]
performance     seconds, samples_per_s, peak_memory_bytes, written_bytes, validation_share (of the threads' time in `samples`)
labels          SPLIT -> {positive, negative}: rows
completeness    column -> share of samples with a value
distributions   SPLIT -> name -> counts: product_group [without a value, then by code of category_mappings.json], weeks
                [of the log, by number], activity [positives by earlier purchases of the user: 0, 1, 2-3, 4-7, ...], history
                [by length], price and similarity [20 bins of equal width over 0..1, then without a value]
popularity      positive, hard, random -> {"0.1%", "1.0%", "10.0%", "50.0%": share of rows that the most popular items take}
segments        null without weights, else new_users, active_users, churned_users -> share of the train positives' weight
funnel          transactions: read, rejected {reason: n}, accepted, n by reason that they were not kept, then the ledger:
                emitted {SPLIT: n}, n by reason that they were not emitted
                negatives: drawn, shortfall, relaxed, by_source {source: {drawn, later_bought, later_bought_share}}, candidates
                candidates: positives (looked at), one_in (every positive that a seeded hash picks), and by_source, of the
                three sources: {offered, not_on_sale, owned, sibling, over_cap, outscored, chosen}: the last six add up to the
                first; null without hard negatives
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import DatasetConfig
from ..contract.schema import CONTRACT
from ..errors import ConfigError
from ..monitoring.alerts import TrackerGroup
from ..monitoring.timing import BuildTimer
from ..contract.json_files import write_json
from .statistics import Statistics
from .verdicts import Verdict, evaluate, overall, performance_values, require, write_junit

REPORT = "quality_report.json"
LOW_DIVERSITY, IMBALANCE = 0.6, 0.30  # contract, "Alerting Thresholds"
_PERFORMANCE = ("seconds", "samples_per_s", "peak_memory_bytes", "written_bytes")
_TOLD_BEFORE = ("performance",)  # sections whose failures the clock has warned of
_TOLD_BY_STAGES = ("positive_shares",)


def read_baseline(dataset: Path) -> dict[str, Any]:
    """The quality report of another dataset. ConfigError where there is none."""
    path = dataset / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return {gate["name"]: gate for gate in report["gates"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--baseline {dataset}: expected a dataset with {REPORT}, which could not be read ({type(error).__name__}).\n"
            "Give the folder of a dataset that this version built."
        ) from error


def conclude(
    folder: Path,
    found: Statistics,
    manifest: dict[str, Any],
    baseline: dict[str, Any] | None,
    config: DatasetConfig,
    timer: BuildTimer,
    watch: TrackerGroup,
) -> dict[str, Any]:
    """Judge the build, raise its alerts, write the reports into `folder`, and return quality_report.json.

    Raises GateError when a critical gate failed; the reports are there then too.
    """
    values = {**found.values, **performance_values(manifest["performance"]), "no_regression": None}
    regressions = None
    if baseline is not None:
        regressions = _regressions(evaluate(values, config), baseline, config.quality.regression)
        values["no_regression"] = len(regressions)
    verdicts = evaluate(values, config)
    for verdict in verdicts:
        told = verdict.gate.section in _TOLD_BEFORE and verdict.gate.name != "no_regression"
        if (
            verdict.failed
            and verdict.gate.severity != "info"
            and not told
            and verdict.gate.name not in _TOLD_BY_STAGES
        ):
            timer.warn((f"{verdict.text()}. {verdict.gate.remedy}",), verdict.gate.severity)
    timer.warn(_alerts(found, manifest))
    report = {
        "contract": CONTRACT,
        "verdict": overall(verdicts),
        "scores": {**found.scores, "input_quality": manifest["inputs"]["data_quality_score"]},
        "gates": [verdict.as_dict() for verdict in verdicts],
        "alerts": watch.alerts,
        "regressions": regressions,
        "performance": {
            **{name: manifest["performance"][name] for name in _PERFORMANCE},
            "validation_share": round(timer.checking_share, 4),
        },
        **{name: part for name, part in asdict(found).items() if name not in ("values", "scores")},
    }
    write_json(folder / REPORT, report)
    write_junit(folder / "junit.xml", verdicts)
    require(verdicts, folder)
    return report


def summary_of(report: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of it: the verdict, the scores, and the gates that failed by severity."""
    failed = [gate for gate in report["gates"] if gate["verdict"] == "fail"]
    names = {
        level: [gate["name"] for gate in failed if gate["severity"] == level]
        for level in ("warning", "info")
    }
    passed = sum(gate["verdict"] == "pass" for gate in report["gates"])
    return {
        "verdict": report["verdict"],
        "scores": report["scores"],
        "passed": passed,
        "failed": names,
    }


def _alerts(found: Statistics, manifest: dict[str, Any]) -> tuple[str, ...]:
    """Alerts of the contract that are no gates."""
    alerts = []
    diversity = found.scores["diversity"]
    if diversity is not None and diversity < LOW_DIVERSITY:
        alerts.append(
            f"low_negative_diversity: the diversity score is {diversity:.3f}; below {LOW_DIVERSITY} warns"
        )
    segments = manifest["balancing"]["segments"] if manifest["balancing"] else {}
    for name, segment in segments.items():
        off = abs(segment["share_after"] - segment["target"])
        if off > IMBALANCE * segment["target"]:
            text = f"{name} has a weighted share of {segment['share_after']:.1%}, target {segment['target']:.1%}"
            alerts.append(f"category_imbalance: {text}; more than {IMBALANCE:.0%} off warns")
    return tuple(alerts)


def _regressions(
    verdicts: list[Verdict], baseline: dict[str, Any], tolerance: float
) -> list[dict[str, Any]]:
    """Gates that held in the baseline and fail now, or whose value is worse by more than a share of the baseline's."""
    worse = []
    for verdict in verdicts:
        before = baseline.get(verdict.gate.name, {}).get("value")
        if (
            before is None
            or verdict.value is None
            or verdict.verdict == "info"
            or verdict.gate.severity == "info"
        ):
            continue
        loss = (
            before - verdict.value
            if verdict.gate.relation in (">", ">=")
            else verdict.value - before
        )
        fell = verdict.failed and baseline[verdict.gate.name]["verdict"] == "pass"
        if fell or loss > tolerance * abs(before) and loss > 0:
            worse.append({"gate": verdict.gate.name, "before": before, "now": verdict.value})
    return worse
