"""Ways to divide a log: what each leaves of it, gaps before val and test, and last purchases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from gpu_dcgen.auditing import audit, explain
from gpu_dcgen.cards import write_cards
from gpu_dcgen.cards.readme import escape
from gpu_dcgen.cli.render_builds import _describe_strategies
from gpu_dcgen.config import SplitConfig
from gpu_dcgen.dataset_generator.builder import BuildResult, append, build
from gpu_dcgen.errors import InputError
from gpu_dcgen.reporting.charts import show_timeline
from tests.support.audited_shops import get_faults
from tests.support.growing import TODAY, cut_log, make_log
from tests.support.shops import DAY, Tables, bare_events, random_shop, tiny_config, write_shop
from tests.support.strict_backend import StrictBackend

SHOP = random_shop(2, n_users=18, n_items=26, n_rows=340, minutes=True)


def build_split(
    folder: Path, backend: Any = "cpu", tables: Tables = SHOP, **split: Any
) -> BuildResult:
    write_shop(tables, folder / "input")
    config = tiny_config(split=split)
    return build(folder / "input", folder / "output", config, backend=backend)


def read_positives(output: Path, split: str) -> list[dict[str, Any]]:
    table = pq.read_table(output / f"{split}_dataset.parquet")
    columns = ["user_id", "item_id", "timestamp", "label", "user_total_purchases"]
    rows = table.select(columns).set_column(2, "timestamp", table["timestamp"].cast("int64"))
    return [row for row in rows.to_pylist() if row["label"] == 1]


@pytest.fixture(scope="module")
def last(tmp_path_factory) -> tuple[Path, BuildResult]:
    folder = tmp_path_factory.mktemp("last")
    return folder, build_split(folder, strategy="leave_last", leave_last=2)


# Shares


def test_a_build_says_what_other_strategies_would_keep(tmp_path):
    """Builds with those strategies are the oracle."""
    built = {
        strategy: build_split(tmp_path / strategy, strategy=strategy).manifest
        for strategy in ("temporal_user_disjoint", "hash", "temporal")
    }
    emitted = {name: m.ledger.emitted for name, m in built.items()}
    assert all(m.split.positives_by_strategy == emitted for m in built.values())
    assert len({sum(n.values()) for n in emitted.values()}) == 3


def test_the_summary_names_the_share_of_the_log(tmp_path):
    manifest = build_split(tmp_path).manifest
    text = _describe_strategies(manifest)
    n, n_all = sum(manifest.ledger.emitted.values()), len(SHOP["transactions"])
    assert text.startswith(
        f"{n / n_all:.1%} of {n_all:,} transactions (split.strategy temporal_user_disjoint); "
        "temporal would have "
    )
    assert "; hash would have " in text


# Gaps


def test_nothing_in_a_gap_is_a_positive_and_all_of_it_is_history(tmp_path):
    plain = build_split(tmp_path / "plain", strategy="temporal")
    gap = build_split(tmp_path / "gap", strategy="temporal", gap_days=3)
    windows = gap.manifest.split.windows_ns
    assert windows == plain.manifest.split.windows_ns
    n_left_out = 0
    for split in ("train", "val", "test"):
        expected = [
            row
            for row in read_positives(plain.output, split)
            if not any(
                0 < cut - row["timestamp"] <= 3 * DAY for cut in (windows.cut1, windows.cut2)
            )
        ]
        # Their features count the purchases in the gap too.
        assert read_positives(gap.output, split) == expected
        n_left_out += plain.manifest.counts[split].groups - len(expected)
    assert n_left_out > 0
    ledger = gap.manifest.ledger
    assert ledger.losses["in_gap"] >= n_left_out
    assert sum(ledger.emitted.values()) + sum(ledger.losses.values()) == len(SHOP["transactions"])
    assert get_faults(audit(tmp_path / "gap" / "input", gap.output)) == {}


def test_a_gap_that_leaves_a_split_empty_is_refused_with_its_name(tmp_path):
    with pytest.raises(InputError, match=r"no positive is left in the (?s:.*)Lower split.gap_days"):
        build_split(tmp_path, gap_days=400)


# The last purchases


def test_last_purchases_come_last_for_each_user(last):
    folder, result = last
    times: dict[str, list[tuple[int, str]]] = {}
    for line in SHOP["transactions"]:
        times.setdefault(line["customer_id"], []).append((line["t_dat"], line["article_id"]))
    # A repeated line is one purchase.
    ordered = {user: sorted(set(lines)) for user, lines in times.items()}
    seen = 0
    for split, (start, stop) in {"test": (-2, None), "val": (-4, -2), "train": (None, -4)}.items():
        for row in read_positives(result.output, split):
            assert (row["timestamp"], row["item_id"]) in ordered[row["user_id"]][start:stop]
            seen += 1
    assert seen == sum(result.manifest.ledger.emitted.values())
    assert result.manifest.split.positives_by_strategy == {
        "leave_last": result.manifest.ledger.emitted
    }


def test_last_purchases_leak_time_and_say_so(last):
    assert any("leave_last leaks time" in text for text in last[1].manifest.warnings)


def test_windows_of_last_purchases_are_the_whole_log(last):
    split = last[1].manifest.split
    whole = (split.windows_ns.first, split.windows_ns.last + 1)
    assert split.windows_ns.spans == [whole] * 3
    times = [line["t_dat"] for line in SHOP["transactions"]]
    assert whole == (min(times), max(times) + 1)


def test_the_audit_the_explanation_and_a_strict_backend_agree_on_last_purchases(last, tmp_path):
    folder, result = last
    assert get_faults(audit(folder / "input", result.output)) == {}
    assert explain(result.output, "test-0000000002-00", folder / "input").agrees
    strict = build_split(tmp_path, StrictBackend(), strategy="leave_last", leave_last=2)
    assert strict.manifest.digests == result.manifest.digests


def test_cards_and_report_show_the_whole_log_for_last_purchases(last):
    result = last[1]
    write_cards(result.output, overwrite=True)
    text = (result.output / "README.md").read_text()
    assert "Similarities and price edges know the whole log" in text
    windows = result.manifest.split.windows
    assert text.count(escape(windows.first)) >= 3
    weeks = {name: [1, 1] for name in ("train", "val", "test")}
    (bands, _) = show_timeline(windows, weeks)["vconcat"]
    spans = bands["data"]["values"]
    assert [span["kind"] for span in spans] == ["positives"] * 3


def test_bare_events_with_last_purchases_build(tmp_path):
    result = build_split(tmp_path, tables=bare_events(SHOP), strategy="leave_last")
    assert get_faults(audit(tmp_path / "input", result.output)) == {}


@pytest.mark.parametrize("split", [{"strategy": "leave_last"}, {"gap_days": 2}])
def test_append_gives_what_a_build_from_the_start_gives(split, tmp_path):
    tables = make_log(1)
    config = tiny_config(split=split, output={"appendable": True})
    build(write_shop(cut_log(tables, TODAY), tmp_path / "old"), tmp_path / "out", config)
    write_shop(tables, tmp_path / "new")
    grown = append(tmp_path / "new", tmp_path / "out")
    whole = build(tmp_path / "new", tmp_path / "whole", config)
    assert grown.manifest.digests == whole.manifest.digests


@pytest.mark.parametrize(
    "more", [{"gap_days": 1}, {"val_from": "2020-01-01", "test_from": "2020-02-01"}]
)
def test_last_purchases_have_no_gap_and_no_dates(more):
    with pytest.raises(ValidationError, match="found strategy leave_last with"):
        SplitConfig(strategy="leave_last", **more)


def test_last_purchases_are_counted_for_their_strategy_alone():
    with pytest.raises(ValidationError, match="found leave_last 2 with strategy temporal"):
        SplitConfig(leave_last=2)
