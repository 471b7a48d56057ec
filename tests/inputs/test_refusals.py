"""Input that cannot be built: a message of its own, exit code 2, and nothing left behind."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu_dcgen.cli import app
from tests.support.shops import DAY, TINY_SETTINGS, Tables, random_shop, set_options, write_shop


def run(folder: Path, *more: str, settings: list[str] = TINY_SETTINGS):
    sets = set_options(settings)
    return CliRunner().invoke(
        app, ["build", str(folder / "input"), str(folder / "output"), "--quiet", *sets, *more]
    )


def refused(result, folder: Path, *words: str) -> None:
    """Exit 2 with these words on stderr, and nothing beside the input."""
    text = " ".join(result.stderr.split())
    assert result.exit_code == 2, result.output
    assert "Traceback" not in text
    for word in words:
        assert word in text, text
    assert sorted(path.name for path in folder.iterdir()) == ["input"]


def a_shop() -> Tables:
    return random_shop(3, n_users=16, n_items=24, n_rows=260)


def changed(row: int, **values) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables["transactions"][row].update(values)

    return change


def one_user(tables: Tables) -> None:
    for line in tables["transactions"]:
        line["customer_id"] = tables["customers"][0]["customer_id"]


def one_date(tables: Tables) -> None:
    for line in tables["transactions"]:
        line["t_dat"] = tables["transactions"][0]["t_dat"]


def two_dates(tables: Tables) -> None:
    for row, line in enumerate(tables["transactions"]):
        line["t_dat"] = tables["transactions"][0]["t_dat"] // DAY * DAY + row % 2 * DAY


def conflicting_article(tables: Tables) -> None:
    tables["articles"].append({**tables["articles"][0], "product_group_name": "Something else"})


def nobody_twice(tables: Tables) -> None:
    people, articles = tables["customers"], tables["articles"]
    tables["transactions"] = [
        {
            **line,
            "customer_id": people[n]["customer_id"],
            "article_id": articles[n]["article_id"],
            "t_dat": n * DAY,
        }
        for n, line in enumerate(tables["transactions"][:3])
    ]


BAD_ROWS = {
    "null key": (
        changed(7, customer_id=None),
        ["missing_key", "customer_id", "1", "--on-bad-rows reject"],
    ),
    "unknown article": (changed(7, article_id="none such"), ["unknown_article", "none such"]),
    "unknown customer": (changed(7, customer_id="none such"), ["unknown_customer", "none such"]),
    "null time": (changed(7, t_dat=None), ["missing_time"]),
    "null price": (changed(7, price=None), ["missing_price"]),
    "price not a number": (changed(7, price=float("nan")), ["missing_price"]),
    "infinite price": (changed(7, price=float("inf")), ["bad_price"]),
    "price of zero": (changed(7, price=0.0), ["bad_price"]),
    "negative price": (changed(7, price=-3.99), ["bad_price", "-3.99"]),
    "two of one article": (conflicting_article, ["duplicate_key", "articles"]),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_stop_the_build_or_are_set_aside(case, tmp_path):
    spoil, words = BAD_ROWS[case]
    tables = a_shop()
    spoil(tables)
    write_shop(tables, tmp_path / "input")
    refused(run(tmp_path), tmp_path, *words)
    result = run(
        tmp_path,
        "--on-bad-rows",
        "reject",
        settings=[*TINY_SETTINGS, "inputs.min_quality_score=0.5"],
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "output" / "rejects.parquet").exists()


UNBUILDABLE = {
    "one user": (one_user, ["no positive is left in the"]),
    "one date": (one_date, ["have the same time", "inputs.columns"]),
    "two dates": (two_dates, ["no positive is left in the train window", "split.train_share"]),
    "rare users and items only": (
        nobody_twice,
        ["no interaction is left of 3 rows", "filtering.min_user_interactions"],
    ),
}


@pytest.mark.parametrize("case", UNBUILDABLE)
def test_a_log_without_any_positive_says_why(case, tmp_path):
    spoil, words = UNBUILDABLE[case]
    tables = a_shop()
    spoil(tables)
    write_shop(tables, tmp_path / "input")
    refused(run(tmp_path), tmp_path, *words)


def test_prices_whose_sums_would_not_be_exact_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.preparation.features._MAX_SUM", 1 << 20)
    write_shop(a_shop(), tmp_path / "input")
    refused(run(tmp_path), tmp_path, "summed exactly", "divide the column by 1000")


@pytest.mark.parametrize("table", ["articles", "customers", "transactions"])
def test_an_empty_table_is_named(table, tmp_path):
    write_shop({**a_shop(), table: []}, tmp_path / "input")
    refused(run(tmp_path), tmp_path, table)


@pytest.mark.parametrize("table", ["articles", "customers", "transactions"])
def test_a_missing_or_torn_file_is_named(table, tmp_path):
    file = write_shop(a_shop(), tmp_path / "input") / f"{table}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(run(tmp_path), tmp_path, f"{table}.parquet")
    if table == "transactions":  # the others are then taken from the log
        file.unlink()
        refused(run(tmp_path), tmp_path, table)


def test_a_missing_column_is_named_with_what_is_there(tmp_path):
    tables = a_shop()
    for line in tables["transactions"]:
        line["t_date"] = line.pop("t_dat")
    write_with_columns(tables, tmp_path / "input")
    refused(run(tmp_path), tmp_path, "t_dat", "t_date", "inputs.columns")


def write_with_columns(tables: Tables, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for name in ("articles", "customers", "transactions"):
        pq.write_table(pa.Table.from_pylist(tables[name]), folder / f"{name}.parquet")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("negative_sampling.hard_negatives=3", ["negative_sampling.hard_negatives", "unknown key"]),
        ("splits.train_share=0.7", ["splits", "unknown key"]),
        ("split.train_share=2", ["split.train_share", "less than or equal to 1"]),
        ("output.shape=wide", ["output.shape", "'labeled_pair', 'n_tuple' or 'triplet'"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(setting, words, tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    refused(run(tmp_path, settings=[setting]), tmp_path, *words)


def test_a_vocabulary_too_small_for_the_negatives_is_an_error(tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    settings = [*TINY_SETTINGS, "negative_sampling.random_negatives_per_positive=200"]
    refused(
        run(tmp_path, settings=settings),
        tmp_path,
        "200 random",
        "negative_sampling.random_negatives_per_positive",
    )


def test_an_output_that_exists_is_not_touched(tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    assert run(tmp_path).exit_code == 0
    before = {
        path: path.read_bytes() for path in (tmp_path / "output").rglob("*") if path.is_file()
    }
    result = run(tmp_path, "--seed", "7")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert {
        path: path.read_bytes() for path in (tmp_path / "output").rglob("*") if path.is_file()
    } == before
    assert run(tmp_path, "--seed", "7", "--overwrite").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output"]


def test_overwrite_replaces_datasets_only(tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "thesis.tex").write_text("years of work")
    result = run(tmp_path, "--overwrite")
    assert result.exit_code == 2
    assert "already exists and is not a dataset (it has no manifest.json)" in " ".join(
        result.stderr.split()
    )
    assert (tmp_path / "output" / "thesis.tex").read_text() == "years of work"


def test_a_file_is_never_overwritten(tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    (tmp_path / "output").write_text("years of work")
    assert run(tmp_path, "--overwrite").exit_code == 2
    assert (tmp_path / "output").read_text() == "years of work"


def test_refused_builds_leave_no_new_parent_folders(tmp_path):
    write_shop({**a_shop(), "transactions": []}, tmp_path / "input")
    result = CliRunner().invoke(
        app,
        ["build", str(tmp_path / "input"), str(tmp_path / "new" / "deep" / "output"), "--quiet"],
    )
    refused(result, tmp_path, "transactions")


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_shop(a_shop(), tmp_path / "input")
    monkeypatch.setattr("cpu_fallback.PartWriter.write", full)
    result = run(tmp_path)
    text = " ".join(result.stderr.split())
    assert result.exit_code == 2, text
    assert (
        "the disk is full; nothing was published. Free some space and rerun with --resume" in text
    )
    # Finished results wait for --resume.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".output.staging", "input"]


@pytest.mark.parametrize("mode", ["resample", "off"])
def test_every_balancing_mode_is_summarized(mode, tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    sets = set_options([*TINY_SETTINGS, f"category_balancing.mode={mode}"])
    result = CliRunner().invoke(
        app, ["build", str(tmp_path / "input"), str(tmp_path / "output"), *sets]
    )
    assert result.exit_code == 0, result.output


def test_resampling_to_nothing_is_refused(tmp_path):
    write_shop(a_shop(), tmp_path / "input")
    settings = [
        *TINY_SETTINGS,
        "category_balancing.mode=resample",
        "category_balancing.recency_half_life_days=1",
    ]
    tables = a_shop()
    for line in tables["transactions"]:
        line["t_dat"] = (
            tables["transactions"][0]["t_dat"]
            + (line["t_dat"] - tables["transactions"][0]["t_dat"]) * 40
        )
    write_shop(tables, tmp_path / "input")
    refused(
        run(
            tmp_path,
            settings=[*settings, "features.snapshot_days=80", "negative_sampling.live_days=900"],
        ),
        tmp_path,
        "resampling leaves none",
    )


def test_a_build_that_fails_leaves_the_old_dataset(tmp_path):
    folder = write_shop(a_shop(), tmp_path / "input")
    assert run(tmp_path).exit_code == 0
    before = (tmp_path / "output" / "manifest.json").read_bytes()
    (folder / "transactions.parquet").write_bytes(b"not Parquet")
    assert run(tmp_path, "--overwrite").exit_code == 2
    assert (tmp_path / "output" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output"]
