"""The self check asks its questions rightly: they are put to the CPU's machine here."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from cpu_fallback import NumpyBackend
from tests.gpu import selfcheck
from tests.gpu.engines import compare_engines, recall
from tests.support.shops import random_shop, write_shop


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    shop = random_shop(5, n_users=60, n_items=30, n_rows=2500)
    return write_shop(shop, tmp_path_factory.mktemp("selfcheck") / "input")


def test_engines_agree_and_recall_is_measured(tables):
    answer = compare_engines(tables, NumpyBackend(1), nearest=("brute", "cuml"))
    assert answer["good"] and answer["exact"]["pairs"] > 0
    assert answer["brute"]["recall_at_100"] == 1.0  # twice top_k candidates cover this catalog
    assert "cuml" in answer["cuml"]["missing"].lower()


def test_recall_counts_what_was_missed():
    lengths, items = np.array([2, 1, 0], np.int32), np.array([1, 2, 0], np.int32)
    missed = (np.array([1, 1, 0], np.int32), np.array([1, 0], np.int32))
    assert recall(missed, (lengths, items), NumpyBackend(1)) == pytest.approx(2 / 3)
    assert recall(missed, (lengths, items), NumpyBackend(1), depth=1) == 1.0


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path):
    report = selfcheck.Report(tmp_path / "report.json")
    assert report.ask("good", lambda: {"good": True}) == {"good": True}
    assert report.ask("broken", lambda: 1 / 0) is None
    report.ask("differs", lambda: {"good": False})
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["failed"] == report.failed == ["broken", "differs"]
    assert "ZeroDivisionError" in found["broken"]["error"] and found["good"]["error"] is None


def test_builds_are_compared_column_by_column(tables, tmp_path, monkeypatch):
    good, bad = {"a": {"x": "1", "y": "2"}}, {"a": {"x": "1", "y": "3"}}
    answers = {
        "cpu": {"digests": good, "digests_of_files": good},
        "gpu": {"digests": bad, "digests_of_files": good},
    }
    monkeypatch.setattr(selfcheck, "build_on", lambda machine, tables, output: answers[machine])
    compared = selfcheck.compare(tables, tmp_path, "little")
    assert (compared["good"], compared["differing"]) == (False, ["a.y"])
    answers["gpu"] = {"digests": good, "digests_of_files": {"a": {"x": "1"}}}
    assert selfcheck.compare(tables, tmp_path, "little")["differing"] == ["a.y as written"]


def test_a_build_is_digested_as_it_was_computed_and_as_it_was_written(tables, tmp_path):
    built = selfcheck.build_on("cpu", tables, tmp_path / "out")
    assert built["digests_of_files"] == built["digests"]
    table = pq.read_table(tmp_path / "out" / "user_sequences.parquet")
    pq.write_table(table.slice(1), tmp_path / "out" / "user_sequences.parquet")
    written = selfcheck.digest_files(tmp_path / "out", built["digests"])
    assert [name for name in written if written[name] != built["digests"][name]] == [
        "user_sequences"
    ]


@pytest.mark.parametrize("skipped", [True, False])
def test_a_run_that_sees_no_gpu_is_a_failure(skipped, monkeypatch):
    text = "SKIPPED [9] tests: no GPU tested here: no driver\n" if skipped else "9 passed\n"
    run = subprocess.CompletedProcess([], 0, stdout=text)
    monkeypatch.setattr(selfcheck.subprocess, "run", lambda *arguments, **options: run)
    assert selfcheck.run_tests()["good"] is not skipped


def test_without_a_device_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["selfcheck", "--output", str(tmp_path / "report.json")])
    monkeypatch.setattr("gpu_dcgen.backend.gpu.device.PACKAGES", ("no_such_package",))
    assert selfcheck.main() == 1
    assert "no_such_package is not installed" in capsys.readouterr().out
