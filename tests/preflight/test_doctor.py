"""The pre-build checks: each verdict is reached, and says what to do."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen import resources
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.preflight import doctor
from gpu_dcgen.resources import CONTROL_GROUPS


def write_shop(folder: Path, rows: int = 3, log: str = "transactions.parquet") -> Path:
    """Two tables of one row and a log of two files, partitioned as DC-001 writes it."""
    folder.mkdir()
    pq.write_table(
        pa.table({"article_id": ["1"], "product_group_name": ["x"]}), folder / "articles.parquet"
    )
    pq.write_table(pa.table({"customer_id": ["1"]}), folder / "customers.parquet")
    sales = {
        "t_dat": ["2020-01-01"] * rows,
        "customer_id": ["1"] * rows,
        "article_id": ["1"] * rows,
        "price": [1.0] * rows,
    }
    for month in (1, 2):
        part = folder / log / f"month={month}"
        part.mkdir(parents=True)
        pq.write_table(pa.table(sales), part / "part-0.parquet")
    return folder


@pytest.fixture
def big_machine(monkeypatch):
    monkeypatch.setattr(
        resources.psutil,
        "virtual_memory",
        lambda: SimpleNamespace(total=64 * doctor.GB, available=60 * doctor.GB),
    )
    monkeypatch.setattr(resources, "CONTROL_GROUPS", ())
    monkeypatch.setattr(
        resources.shutil, "disk_usage", lambda folder: SimpleNamespace(free=500 * doctor.GB)
    )
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def by_name(checks):
    return {check.name: check for check in checks}


def run_checks(inputs, tmp_path, **options):
    return by_name(doctor.checks(inputs, tmp_path / "out", **options))


def test_a_good_machine_with_all_tables_has_nothing_to_complain_about(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    checks = [
        *doctor.checks(shop, tmp_path / "out"),
        *doctor.prebuild(shop, tmp_path / "out", DatasetConfig()),
    ]
    # `gpu-dcgen` warns where the tests run from a folder.
    assert {check.verdict for check in checks if check.name != "gpu-dcgen"} == {"ok"}
    assert {check.remedy for check in checks if check.verdict == "ok"} == {""}


@pytest.mark.parametrize("log", ["transactions.parquet", "transactions"])
def test_rows_and_bytes_of_a_partitioned_table_are_added_up(tmp_path, big_machine, log):
    shop = write_shop(tmp_path / "shop", log=log)
    n_bytes = sum(file.stat().st_size for file in (shop / log).rglob("*.parquet"))
    assert run_checks(shop, tmp_path)[log].actual == f"6 rows, {n_bytes / 10**6:,.1f} MB"


def test_views_are_looked_at_where_they_are_there_and_wanted(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    pq.write_table(
        pa.table({"t_dat": ["2020-01-01"], "customer_id": ["1"], "article_id": ["1"]}),
        shop / "views.parquet",
    )
    assert run_checks(shop, tmp_path)["views.parquet"].actual.startswith("1 rows")
    (without := tmp_path / "mine.yaml").write_text("inputs: {views: false}")
    assert "views.parquet" not in run_checks(shop, tmp_path, config_file=without)


def test_a_missing_table_fails_and_is_named(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    shutil.rmtree(shop / "transactions.parquet")
    check = run_checks(shop, tmp_path)["tables"]
    assert (
        check.verdict == "fail"
        and "table transactions is missing" in check.actual
        and "Put the table of transactions there" in check.remedy
    )
    assert "\n" not in check.actual + check.remedy


def test_a_missing_column_fails_and_is_found_under_the_name_that_the_configuration_gives_it(
    tmp_path, big_machine
):
    shop = write_shop(tmp_path / "shop")
    pq.write_table(pa.table({"household": ["1"]}), shop / "customers.parquet")
    check = run_checks(shop, tmp_path)["tables"]
    assert (
        check.verdict == "fail"
        and "column 'customer_id' is missing" in check.actual
        and "inputs.columns" in check.remedy
    )
    (mapped := tmp_path / "mine.yaml").write_text(
        "inputs: {columns: {customers: {customer_id: household}}}"
    )
    assert run_checks(shop, tmp_path, config_file=mapped)["customers.parquet"].verdict == "ok"


def test_all_problems_are_found_at_once(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    pq.write_table(pa.table({"household": ["1"]}), shop / "customers.parquet")
    (shop / "transactions.parquet" / "notes.txt").write_text("see wiki")
    (shop / "articles.parquet").unlink()
    (shop / "articles.parquet").symlink_to("gone")
    checks = [check for check in doctor.checks(shop, tmp_path) if check.name == "tables"]
    assert [check.verdict for check in checks] == ["fail"] * 3
    assert all(check.remedy and "\n" not in check.actual + check.remedy for check in checks)
    for check, words in zip(checks, ("link to gone", "notes.txt", "'customer_id'"), strict=True):
        assert words in check.actual


def test_rows_that_a_build_would_refuse_are_found_with_all_reasons(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    pq.write_table(pa.table({"customer_id": ["01"]}), shop / "customers.parquet")
    assert run_checks(write_shop(tmp_path / "good"), tmp_path)["rows"].actual == (
        "8 rows, 0 of them bad"
    )
    check = run_checks(shop, tmp_path)["tables"]
    assert check.verdict == "fail" and "6 unknown_customer" in check.actual
    assert "leading zeros: '1' in transactions.parquet, '01' in customers" in check.actual
    assert check.remedy == "Fix the rows: too many are bad to set them aside."


def test_what_a_build_would_warn_of_is_a_warning(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    (shop / "transactions.parquet" / "_SUCCESS").touch()
    checks = [check for check in doctor.checks(shop, tmp_path) if check.name == "rows"]
    assert [check.verdict for check in checks] == ["ok", "warn"]
    assert "1 hidden file (_SUCCESS) is left out" in checks[1].actual


def test_a_mapping_of_no_column_fails_with_a_remedy(tmp_path, big_machine):
    (file := tmp_path / "mine.yaml").write_text("inputs: {columns: {customers: {name: x}}}")
    check = run_checks(write_shop(tmp_path / "shop"), tmp_path, config_file=file)["tables"]
    assert check.verdict == "fail" and "'name'" in check.actual and check.remedy


def test_a_table_that_is_not_parquet_fails_without_a_traceback(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    (shop / "articles.parquet").write_text("article_id\n1\n")
    check = run_checks(shop, tmp_path)["tables"]
    assert (
        check.verdict == "fail"
        and "articles.parquet: cannot be read as Parquet" in check.actual
        and check.remedy
    )


def test_an_empty_log_fails(tmp_path, big_machine):
    check = run_checks(write_shop(tmp_path / "shop", rows=0), tmp_path)["tables"]
    assert (
        check.verdict == "fail" and check.actual == "transactions.parquet: the table has no rows."
    )


def test_tables_cannot_be_checked_without_pyarrow_and_the_other_checks_run(
    tmp_path, big_machine, monkeypatch
):
    monkeypatch.setitem(sys.modules, "gpu_dcgen.inputs.sources", None)
    checks = run_checks(write_shop(tmp_path / "shop"), tmp_path)
    assert checks["tables"].verdict == "fail" and "pyarrow" in checks["tables"].remedy
    assert checks["output"].verdict == "ok" and "disk for this build" not in checks


@pytest.mark.parametrize("damage", ["no log", "no folder", "torn"])
def test_unusable_tables_are_left_to_the_build_which_says_more(tmp_path, big_machine, damage):
    shop = write_shop(tmp_path / "shop")
    if damage == "torn":
        (shop / "customers.parquet").write_bytes(b"")
    else:
        shop = tmp_path / "nowhere" if damage == "no folder" else shop
        (tmp_path / "shop" / "transactions.parquet").rename(tmp_path / "elsewhere")
    checks = by_name(doctor.prebuild(shop, tmp_path, DatasetConfig()))
    assert set(checks) == {"memory", "disk"}
    assert {check.verdict for check in checks.values()} == {"ok"}


def test_less_than_the_contract_asks_is_a_warning(tmp_path, big_machine, monkeypatch):
    monkeypatch.setattr(
        resources.psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * doctor.GB)
    )
    monkeypatch.setattr(
        resources.shutil, "disk_usage", lambda folder: SimpleNamespace(free=49 * doctor.GB)
    )
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    checks = by_name(doctor.prebuild(write_shop(tmp_path / "shop"), tmp_path, DatasetConfig()))
    assert {name for name, check in checks.items() if check.verdict == "warn"} == {
        "memory",
        "disk",
    }
    assert all(check.remedy for check in checks.values() if check.verdict == "warn")


def test_a_container_with_less_memory_than_its_host_is_believed(tmp_path, big_machine, monkeypatch):
    limit = tmp_path / "memory.max"
    group = CONTROL_GROUPS[0]._replace(limit=limit)
    monkeypatch.setattr(resources, "CONTROL_GROUPS", (group,))
    limit.write_text("max\n")
    assert by_name(doctor.checks())["memory"].verdict == "ok"
    limit.write_text(f"{4 * doctor.GB}\n")
    assert by_name(doctor.checks())["memory"].actual == "4.0 GB"


def test_the_disk_estimate_grows_with_rows_and_negatives(tmp_path, big_machine, monkeypatch):
    monkeypatch.setattr(resources, "_SAMPLE_BYTES", 10**9)
    monkeypatch.setattr(resources, "_DISK_MARGIN", 1)
    shop = write_shop(tmp_path / "shop", rows=10, log="transactions")
    check = by_name(doctor.prebuild(shop, tmp_path, DatasetConfig()))["disk for this build"]
    # 20 rows of 16 samples each.
    assert check.expected == "about 320.0 GB at most" and check.verdict == "ok"
    more = DatasetConfig(negative_sampling={"random_negatives_per_positive": 26})
    assert by_name(doctor.prebuild(shop, tmp_path, more))["disk for this build"].verdict == "warn"


def test_an_output_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path):
    check = by_name(doctor.checks(output=tmp_path / "a" / "b"))["output"]
    assert check.verdict == "ok" and str(tmp_path) in check.actual


def test_an_output_nobody_may_write_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    assert by_name(doctor.checks(output=tmp_path))["output"].verdict == "fail"


def test_a_bad_configuration_fails_and_the_other_checks_run(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("split: {train_share: 2}\n")
    checks = by_name(doctor.checks(config_file=file))
    assert (
        checks["configuration"].verdict == "fail"
        and "train_share" in checks["configuration"].actual
    )
    assert "memory" in checks


def test_an_unsupported_python_fails(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert by_name(doctor.checks())["Python"].verdict == "fail"


def test_package_versions_are_held_against_the_metadata(monkeypatch):
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "requires",
        lambda name: [
            "numpy>=1.26",
            "scipy>=999",
            "no-such-package>=1.0",
            "pandas>=2.2; extra == 'test'",
        ],
    )
    checks = by_name(doctor.checks())
    assert checks["numpy"].verdict == "ok"
    assert (
        checks["scipy"].verdict == "fail" and checks["scipy"].remedy == "pip install 'scipy>=999'"
    )
    assert checks["no-such-package"].actual == "not installed"
    assert "pandas" not in checks


@pytest.mark.parametrize(
    ("version", "verdict"), [("2.10.0", "ok"), ("2.9rc1", "ok"), ("2.8", "fail")]
)
def test_versions_compare_as_numbers(version, verdict, monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: version)
    assert doctor._check_package("some-package", "2.9").verdict == verdict


def test_a_numba_that_cannot_be_imported_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert by_name(doctor.checks())["compiled kernels"].verdict == "fail"


def test_a_folder_without_tables_is_a_problem_and_no_crash(tmp_path, big_machine):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ratings.csv").write_text("userId,movieId\n1,2\n")
    checks = doctor.checks(tmp_path / "data", tmp_path / "out")
    assert any("table transactions is missing" in check.actual for check in checks)
