"""The pre-build checks: each verdict is reached, and says what to do."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen import doctor
from gpu_dcgen.config import DatasetConfig


def write_shop(folder: Path, rows: int = 3) -> Path:
    folder.mkdir()
    for name in ("articles", "customers"):
        pq.write_table(pa.table({"id": ["1"]}), folder / f"{name}.parquet")
    for month in (1, 2):  # a partitioned table, as DC-001 writes transactions
        part = folder / "transactions.parquet" / f"month={month}"
        part.mkdir(parents=True)
        pq.write_table(pa.table({"id": ["1"] * rows}), part / "part-0.parquet")
    return folder


@pytest.fixture
def big_machine(monkeypatch):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * doctor.GB))
    monkeypatch.setattr(doctor, "CGROUP_LIMITS", ())
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=500 * doctor.GB))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_good_machine_with_all_tables_has_nothing_to_complain_about(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    checks = doctor.prebuild(shop, tmp_path / "out", DatasetConfig())
    assert {check.verdict for check in checks} == {"ok"}
    assert {check.remedy for check in checks} == {""}


def test_rows_of_a_partitioned_table_are_added_up(tmp_path, big_machine):
    check = by_name(doctor.prebuild(write_shop(tmp_path / "shop"), tmp_path, DatasetConfig()))["transactions.parquet"]
    assert check.found.startswith("6 rows")


def test_a_missing_table_fails_and_is_named(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    (shop / "customers.parquet").unlink()
    check = by_name(doctor.prebuild(shop, tmp_path, DatasetConfig()))["customers.parquet"]
    assert check.verdict == "fail" and "does not exist" in check.found and "customers.parquet" in check.remedy


def test_a_table_that_is_not_parquet_fails_without_a_traceback(tmp_path, big_machine):
    shop = write_shop(tmp_path / "shop")
    (shop / "articles.parquet").write_text("article_id\n1\n")
    check = by_name(doctor.prebuild(shop, tmp_path, DatasetConfig()))["articles.parquet"]
    assert check.verdict == "fail" and "cannot be read" in check.found


def test_an_empty_log_fails(tmp_path, big_machine):
    check = by_name(doctor.prebuild(write_shop(tmp_path / "shop", rows=0), tmp_path, DatasetConfig()))["transactions.parquet"]
    assert check.verdict == "fail" and check.found.startswith("0 rows")


def test_less_than_the_contract_asks_is_a_warning(tmp_path, big_machine, monkeypatch):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * doctor.GB))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=49 * doctor.GB))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    checks = by_name(doctor.prebuild(write_shop(tmp_path / "shop"), tmp_path, DatasetConfig()))
    assert {name for name, check in checks.items() if check.verdict == "warn"} == {"memory", "cores", "disk"}
    assert all(check.remedy for check in checks.values() if check.verdict == "warn")


def test_a_container_with_less_memory_than_its_host_is_believed(tmp_path, big_machine, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "CGROUP_LIMITS", (str(limit),))
    limit.write_text("max\n")
    assert by_name(doctor.checks())["memory"].verdict == "ok"
    limit.write_text(f"{4 * doctor.GB}\n")
    assert by_name(doctor.checks())["memory"].found == "4.0 GB"


def test_the_disk_estimate_grows_with_rows_and_negatives(tmp_path, big_machine, monkeypatch):
    monkeypatch.setattr(doctor, "BYTES_PER_SAMPLE", 10**9)
    shop = write_shop(tmp_path / "shop", rows=10)
    check = by_name(doctor.prebuild(shop, tmp_path, DatasetConfig()))["disk for this build"]
    assert check.expected == "about 320.0 GB at most" and check.verdict == "ok"  # 20 rows, 16 samples each
    more = DatasetConfig(negative_sampling={"random_negatives_per_positive": 26})
    assert by_name(doctor.prebuild(shop, tmp_path, more))["disk for this build"].verdict == "warn"


def test_an_output_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path):
    check = by_name(doctor.checks(output=tmp_path / "a" / "b"))["output"]
    assert check.verdict == "ok" and str(tmp_path) in check.found


def test_an_output_nobody_may_write_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    assert by_name(doctor.checks(output=tmp_path))["output"].verdict == "fail"


def test_a_bad_configuration_fails_and_the_other_checks_go_on(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("split: {train_share: 2}\n")
    checks = by_name(doctor.checks(config_file=file))
    assert checks["configuration"].verdict == "fail" and "train_share" in checks["configuration"].found
    assert "memory" in checks


def test_an_unsupported_python_fails(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert by_name(doctor.checks())["Python"].verdict == "fail"


def test_package_versions_are_held_against_the_metadata(monkeypatch):
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "requires",
        lambda name: ["numpy>=1.26", "scipy>=999", "no-such-package>=1.0", "pandas>=2.2; extra == 'test'"],
    )
    checks = by_name(doctor.checks())
    assert checks["numpy"].verdict == "ok"
    assert checks["scipy"].verdict == "fail" and checks["scipy"].remedy == "pip install 'scipy>=999'"
    assert checks["no-such-package"].found == "not installed"
    assert "pandas" not in checks


def test_versions_compare_as_numbers():
    assert doctor._release("2.10.0rc1") == (2, 10, 0) > doctor._release("2.9")


def test_a_numba_that_cannot_be_imported_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert by_name(doctor.checks())["compiled kernels"].verdict == "fail"


def test_the_gpu_line_says_that_there_is_no_backend_yet():
    check = by_name(doctor.checks())["GPU"]
    assert check.verdict == "ok" and "no GPU backend yet" in check.found
