"""Columns of files are read a row group at a time, beside the work on them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback import file_columns
from cpu_fallback.file_columns import read_columns

TEXTS = [f"text {number:03d}" for number in range(100)]


def test_row_groups_of_all_files_come_in_order(tmp_path):
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    for number, file in enumerate(files):
        texts = TEXTS[30 * number : 30 * (number + 1)]
        pq.write_table(pa.table({"x": texts}), file, row_group_size=7)
    column = read_columns(files, ["x"])["x"]
    chunks = list(column)
    assert [text for chunk in chunks for text in chunk.to_pylist()] == TEXTS[:90]
    assert len(chunks) == 15 and column.n_rows == 90


def test_text_without_a_dictionary_is_decoded_as_it_is_asked_for(tmp_path, monkeypatch):
    pq.write_table(
        pa.table({"x": TEXTS}),
        tmp_path / "x.parquet",
        use_dictionary=False,
        column_encoding={"x": "DELTA_BYTE_ARRAY"},
    )
    decoded, is_text = [], file_columns.is_text
    monkeypatch.setattr(file_columns, "_BATCH_ROWS", 10)
    monkeypatch.setattr(file_columns, "is_text", lambda type_: decoded.append(1) or is_text(type_))
    chunks = iter(read_columns([tmp_path / "x.parquet"], ["x"])["x"])
    first = next(chunks)
    assert first.to_pylist() == TEXTS[:10] and len(decoded) == 1
    assert [text for chunk in chunks for text in chunk.to_pylist()] == TEXTS[10:]
    assert len(decoded) == 10


def test_a_footer_is_parsed_once_for_all_row_groups(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": TEXTS}), tmp_path / "x.parquet", row_group_size=5)
    column = read_columns([tmp_path / "x.parquet"], ["x"])["x"]
    parsed, parquet_file = [], pq.ParquetFile

    def count(file, **options):
        parsed.append(options.get("metadata") is None)
        return parquet_file(file, **options)

    monkeypatch.setattr(file_columns.pq, "ParquetFile", count)
    assert len(list(column)) == 20
    assert sum(parsed) == 1 and len(parsed) == 21
