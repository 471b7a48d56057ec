"""Files beside the samples are checked a few rows at a time; a finding says in which row it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing import audit, dataset_files
from gpu_dcgen.auditing.dataset_files import open_dataset
from gpu_dcgen.auditing.expected import derive_dataset
from gpu_dcgen.auditing.similarity_checks import read_pairs
from gpu_dcgen.errors import InputError
from tests.support.audited_shops import build_shop, get_faults
from tests.support.shops import random_shop

ROW = 7  # in the third batch


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A shop and its dataset, of which batches of three rows are read."""
    monkeypatch.setattr(dataset_files, "SIDE_TABLE_ROWS", 3)
    build_shop(random_shop(4, n_users=30, n_items=30, n_rows=700), tmp_path)
    return tmp_path


def change(folder: Path, table: str, column: str, row: int, value: Callable[[Any], Any]) -> None:
    """Replace a cell by what `value` makes of it; the column may have nulls then."""
    path = folder / "output" / f"{table}.parquet"
    content = pq.read_table(path)
    cells = content[column].to_pylist()
    cells[row] = value(cells[row])
    field = content.schema.field(column)
    changed = pa.array(cells, field.type)
    place = content.schema.names.index(column)
    content = content.set_column(place, field.with_nullable(True), changed)
    pq.write_table(content, path, row_group_size=5)  # so that ROW is in the second


def find(folder: Path, rule: str) -> list[dict[str, Any]]:
    return get_faults(audit(folder / "input", folder / "output")).get(rule, [])


def test_an_untouched_dataset_holds(folder):
    assert audit(folder / "input", folder / "output")["verdict"] == "holds"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sequence_length", lambda n: n + 1),
        ("split", lambda name: "val" if name == "train" else "train"),
        ("recency", lambda ages: [ages[0] / 2, *ages[1:]]),
        ("item_indices", lambda items: [*items[:-1], items[-1] + 1]),
    ],
)
def test_a_wrong_sequence_is_found_in_its_row(folder, column, value):
    change(folder, "user_sequences", column, ROW, value)
    (offender,) = find(folder, "user_sequences")
    assert offender["row"] == ROW and offender["found"].startswith(column)


def test_a_user_too_few_is_found(folder):
    path = folder / "output" / "user_sequences.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(0, ROW), table.slice(ROW + 1)]), path)
    (offender,) = find(folder, "user_sequences")
    assert offender["row"] == ROW and "1 missing, 0 too many" in offender["found"]


def test_rows_behind_a_null_are_checked(folder):
    change(folder, "user_sequences", "split", 1, lambda name: None)
    change(folder, "user_sequences", "sequence_length", ROW, lambda n: n + 1)
    faults = get_faults(audit(folder / "input", folder / "output"))
    assert "split: null" in [offender["found"] for offender in faults["schema"]]
    assert [offender["row"] for offender in faults["user_sequences"]] == [ROW]


def test_a_wrong_similarity_is_found_in_its_row(folder):
    change(folder, "item_similarity_matrix", "similarity", ROW, lambda score: score / 2)
    assert ROW in [offender["row"] for offender in find(folder, "similarity_matrix")]


def test_an_unknown_item_is_found_by_its_id(folder):
    change(folder, "item_similarity_matrix", "similar_item_id", ROW, lambda item: "nowhere")
    (offender,) = find(folder, "references")
    assert offender["row"] == ROW and offender["found"]["similar_item_id"] == "nowhere"


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("item_id", lambda item: "nowhere", f"row {ROW}: {{'item_id': 'nowhere'"),
        ("rank", lambda rank: 99, "a row out of order"),
        ("similarity", lambda score: None, f"row {ROW}: similarity: null"),
    ],
)
def test_pairs_are_refused_where_they_cannot_be_used(folder, column, value, found):
    """By what asks for pairs alone: `explain`."""
    written = open_dataset(folder / "output")
    items = derive_dataset(folder / "input", written.config).log.items
    assert read_pairs(written, items).n_pairs > ROW
    change(folder, "item_similarity_matrix", column, ROW, value)
    with pytest.raises(InputError, match="item_similarity_matrix.parquet: row") as caught:
        read_pairs(written, items)
    assert found in str(caught.value)
    (folder / "output" / "item_similarity_matrix.parquet").unlink()
    with pytest.raises(InputError, match="has no item_similarity_matrix.parquet"):
        read_pairs(written, items)
