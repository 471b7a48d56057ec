"""Gates: each has a value, judges it as the contract says, and stops a build when it is critical
(D20).
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy import stats

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.contract.gates import GATE_NAMES, GATES, OUR_THRESHOLDS, OURS
from gpu_dcgen.contract.quality_report import Regression
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import ConfigError, GateError
from gpu_dcgen.quality_validator import statistics as dataset_statistics
from gpu_dcgen.quality_validator.distances import ks_p, total_variation
from gpu_dcgen.quality_validator.report import _regressions, read_baseline
from gpu_dcgen.quality_validator.statistics import _diversity, _median
from gpu_dcgen.quality_validator.verdicts import evaluate, failures, overall, require, write_junit
from tests.support.shops import random_shop, tiny_config, write_shop

PASSING = {
    gate.name: None
    if gate.threshold is None
    else gate.threshold + {">": 1, ">=": 0, "<=": 0, "<": -1}[gate.relation]
    for gate in GATES
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A little dataset, its report, and the tables it was made of."""
    folder = tmp_path_factory.mktemp("gates")
    tables = random_shop(3, n_users=16, n_items=24, n_rows=260)
    write_shop(tables, folder / "input")
    build(folder / "input", folder / "output", tiny_config(), backend="cpu")
    return folder, json.loads((folder / "output" / "quality_report.json").read_text())


@pytest.mark.parametrize(
    "gate", [gate for gate in GATES if gate.threshold is not None], ids=lambda gate: gate.name
)
def test_a_gate_holds_at_its_threshold_and_fails_beyond(gate):
    beyond = gate.threshold + (-1e-3 if gate.relation[0] == ">" else 1e-3) * max(1, gate.threshold)

    def verdict(value):
        return {
            v.gate.name: v.verdict for v in evaluate({**PASSING, gate.name: value}, DatasetConfig())
        }[gate.name]

    assert verdict(gate.threshold) == ("pass" if "=" in gate.relation else "fail")
    assert (verdict(beyond), verdict(None)) == ("fail", "skip")


UNITS = {"%": 0.01, " points": 0.01, "GB": 1e9, "MB/second": 1e6, " minutes": 60}


def named(line: str) -> set[float]:
    """The numbers in a line of the contract, in the units of values."""
    matches = re.findall(r"(\d+(?:,\d{3})*(?:\.\d+)?)(%|GB|MB/second| minutes| points)?", line)
    return {
        round(float(number.replace(",", "")) * UNITS.get(unit, 1), 9) for number, unit in matches
    }


def test_a_threshold_is_the_contracts_or_says_why_it_is_ours():
    """Defects are counted, so that 0 of them, or a share of 1, needs no reason."""
    ours = {
        gate.name
        for gate in GATES
        if gate.threshold not in (None, 0, 1) and gate.threshold not in named(gate.line)
    }
    assert ours == set(OUR_THRESHOLDS)
    assert all(reason and "\n" not in reason for reason in OUR_THRESHOLDS.values())


def test_what_proves_a_defect_of_ours_is_critical_and_allows_none():
    of_ours = [gate for gate in GATES if gate.remedy == OURS and gate.name != "class_balance"]
    assert len(of_ours) >= 12
    allowed = {("critical", "<=", 0), ("critical", ">=", 1)}
    assert {(gate.severity, gate.relation, gate.threshold) for gate in of_ours} == allowed


def test_only_critical_failures_stop_a_build(tmp_path):
    warned = evaluate({**PASSING, "negative_quality": 0.1}, DatasetConfig())
    require(warned, tmp_path)
    assert overall(warned) == "passed with warnings"
    broken = evaluate({**PASSING, "no_user_overlap": 3}, DatasetConfig())
    assert overall(broken) == "failed"
    with pytest.raises(
        GateError, match="no_user_overlap: users with positives in two splits is 3, expected <= 0"
    ) as caught:
        require(broken, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert overall(evaluate(PASSING, DatasetConfig())) == "passed"


def test_settings_change_thresholds_and_severities():
    config = DatasetConfig.model_validate(
        {
            "quality": {
                "thresholds": {"negative_quality": 0.9},
                "severities": {"negative_quality": "critical"},
            }
        }
    )
    (failed,) = failures(evaluate({**PASSING, "negative_quality": 0.8}, config), "critical")
    assert failed.gate.name == "negative_quality"
    with pytest.raises(
        ValueError, match="found gate 'negativ_quality'; expected one of no_missing_labels"
    ):
        DatasetConfig.model_validate({"quality": {"thresholds": {"negativ_quality": 1}}})


def test_asking_for_fewer_negatives_than_the_contract_warns_and_losing_some_stops():
    few = {**PASSING, "positive_negative_ratio": 5.0}
    assert failures(evaluate(few, DatasetConfig()), "critical")
    asked = tiny_config()
    assert not failures(evaluate(few, asked), "critical")
    assert [v.gate.name for v in failures(evaluate(few, asked), "warning")] == [
        "positive_negative_ratio"
    ]


def test_junit_has_a_case_a_gate_and_a_failure_where_a_build_stops(tmp_path):
    write_junit(
        tmp_path / "junit.xml",
        evaluate({**PASSING, "no_siblings": 2, "item_coverage": 0.1}, DatasetConfig()),
    )
    cases = ElementTree.parse(tmp_path / "junit.xml").findall(".//testcase")
    assert [case.get("name") for case in cases] == list(GATE_NAMES)
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [
        "no_siblings"
    ]
    assert [case.get("name") for case in cases if case.find("system-out") is not None] == [
        "item_coverage"
    ]


def test_total_variation_and_ks_by_hand():
    assert total_variation([1, 1], [30, 10]) == pytest.approx(0.25)
    assert total_variation([1, 1], [0, 0]) is None
    assert ks_p([5, 5], [5, 5]) == 1.0
    a, b = (
        np.repeat(np.arange(4), (300, 200, 400, 100)),
        np.repeat(np.arange(4), (270, 190, 420, 160)),
    )
    expected = stats.kstwobign.sf(
        stats.ks_2samp(a, b).statistic * np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    )
    assert ks_p([300, 200, 400, 100], [270, 190, 420, 160]) == pytest.approx(expected)


def test_diversity_is_one_for_places_that_all_differ_and_none_for_one_place():
    assert _diversity(0, n_groups=7, n_negatives=15) == pytest.approx(1)
    assert _diversity(7 * 15 * 14 // 2, n_groups=7, n_negatives=15) == pytest.approx(0)
    assert _diversity(1, n_groups=1, n_negatives=3) == pytest.approx(
        (1 - 5 / 9) / (2 / 3)
    )  # two of three alike
    assert _diversity(0, n_groups=7, n_negatives=1) is None


def test_the_median_is_the_lower_middle():
    assert [_median(lengths) for lengths in ([0, 3], [1, 1], [1, 0, 2], [2, 0, 0, 2])] == [
        1,
        0,
        2,
        0,
    ]


def test_a_build_reports_every_gate_and_accounts_for_every_negative(finished):
    folder, report = finished
    assert [gate["name"] for gate in report["gates"]] == list(GATE_NAMES)
    assert not [
        gate
        for gate in report["gates"]
        if gate["verdict"] == "fail" and gate["severity"] == "critical"
    ]
    negatives = report["funnel"]["negatives"]
    assert sum(source["drawn"] for source in negatives["by_source"].values()) == negatives["drawn"]
    manifest = json.loads((folder / "output" / "manifest.json").read_text())
    assert negatives["drawn"] == 5 * sum(split["groups"] for split in manifest["counts"].values())
    for split, counted in manifest["counts"].items():
        assert {
            name: sum(c)
            for name, c in report["distributions"][split].items()
            if name != "similarity"
        } == dict.fromkeys(
            ("product_group", "weeks", "activity", "history", "price"), counted["groups"]
        )
    assert manifest["quality"]["verdict"] == report["verdict"]


def test_later_bought_negatives_are_those_of_the_log(finished):
    """Counted again from the files and the tables, without our code."""
    import pyarrow.parquet as pq

    folder, report = finished
    bought = {}
    tables = pq.read_table(folder / "input" / "transactions.parquet").to_pylist()
    for line in tables:
        bought.setdefault(line["customer_id"], set()).add(line["article_id"])
    counts = dict.fromkeys(report["funnel"]["negatives"]["by_source"], 0)
    for split in ("train", "val", "test"):
        for row in pq.read_table(folder / "output" / f"{split}_dataset.parquet").to_pylist():
            if row["label"] == 0 and row["item_id"] in bought[row["user_id"]]:
                counts[row["negative_detail"]] += 1
    reported = {
        source: n["later_bought"]
        for source, n in report["funnel"]["negatives"]["by_source"].items()
    }
    assert reported == counts
    assert sum(counts.values())


def test_a_critical_failure_keeps_the_folder_with_its_report_and_publishes_nothing(
    finished, tmp_path, monkeypatch
):
    folder, _ = finished
    monkeypatch.setattr(dataset_statistics, "_out_of_range", lambda *_: 4)
    with pytest.raises(GateError, match="reasonable_value_ranges") as caught:
        build(folder / "input", tmp_path / "output", tiny_config(), backend="cpu")
    (folder,) = tmp_path.iterdir()
    staging = folder / "data"
    assert str(staging) in str(caught.value)
    assert json.loads((staging / "quality_report.json").read_text())["verdict"] == "failed"
    assert not (staging / "manifest.json").exists()
    events = [json.loads(line) for line in (staging / "build_log.jsonl").read_text().splitlines()]
    assert (events[-1]["level"], "generation_failure" in events[-1]["text"]) == ("critical", True)


def test_a_worse_gate_than_the_baselines_is_a_regression(finished, tmp_path):
    folder, report = finished
    baseline = read_baseline(folder / "output")
    values = {name: gate.value for name, gate in baseline.items()}
    assert _regressions(evaluate(values, tiny_config()), baseline, 0.1) == []
    worse = {**values, "item_coverage": values["item_coverage"] * 0.8}
    (regression,) = _regressions(evaluate(worse, tiny_config()), baseline, 0.1)
    assert regression == Regression(
        gate="item_coverage", before=values["item_coverage"], now=worse["item_coverage"]
    )
    with pytest.raises(ConfigError, match="baseline=.*quality_report.json"):
        read_baseline(tmp_path)
