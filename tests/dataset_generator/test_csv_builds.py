"""Builds from CSV files: the same samples as from Parquet, and all that goes with a build."""

from __future__ import annotations

import csv
import datetime as dt
import io
import shutil

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.auditing import audit
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import append, build, pipeline
from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs import csv_files
from gpu_dcgen.inputs.csv_files import convert_csv
from gpu_dcgen.preflight import doctor
from gpu_dcgen.preflight.plan import plan
from tests.support.builds import RecordingTracker, fail_at_call, write_small_shop
from tests.support.csv_tables import convert_folder
from tests.support.growing import TODAY, cut_log, growing_config, make_log
from tests.support.known_logs import write_hm
from tests.support.shops import random_shop, tiny_config, write_shop

DAY = 86_400 * 10**9


def make_shop(views: bool = False):
    return random_shop(1, n_users=16, n_items=24, n_rows=260, views=views)


@pytest.fixture
def folders(tmp_path):
    parquet = write_small_shop(tmp_path / "parquet")
    return parquet, convert_folder(parquet, tmp_path / "csv")


def test_the_same_log_gives_the_same_digest(folders, tmp_path):
    manifests = [
        build(folder, tmp_path / f"out-{folder.name}", tiny_config(), backend="cpu").manifest
        for folder in folders
    ]
    assert manifests[0].content_digest == manifests[1].content_digest
    assert {file.file for file in manifests[1].inputs.files} == {
        "articles.csv",
        "customers.csv",
        "transactions_train.csv",
    }
    assert not list(tmp_path.glob(".*.staging"))


def test_an_hm_folder_builds_as_it_is_downloaded(tmp_path):
    tables = make_shop()
    for row in tables["transactions"]:
        row["t_dat"] = row["t_dat"] // DAY * DAY
    parquet = write_shop(tables, tmp_path / "parquet")
    dated = [
        {**row, "t_dat": dt.date(1970, 1, 1) + dt.timedelta(days=row["t_dat"] // DAY)}
        for row in tables["transactions"]
    ]
    folder = tmp_path / "hm"
    write_hm({**tables, "transactions": dated}, folder)
    digests = {
        build(
            inputs, tmp_path / f"out-{inputs.name}", tiny_config(), backend="cpu"
        ).manifest.content_digest
        for inputs in (folder, parquet)
    }
    assert len(digests) == 1


def test_views_may_be_csv(tmp_path):
    parquet = write_shop(make_shop(views=True), tmp_path / "parquet")
    folder = convert_folder(parquet, tmp_path / "csv")
    manifests = [
        build(inputs, tmp_path / f"out-{inputs.name}", tiny_config(), backend="cpu").manifest
        for inputs in (parquet, folder)
    ]
    assert manifests[0].content_digest == manifests[1].content_digest
    assert manifests[1].inputs.rows["views"].read == manifests[0].inputs.rows["views"].read > 0
    ignoring = tiny_config(inputs={"views": False})
    rows = build(folder, tmp_path / "without", ignoring, backend="cpu").manifest.inputs.rows
    assert "views" not in rows


def test_the_audit_holds(folders, tmp_path):
    _, folder = folders
    dataset = build(folder, tmp_path / "out", tiny_config(), backend="cpu").output
    assert audit(folder, dataset)["verdict"] == "holds"
    with (folder / "customers.csv").open("a") as file:
        file.write("somebody,,,\n")
    assert audit(folder, dataset)["verdict"] == "fails"


def test_the_audit_reads_files_that_are_written_otherwise(folders, tmp_path):
    parquet, folder = folders
    for file in folder.glob("*.csv"):
        rows = [*csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline=""))]
        prices = [row.index("price") for row in rows[:1] if "price" in row]
        for row in rows[1:]:
            for column in prices:
                row[column] = row[column].replace(".", ",")
        with file.open("w", encoding="cp1252", newline="") as stream:
            csv.writer(stream, delimiter=";", quotechar="'").writerows(rows)
    own = {"csv": {"decimal_point": ",", "quote": "'", "encoding": "cp1252"}}
    built = build(folder, tmp_path / "out", tiny_config(inputs=own), backend="cpu")
    plain = build(parquet, tmp_path / "plain", tiny_config(), backend="cpu")
    assert built.manifest.content_digest == plain.manifest.content_digest
    assert audit(folder, built.output)["verdict"] == "holds"


def test_an_interrupted_build_resumes(folders, tmp_path, monkeypatch):
    _, folder = folders
    expected = build(folder, tmp_path / "whole", tiny_config(), backend="cpu").manifest
    with monkeypatch.context() as patch:
        fail_at_call(patch, pipeline, "compute_neighbors")
        with pytest.raises(RuntimeError, match="died"):
            build(folder, tmp_path / "out", tiny_config(), backend="cpu")
    tracker = RecordingTracker()
    resumed = build(
        folder, tmp_path / "out", tiny_config(), backend="cpu", resume=True, progress=tracker
    ).manifest
    assert resumed.content_digest == expected.content_digest
    assert any(timing.stage == "interactions" and timing.restored for timing in resumed.timings)
    assert not any("starting over" in text for text in tracker.texts)


def test_a_resumed_build_starts_over_where_a_file_has_changed(folders, tmp_path, monkeypatch):
    _, folder = folders
    with monkeypatch.context() as patch:
        fail_at_call(patch, pipeline, "compute_neighbors")
        with pytest.raises(RuntimeError, match="died"):
            build(folder, tmp_path / "out", tiny_config(), backend="cpu")
    log = folder / "transactions_train.csv"
    text = log.read_text(encoding="utf-8")
    log.write_text(text.replace(",1.25,", ",1.26,"), encoding="utf-8")
    tracker = RecordingTracker()
    build(folder, tmp_path / "out", tiny_config(), backend="cpu", resume=True, progress=tracker)
    assert any("starting over" in text for text in tracker.texts)


def test_a_log_of_csv_files_grows(tmp_path):
    log, config = make_log(), growing_config()
    old = write_shop(cut_log(log, TODAY), tmp_path / "old")
    whole = write_shop(log, tmp_path / "whole")
    inputs = convert_folder(old, tmp_path / "inputs")
    dataset = build(inputs, tmp_path / "out", config, backend="cpu").output
    shutil.rmtree(inputs)
    convert_folder(whole, inputs)
    appended = append(inputs, dataset, backend="cpu").manifest
    expected = build(whole, tmp_path / "expected", config, backend="cpu").manifest
    assert appended.content_digest == expected.content_digest
    shutil.rmtree(inputs)
    convert_folder(old, inputs)
    with pytest.raises(InputError, match="INPUT must hold the old rows and the new ones"):
        append(inputs, dataset, backend="cpu")


def test_doctor_reads_csv_files(folders, tmp_path):
    _, folder = folders
    checks = {check.name: check for check in doctor.checks(folder, tmp_path / "out")}
    assert checks["transactions_train.csv"].actual.startswith("260 rows")
    log = folder / "transactions_train.csv"
    log.write_text(log.read_text() + "2018-10-01,nobody\n")
    failed = [check for check in doctor.checks(folder) if check.verdict == "fail"]
    assert "transactions_train.csv: line 262: found 2 fields" in failed[0].actual
    prebuild = doctor.prebuild(folder, tmp_path, DatasetConfig())
    assert {check.name for check in prebuild} == {"memory", "disk"}


def test_plan_reads_csv_files(folders):
    parquet, folder = folders
    backend = NumpyBackend(1)
    planned, expected = (plan(inputs, tiny_config(), backend) for inputs in (folder, parquet))
    assert planned.positives == expected.positives


def test_plan_samples_csv_files(folders, monkeypatch):
    _, folder = folders
    monkeypatch.setattr("gpu_dcgen.preflight.plan.SAMPLE_ROWS", 150)
    planned = plan(folder, tiny_config(), NumpyBackend(1))
    assert planned.transactions == 260
    assert 0 < planned.share < 1


def test_a_file_of_many_blocks_is_hashed_whole(tmp_path, monkeypatch):
    file = tmp_path / "log.csv"
    file.write_text("a,b\n" + "1,2\n" * 9000)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 512)
    origin = convert_csv(file, tmp_path / "x", {"a": "key"}, DatasetConfig().inputs.csv)
    assert (origin.bytes, origin.first_line) == (file.stat().st_size, 2)
    # A preview of one block says nothing of the rest.
    preview = convert_csv(file, tmp_path / "y", {"a": "key"}, DatasetConfig().inputs.csv, 1)
    assert preview.bytes < origin.bytes
