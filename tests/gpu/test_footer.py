"""Timestamps that a writer marked as UTC become local in place, and nothing else of the file
moves.
"""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.backend.gpu.footer import mark_timestamps_local

MOMENTS = [dt.datetime(2020, 2, 29, 12), None]


def write(path, columns, metadata=None, **options):
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, store_schema=False, **options)
    return path


def in_utc(unit):
    return pa.array(MOMENTS, pa.timestamp(unit, "UTC"))


@pytest.mark.parametrize("version", ["1.0", "2.4", "2.6"])
def test_every_timestamp_is_marked_local_also_inside_lists(tmp_path, version):
    columns = {
        "a": ["x", "y"],
        "t": in_utc("ns"),
        "n": [1, 2],
        "u": in_utc("us"),
        "local": pa.array(MOMENTS, pa.timestamp("us")),
        "of_day": pa.array([dt.time(1), None], pa.time64("us")),  # has such a mark too, of its own
        "l": pa.array([in_utc("us").to_pylist(), []], pa.list_(pa.timestamp("us", "UTC"))),
    }
    path = write(tmp_path / "a.parquet", columns, {"k": "v"}, version=version)
    before = pq.read_table(path)
    size = path.stat().st_size
    assert mark_timestamps_local(path) == 3
    result = pq.read_table(path)
    assert path.stat().st_size == size
    assert result.schema.field("u").type == pa.timestamp("us")
    assert result.schema.field("l").type.value_type == pa.timestamp("us")
    assert result["local"].equals(before["local"])
    assert result["of_day"].equals(before["of_day"])
    for name in columns:
        assert result[name].cast(before[name].type).equals(before[name]), name
    assert mark_timestamps_local(path) == 0


def test_a_file_of_many_columns_and_row_groups(tmp_path):
    columns = {f"c{k}": in_utc("ns") if k % 3 == 0 else pa.array([k, None]) for k in range(300)}
    columns = {"a name of more bytes than one byte counts" * 8: pa.array(["x", "y"]), **columns}
    path = write(tmp_path / "a.parquet", columns, row_group_size=1)
    assert mark_timestamps_local(path) == 100
    result = pq.read_table(path)
    assert [str(result[name].type) for name in ("c0", "c1", "c297")] == [
        "timestamp[ns]",
        "int64",
        "timestamp[ns]",
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 4 + b"no"])
def test_what_is_no_parquet_file_is_left_alone(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet: ends in .*, which no Parquet file does"):
        mark_timestamps_local(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == content
