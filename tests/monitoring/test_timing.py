"""Builds are measured against the contract, and stay within the limits of the settings."""

from __future__ import annotations

import time

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.contract.budgets import REQUIREMENTS
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.monitoring import timing as performance
from gpu_dcgen.monitoring.timing import BuildTimer
from gpu_dcgen.outputs.part_writer import _block_size
from gpu_dcgen.resources import DiskRateLimiter
from tests.support.builds import RecordingTracker
from tests.support.shops import random_shop, tiny_config, write_shop

GIB = 1 << 30


class Held(NumpyBackend):
    """A machine that held `peak` bytes."""

    def __init__(self, peak: int) -> None:
        super().__init__(1)
        self.peak = peak

    def memory_usage(self):
        return {"peak_bytes": self.peak, "n_out_of_memory": 0}


@pytest.fixture
def timer(monkeypatch) -> BuildTimer:
    now = [0.0]
    monkeypatch.setattr(performance.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(performance.time, "process_time", lambda: 0.0)
    build_timer = BuildTimer(Held(20 * 10**9), RecordingTracker())
    build_timer.wait = lambda seconds: now.__setitem__(0, now[0] + seconds)
    return build_timer


def test_budgets_show_what_is_left_of_the_contracts_limits(timer):
    for stage, seconds in {
        "load": 10,
        "similarity": 150,
        "prepare": 5,
        "samples": 1000,
        "tables": 30,
        "flush": 5,
    }.items():
        with timer.stage(stage):
            timer.wait(seconds)
    timer.record_sampling(0.6, 0.0, 0.0)
    report = timer.report(12_000_000, written_bytes=12 * 10**9)
    budgets = report.budgets
    assert {name: (b.value, b.met, b.margin) for name, b in budgets.items()} == {
        "total_generation_time": (1200, True, pytest.approx(1 / 3, abs=1e-4)),
        "similarity_computation": (150, True, 0.75),
        "negative_sampling": (600, True, pytest.approx(1 / 3, abs=1e-4)),
        "dataset_construction": (440, False, pytest.approx(1 - 440 / 300, abs=1e-4)),
        "minimum_rate": (10_000, True, 1.0),
        "target_rate": (10_000, True, 0.0),
        "max_memory_usage": (20 * 10**9, False, -0.25),
        "max_cpu_usage": (0, True, 1.0),
        "max_disk_io": (10**7, True, 0.95),
    }
    warned = [text for level, text in timer.progress.messages if level == "warning"]
    assert [text.split(" is ")[0] for text in warned] == [
        "performance: dataset_construction",
        "performance: max_memory_usage",
    ]
    assert warned == timer.warnings


@pytest.mark.parametrize(("seconds", "warned"), [(59, False), (61, True)])
def test_rates_of_short_builds_do_not_warn(seconds, warned, timer):
    timer.wait(seconds)
    timer.report(1000, 0)
    assert any("minimum_rate" in text for text in timer.warnings) == warned


@pytest.mark.parametrize(
    ("limit", "alerted"), [(None, False), (23 * 10**9, False), (22 * 10**9, True)]
)
def test_a_peak_above_nine_tenths_of_the_limit_is_a_critical_alert(limit, alerted, timer):
    timer.wait(1)
    timer.report(1, 0, limit)
    assert ("critical" in {level for level, _ in timer.progress.messages}) == alerted


def test_every_budget_of_the_contract_is_there(timer):
    timer.wait(1)
    named = set(timer.report(1, 0).budgets)
    assert named == REQUIREMENTS.keys()


def test_blocks_shrink_to_the_memory_limit(monkeypatch):
    held = type("Process", (), {"memory_info": lambda self: type("Info", (), {"rss": GIB})})
    monkeypatch.setattr("psutil.Process", held)
    config = DatasetConfig()
    sizes = [
        _block_size(config, NumpyBackend(2, limit))
        for limit in (None, 64 * GIB, 2 * GIB, GIB + (1 << 24), GIB)
    ]
    assert sizes[:2] == [config.resources.batch_size] * 2
    assert sizes[1] > sizes[2] > sizes[3] == sizes[4] == 256


def test_a_build_in_little_memory_is_the_same(tmp_path):
    tables = write_shop(random_shop(1), tmp_path / "input")
    expected = build(tables, tmp_path / "free", tiny_config(), backend="cpu").manifest.to_dict()
    held = build(
        tables, tmp_path / "held", tiny_config(resources={"memory_limit": "256MiB"}), backend="cpu"
    ).manifest.to_dict()
    assert held["content_digest"] == expected["content_digest"]


def test_writers_are_held_back_to_the_disk_rate(tmp_path):
    free, slow = DiskRateLimiter(None), DiskRateLimiter(200_000)
    files = [tmp_path / "a", tmp_path / "b"]
    began = time.monotonic()
    for file in files:
        file.write_bytes(bytes(20_000))
        free.throttle(file)
    assert time.monotonic() - began < 0.1
    for file in (*files, *files):  # a file's size counts once
        slow.throttle(file)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    ("key", "value"),
    [("memory_limit", "1MB"), ("max_disk_rate", "fast"), ("gpu_memory_limit", "512MiB")],
)
def test_limits_that_cannot_be_meant_are_refused(key, value):
    with pytest.raises(ValueError, match=key):
        DatasetConfig.model_validate({"resources": {key: value}})
