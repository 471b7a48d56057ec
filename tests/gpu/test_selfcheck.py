"""The self check asks its questions rightly: they are put to the CPU's machine here."""

from __future__ import annotations

import json

import numpy as np
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
    digests = iter([{"a": {"x": "1", "y": "2"}}, {"a": {"x": "1", "y": "3"}}])
    monkeypatch.setattr(
        selfcheck, "build_on", lambda machine, tables, output: {"digests": next(digests)}
    )
    compared = selfcheck.compare(tables, tmp_path, "little")
    assert (compared["good"], compared["differing"]) == (False, ["a.y"])


def test_without_a_device_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["selfcheck", "--output", str(tmp_path / "report.json")])
    monkeypatch.setattr("gpu_dcgen.backend.gpu.device.PACKAGES", ("no_such_package",))
    assert selfcheck.main() == 1
    assert "no_such_package is not installed" in capsys.readouterr().out
