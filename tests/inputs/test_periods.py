"""Rows far from all others are named or set aside, and a period can be read alone (D7)."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback import NumpyBackend
from gpu_dcgen import build
from gpu_dcgen.auditing import audit
from gpu_dcgen.auditing.far_rows import mark_far_rows
from gpu_dcgen.config import DatasetConfig, load_config
from gpu_dcgen.errors import ConfigError, command_line_errors
from gpu_dcgen.inputs.periods import find_sparse_ends
from gpu_dcgen.inputs.shop import load_shop
from gpu_dcgen.preparation.windows import cut_windows
from tests.support.shops import DAY, Tables, random_shop, tiny_config, write_shop

START = 17_900 * DAY


def far_rows(days: list[float]) -> list[int]:
    """Return the positions of the rows at `days` that are far from the others."""
    time = START + (np.array(days) * DAY).astype(np.int64)
    ends = find_sparse_ends(time, NumpyBackend())
    return [] if ends is None else np.flatnonzero(ends.contain(time)).tolist()


def year(n_rows: int = 2400) -> list[float]:
    return [330 * k / n_rows for k in range(n_rows)]


@pytest.mark.parametrize("ahead", [15, 30, 40, 400, 60_000])
def test_a_row_ahead_of_all_others_is_far(ahead):
    assert far_rows([*year(), 330 + ahead]) == [2400]


@pytest.mark.parametrize("behind", [15, 365, 17_000])
def test_rows_before_all_others_are_far(behind):
    assert far_rows([-behind, *year(), -behind - 3]) == [0, 2401]


def test_both_ends_and_gaps_within_an_end_are_found():
    assert far_rows([*year(), 345, 360, 5000, -2000]) == [2400, 2401, 2402, 2403]


@pytest.mark.parametrize(
    "days",
    [
        year(),
        [*year(18), 9999],  # too few to tell
        [*year(2000), *(400 + k / 100 for k in range(100))],  # a twentieth of the rows
        [*year(), 336],  # about what chance does to a small window
        [day for day in year() if not 100 < day < 200],  # closed for a while
        [round(day) for day in year()],
        [5.0] * 100,
    ],
)
def test_ordinary_logs_have_no_far_rows(days):
    assert far_rows(days) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 50), min_size=5, max_size=150),
    st.lists(st.floats(-17_000, 60_000), max_size=3),
)
def test_the_audit_finds_the_same_rows(days, others):
    time = START + (np.array([*days, *others]) * DAY).astype(np.int64)
    assert np.flatnonzero(mark_far_rows(time)).tolist() == far_rows([*days, *others])


def shop_with_far_rows(ahead: float, behind: float | None = None) -> Tables:
    tables = random_shop(3, n_users=40, n_items=30, n_rows=900, dates=(30, 90), minutes=True)
    log = tables["transactions"]
    last = max(log, key=lambda row: row["t_dat"])
    log.append({**last, "t_dat": last["t_dat"] + round(ahead * DAY)})
    if behind is not None:
        first = min(log, key=lambda row: row["t_dat"])
        log.append({**first, "t_dat": first["t_dat"] - round(behind * DAY)})
    random.Random(4).shuffle(log)
    return tables


def warnings_of(tables: Tables, folder: Path, config: DatasetConfig) -> list[str]:
    shop = load_shop(write_shop(tables, folder), config, NumpyBackend())
    return [text for text in shop.report.warnings if "all others" in text]


@pytest.mark.parametrize("behind", [None, 700])
def test_every_remedy_of_the_warning_is_accepted_and_helps(behind, tmp_path):
    """As they are printed on the command line."""
    tables = shop_with_far_rows(40, behind)
    with command_line_errors():
        (text,) = warnings_of(tables, tmp_path, tiny_config())
    assert "40.0 days after" in text and ("700.0 days before" in text) == (behind is not None)
    assert re.search(r"\(first: row \d+, t_dat 20\d\d-", text)
    clean = shop_with_far_rows(40, behind)
    plain = random_shop(3, n_users=40, n_items=30, n_rows=900, dates=(30, 90), minutes=True)
    remedy = text.splitlines()[-1]
    settings_given = re.findall(r"--set (\S+?)[,.]?(?:\s|$)", remedy)
    period = [setting for setting in settings_given if setting.startswith("inputs.")]
    assert len(period) == (1 if behind is None else 2) and "split.windows=rows" in settings_given
    assert "--on-bad-rows reject" in remedy and shlex.split(remedy)
    for chosen in (period, ["split.windows=rows"], ["inputs.on_bad_rows=reject"]):
        config = load_config(None, chosen)
        shop = load_shop(write_shop(clean, tmp_path), config, NumpyBackend())
        expected = len(plain["transactions"])
        if chosen != ["split.windows=rows"]:
            assert int(shop.time.shape[0]) == expected
        assert len(warnings_of(clean, tmp_path, config)) == (
            chosen[-1] == "inputs.on_bad_rows=reject"
        )


def test_the_named_windows_are_those_of_the_build(tmp_path):
    config, tables = tiny_config(), shop_with_far_rows(40)
    (text,) = warnings_of(tables, tmp_path, config)
    times = [row["t_dat"] for row in tables["transactions"]]
    for end in (max(times), sorted(times)[-2]):
        windows = cut_windows(np.array(times), min(times), end, config.split, NumpyBackend())
        for cut in (windows.cut1, windows.cut2):
            assert str(np.datetime64(cut // 10**9, "s")) in text


def test_far_rows_are_rejects_with_a_reason_and_the_audit_agrees(tmp_path):
    config = tiny_config(inputs={"on_bad_rows": "reject", "min_quality_score": 0.5})
    inputs = write_shop(shop_with_far_rows(40, 700), tmp_path / "in")
    manifest = build(inputs, tmp_path / "out", config).manifest
    assert manifest.inputs.rejects["transactions"] == {"far_from_others": 2}
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [row["reason"] for row in rejects] == ["far_from_others"] * 2
    assert audit(inputs, tmp_path / "out", sample=20)["verdict"] == "holds"


def test_a_period_is_read_alone_and_the_audit_agrees(tmp_path):
    """To the digest of a log without the other rows."""
    tables = shop_with_far_rows(40, 700)
    times = sorted(row["t_dat"] for row in tables["transactions"])
    start, end = times[100], times[-100]
    bounds = [str(np.datetime64(time, "ns"))[:26] for time in (start, end)]
    tables["transactions"] += [{**tables["transactions"][0], "t_dat": end, "price": -1.0}]
    config = tiny_config(inputs={"time_from": bounds[0], "time_until": bounds[1]})
    inputs = write_shop(tables, tmp_path / "in")
    manifest = build(inputs, tmp_path / "out", config).manifest
    rows = manifest.inputs.rows["transactions"]
    log = tables["transactions"]
    inside = [row for row in log if start <= row["t_dat"] < end]
    assert (rows.left_out, rows.rejected) == (len(log) - len(inside), 0)
    alone = {**tables, "transactions": inside}
    expected = build(write_shop(alone, tmp_path / "alone"), tmp_path / "expected", tiny_config())
    assert manifest.content_digest == expected.manifest.content_digest
    assert audit(inputs, tmp_path / "out", sample=20)["verdict"] == "holds"


def test_a_period_that_ends_before_it_begins_is_refused():
    with pytest.raises(ConfigError, match="expected time_from before time_until"):
        load_config(None, ["inputs.time_from=2020-01-02", "inputs.time_until=2020-01-01"])
