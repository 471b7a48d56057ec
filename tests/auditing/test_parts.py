"""Of a split in many files, an audit reads as many as it is told, and says so."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing import audit
from gpu_dcgen.auditing.dataset_audit import SCOPES_OF_SAMPLE
from tests.support.audited_shops import build_shop, get_check, get_faults
from tests.support.shops import random_shop, tiny_config

GROUPS = 16  # of a file


@pytest.fixture
def folder(tmp_path) -> Path:
    """A shop, and a dataset whose splits have several files."""
    tables = random_shop(4, n_users=30, n_items=30, n_rows=700)
    build_shop(tables, tmp_path, tiny_config(output={"groups_per_part": GROUPS}))
    return tmp_path


def list_parts(folder: Path) -> list[Path]:
    return sorted((folder / "output" / "train_dataset.parquet").iterdir())


def test_what_is_read_holds_and_the_rest_is_counted(folder):
    whole = audit(folder / "input", folder / "output")
    few = audit(folder / "input", folder / "output", parts=2)
    assert get_faults(few) == get_faults(whole) == {} and few["verdict"] == "holds"
    assert few["sample"]["parts_a_split"] == 2 and whole["sample"]["parts_a_split"] is None
    n_read, n_all = (get_check(body, "positives")["n_checked"] for body in (few, whole))
    assert 0 < n_read <= 3 * 2 * GROUPS < n_all
    for rule in ("positives", "false_negatives", "user_features", "calendar"):
        assert get_check(few, rule)["scope"] == "2 seeded parts a split"
        assert get_check(whole, rule)["scope"] == "all"
    for rule, scope in SCOPES_OF_SAMPLE.items():
        assert get_check(few, rule)["scope"] == scope and get_check(whole, rule)["scope"] == "all"
    assert "train_dataset" in whole["digests"] and "train_dataset" not in few["digests"]
    assert "user_sequences" in few["digests"]
    many = audit(folder / "input", folder / "output", parts=1000)
    assert many["digests"] == whole["digests"]


def test_a_defect_is_found_if_its_file_is_read(folder):
    for part in list_parts(folder):
        table = pq.read_table(part)
        place = table.schema.names.index("month")
        wrong = pa.array([13] * table.num_rows, table.schema.field(place).type)
        pq.write_table(table.set_column(place, table.schema.field(place), wrong), part)
    assert "calendar" in get_faults(audit(folder / "input", folder / "output", parts=1))


def test_groups_of_files_that_are_not_read_are_counted_by_their_footers(folder):
    part = list_parts(folder)[-1]
    pq.write_table(pq.read_table(part).slice(0, 0), part)
    seeds = range(8)  # of one file each: some do not read that one
    for seed in seeds:
        faults = get_faults(audit(folder / "input", folder / "output", parts=1, seed=seed))
        assert any("positives" in str(fault["found"]) for fault in faults["positives"])
    faults = get_faults(audit(folder / "input", folder / "output"))
    assert any("positives" in str(fault["found"]) for fault in faults["positives"])
