"""Files of our own encoder, beside those that pyarrow writes of the same blocks.

`ArrowPartWriter` is the oracle: rows, schema, statistics and sizes of levels are compared, by
readers of four libraries and by our own reader of footers.
"""

import errno
import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback import NumpyBackend, PartWriter
from gpu_dcgen.backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values
from gpu_dcgen.digest import vocabulary
from gpu_dcgen.inputs.footers import check_pages, read_footer
from gpu_dcgen.thrift import CompactReader
from tests.support.encoded_blocks import (
    TIME,
    make_block,
    make_settings,
    read_struct,
    write_both,
)

CPU = NumpyBackend(1)
# Fields of parquet.thrift's FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
SCHEMA, N_ROWS, ROW_GROUPS, KEY_VALUES, ORDERS = 2, 3, 4, 5, 7
METADATA, OFFSET_INDEX, COLUMN_INDEX = 3, 4, 6
STATISTICS, SIZES = 12, 16
TEXT = 6  # the Type of texts


def comparable(chunk):
    """What two files must say alike of a column's chunk."""
    metadata = chunk[METADATA]
    statistics = metadata.get(STATISTICS, {})
    # Versions of Arrow differ in whether they tell that bounds are exact. Where a text is null,
    # Arrow's bounds may take in a text that does not occur: `require_text_bounds`.
    left_out = (7, 8) if metadata[1] != TEXT else (5, 6, 7, 8)
    statistics = {k: v for k, v in statistics.items() if k not in left_out}
    sizes = {k: v for k, v in metadata.get(SIZES, {}).items() if v != []}
    return {k: metadata[k] for k in (1, 3, 4, 5)} | {"statistics": statistics, "sizes": sizes}


def require_same_footers(ours, arrow):
    mine, theirs = read_struct(ours), read_struct(arrow)
    for number in (1, SCHEMA, N_ROWS, KEY_VALUES, ORDERS):
        assert mine[number] == theirs[number], number
    for group, other in zip(mine.get(ROW_GROUPS, []), theirs.get(ROW_GROUPS, []), strict=True):
        assert group[3] == other[3]
        for chunk, other_chunk in zip(group[1], other[1], strict=True):
            expected, found = comparable(other_chunk), comparable(chunk)
            if SIZES not in other_chunk[METADATA]:  # older versions of Arrow do not tell them
                found["sizes"] = expected["sizes"]
            assert found == expected, expected[3]
            if chunk[METADATA][1] != TEXT:
                assert (COLUMN_INDEX in chunk) == (COLUMN_INDEX in other_chunk), expected[3]


def require_text_bounds(path):
    """Bounds of texts are those of the texts that readers find."""
    for number, group in enumerate(read_struct(path).get(ROW_GROUPS, [])):
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(number)
        for chunk in group[1]:
            metadata = chunk[METADATA]
            if metadata[1] != TEXT or STATISTICS not in metadata:
                continue
            column, found = table[metadata[3][0].decode()], metadata[STATISTICS]
            bounds = [] if column.null_count == len(column) else list(extremes(column))
            assert [found[k] for k in (6, 5) if k in found] == [text.encode() for text in bounds]
            assert found.get(7, True) and found.get(8, True)
            assert COLUMN_INDEX in chunk


def require_same_rows(ours, arrow):
    result, expected = pq.read_table(ours), pq.read_table(arrow)
    result.validate(full=True)
    assert result.schema.equals(expected.schema, check_metadata=True)
    assert result.equals(expected)
    assert pl.read_parquet(ours).equals(pl.read_parquet(arrow), null_equal=True)


shapes = st.fixed_dictionaries(
    {
        "n_entries": st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100]),
        "repeats": st.sampled_from([1, 2, 16]),
        "n_words": st.sampled_from([0, 1, 2, 3, 4, 5, 17, 300]),
        "spread": st.sampled_from([0, 1, 3, 1_000]),
        "null_share": st.sampled_from([None, 0.0, 0.2, 0.9, 1.0]),
        "max_length": st.sampled_from([0, 1, 3, 60]),
        "seed": st.integers(0, 1 << 30),
    }
)


@given(shapes)
@settings(max_examples=25, deadline=None)
def test_a_file_says_what_pyarrows_says(tmp_path_factory, shape):
    folder = tmp_path_factory.mktemp("files")
    block, schema = make_block(**shape)
    paths = write_both(folder, [block], schema)
    require_same_footers(*paths)
    require_text_bounds(paths[0])
    require_same_rows(*paths)


@pytest.mark.parametrize("compression, level", [("zstd", 1), ("snappy", None)])
def test_many_row_groups_say_what_pyarrows_say(tmp_path, compression, level):
    shape = {"n_words": 40, "spread": 9, "null_share": 0.3, "max_length": 9}
    blocks, schemas = zip(
        *(make_block(n, 4, **shape, seed=n, first=100 * n) for n in (1, 30, 0, 77)), strict=True
    )
    paths = write_both(
        tmp_path,
        blocks,
        schemas[0],
        rows_per_row_group=64,
        compression=compression,
        compression_level=level,
    )
    assert pq.read_metadata(paths[0]).num_row_groups == 1 + 2 + 5
    require_same_footers(*paths)
    require_text_bounds(paths[0])
    require_same_rows(*paths)


def big_block():
    """Columns that take several pages each."""
    block, schema = make_block(
        50_000, 8, n_words=90_000, spread=40_000, null_share=0.1, max_length=20, seed=1
    )
    names = [
        name
        for name in schema.names
        if name.endswith(("int32_entry", "float32_row", "category_row", "id_entry"))
        or name in ("plain_bool_row", "plain_list_int32_False", "matrix_id", "sample_id")
        or name in ("dictionary_list_int32_True", "plain_matrix_float32", "plain_time_row")
    ]
    schema = pa.schema([schema.field(name) for name in names], schema.metadata)
    return replace(block, columns={name: block.columns[name] for name in names}), schema


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    block, schema = big_block()
    return write_both(tmp_path_factory.mktemp("big"), [block], schema)


def test_columns_of_many_pages_say_what_pyarrows_say(big):
    require_same_footers(*big)
    require_same_rows(*big)


def test_duckdb_reads_what_it_reads_of_pyarrows(big, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    block, schema = make_block(40, 4, n_words=9, spread=9, null_share=0.3, max_length=5, seed=2)
    for ours, arrow in (big, write_both(tmp_path, [block], schema)):
        differing = duckdb.sql(
            f"select count(*) from '{ours}' as a positional join '{arrow}' as b "
            "where a.sample_id != b.sample_id"
        )
        assert differing.fetchall() == [(0,)]
        for query in ("from '{}'", "from '{}' where plain_int32_entry < 5"):
            rows, expected = (duckdb.sql(query.format(path)) for path in (ours, arrow))
            assert rows.aggregate("count(*), bit_xor(hash(columns(*)))").fetchall() == (
                expected.aggregate("count(*), bit_xor(hash(columns(*)))").fetchall()
            )


def test_filters_find_the_same_rows(big):
    ours, arrow = big
    number = pc.field("plain_int32_entry")
    condition = (number > 0) & (number < 200) & (pc.field("id_entry") > "wörd-5")
    columns = ["plain_int32_entry", "id_entry", "sample_id", "plain_list_int32_False"]
    found, expected = (
        ds.dataset(path).to_table(columns=columns, filter=condition) for path in (ours, arrow)
    )
    assert 0 < len(found) < 2_000
    assert found.equals(expected)
    by_polars = [
        pl.scan_parquet(path).filter(pl.col("plain_int32_entry") == 77).collect()
        for path in (ours, arrow)
    ]
    assert by_polars[0].equals(by_polars[1], null_equal=True)


def test_the_page_index_leads_to_the_pages_and_bounds_their_values(big):
    path = big[0]
    footer, table = read_struct(path), pq.read_table(path)
    n_indexed = 0
    for chunk in footer[ROW_GROUPS][0][1]:
        name, metadata = chunk[METADATA][3][0].decode(), chunk[METADATA]
        index = read_struct(path, chunk[OFFSET_INDEX])
        pages = index[1]
        assert len(pages) > 1, name
        firsts = [page[3] for page in pages]
        position, n_values = pages[0][1], 0
        assert position == metadata[9]
        for page in pages:
            assert page[1] == position
            data = path.read_bytes()[position : position + page[2]]
            reader = CompactReader(data)
            header = reader.read_struct()
            assert reader.position + header[3] == page[2] == len(data)
            position += page[2]
            n_values += header[5][1]
        assert n_values == metadata[5]
        assert position == metadata.get(11, metadata[9]) + metadata[7]
        column = table[name]
        slices = [
            column.slice(start, stop - start) for start, stop in pairwise([*firsts, len(table)])
        ]
        if 2 in index:
            texts = [flatten_text(part) for part in slices]
            assert index[2] == [pc.sum(pc.binary_length(text)).as_py() or 0 for text in texts]
        if COLUMN_INDEX not in chunk:
            continue
        n_indexed += 1
        bounds = read_struct(path, chunk[COLUMN_INDEX])
        assert bounds[5] == [part.null_count for part in slices]
        for least, greatest, part in zip(bounds[2], bounds[3], slices, strict=True):
            assert [least, greatest] == [encode_value(part, value) for value in extremes(part)]
    assert n_indexed > 5


def flatten_text(column):
    array = column.combine_chunks()
    array = array.flatten() if pa.types.is_nested(array.type) else array
    return array.cast(pa.string())


def extremes(column):
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if column.type == TIME:
        column = column.cast(pa.int64())
    values = sorted(value for value in column.to_pylist() if value is not None)
    return values[0], values[-1]


def encode_value(column, value):
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, float):
        return struct.pack("<f" if column.type == pa.float32() else "<d", value)
    return struct.pack("<q" if column.type in (TIME, pa.int64()) else "<i", value)


def test_pages_hold_what_the_footer_claims(big, tmp_path):
    block, schema = make_block(40, 4, n_words=9, spread=9, null_share=0.3, max_length=5, seed=2)
    for path in (big[0], write_both(tmp_path, [block], schema, rows_per_row_group=64)[0]):
        footer = read_footer(path)
        check_pages(path, footer, list(footer.groups[0]))
        metadata = pq.read_metadata(path)
        position = 4
        for number, group in enumerate(read_struct(path)[ROW_GROUPS]):
            chunks = [chunk[METADATA] for chunk in group[1]]
            assert group[2] == sum(chunk[6] for chunk in chunks)
            assert group[2] == metadata.row_group(number).total_byte_size
            assert group[6] == sum(chunk[7] for chunk in chunks)
            assert (group[5], group[7]) == (position, number)
            for chunk in chunks:
                assert chunk.get(11, chunk[9]) == position
                position += chunk[7]


@pytest.mark.parametrize("order, values", [(1, [1, 5, 9]), (2, [9, 5, 1]), (0, [5, 9, 1])])
def test_the_order_of_the_pages_bounds_is_told(tmp_path, order, values):
    column = Values(np.repeat(np.int32(values), 20_000))
    schema = pa.schema([pa.field("x", pa.int32(), False)])
    ours, arrow = write_both(tmp_path, [Block(0, 60_000, {"x": column})], schema)
    chunk = read_struct(ours)[ROW_GROUPS][0][1][0]
    bounds = read_struct(ours, chunk[COLUMN_INDEX])
    assert bounds[4] == order
    assert bounds[1] == [b"\2"] * 3


def test_a_page_of_nulls_alone_has_no_bounds(tmp_path):
    valid = np.arange(60_000) >= 20_000
    column = Values(np.arange(60_000, dtype=np.int32), valid)
    schema = pa.schema([pa.field("x", pa.int32())])
    ours, arrow = write_both(tmp_path, [Block(0, 60_000, {"x": column})], schema)
    require_same_footers(ours, arrow)
    bounds = read_struct(ours, read_struct(ours)[ROW_GROUPS][0][1][0][COLUMN_INDEX])
    assert bounds[1] == [b"\1", b"\2", b"\2"]
    assert bounds[2] == [b"", *(struct.pack("<i", first) for first in (20_000, 40_000))]


@pytest.mark.parametrize("type_", [pa.float32(), pa.float64()])
def test_bounds_of_floats_leave_out_nan_and_cover_both_zeros(tmp_path, type_):
    dtype = type_.to_pandas_dtype()
    schema = pa.schema([pa.field(name, type_) for name in ("zeros", "negative", "nan")])
    columns = {
        "zeros": Values(np.array([np.nan, 0, 2], dtype)),
        "negative": Values(np.array([-3, -0.0, np.nan], dtype)),
        "nan": Values(np.full(3, np.nan, dtype)),
    }
    ours, arrow = write_both(tmp_path, [Block(0, 3, columns)], schema)
    require_same_footers(ours, arrow)
    chunks = read_struct(ours)[ROW_GROUPS][0][1]
    zeros, negative, nan = (chunk[METADATA][STATISTICS] for chunk in chunks)
    assert np.frombuffer(zeros[6], dtype).tobytes() == np.array([-0.0], dtype).tobytes()
    assert np.frombuffer(negative[5], dtype).tobytes() == np.array([0.0], dtype).tobytes()
    assert 5 not in nan


def test_long_texts_have_no_bounds(tmp_path):
    words = vocabulary(["a", "b" * 4_096, "b" * 4_097], CPU)
    schema = pa.schema([pa.field(name, pa.string(), False) for name in ("short", "long")])
    columns = {"short": Codes(np.array([0, 1]), words), "long": Codes(np.array([0, 2]), words)}
    ours, _ = write_both(tmp_path, [Block(0, 2, columns)], schema)
    short, long = (chunk[METADATA][STATISTICS] for chunk in read_struct(ours)[ROW_GROUPS][0][1])
    assert (short[6], short[5]) == (b"a", b"b" * 4_096)
    assert long == {3: 0}
    assert COLUMN_INDEX not in read_struct(ours)[ROW_GROUPS][0][1][1]


def test_numbers_of_which_most_differ_are_plain(tmp_path):
    columns = {
        "few": Values(np.arange(3_000, dtype=np.int32) % 40),
        "most": Values(np.arange(3_000, dtype=np.int32)),
        "of_groups": Values(np.arange(300, dtype=np.int32), repeats=10),
        "too_many": Values(np.arange(300_000, dtype=np.int64) % 140_000),
    }
    schema = pa.schema([pa.field(name, pa.int32(), False) for name in list(columns)[:3]])
    block = Block(0, 3_000, {name: columns[name] for name in schema.names})
    ours, _ = write_both(tmp_path, [block], schema)
    row_group = pq.read_metadata(ours).row_group(0)
    found = [row_group.column(k).has_dictionary_page for k in range(3)]
    assert found == [True, False, True]
    schema = pa.schema([pa.field("too_many", pa.int64(), False)])
    ours, _ = write_both(tmp_path, [Block(0, 300_000, {"too_many": columns["too_many"]})], schema)
    assert not pq.read_metadata(ours).row_group(0).column(0).has_dictionary_page


@pytest.mark.parametrize(
    "type_, column, encoding, problem",
    [
        (pa.int32(), Values(np.zeros(2, np.int32)), "BYTE_STREAM_SPLIT", "PLAIN or DICTIONARY"),
        (pa.string(), Codes(np.zeros(2, np.int8), vocabulary(["a"], CPU)), "PLAIN", "DICTIONARY"),
        (pa.string(), SampleIds("train", 0, 2, 1), "PLAIN", "DELTA_BYTE_ARRAY"),
        (
            pa.list_(pa.field("element", pa.int32(), False), 1),
            Matrix(np.zeros((2, 1), np.int32), np.array([[True], [False]])),
            "PLAIN",
            "null elements where the schema allows none",
        ),
        (
            pa.list_(pa.int32()),
            Lists(np.zeros(3, np.int32), np.array([0, 2]), np.array([1, -1], np.int32)),
            "PLAIN",
            "a length below 0",
        ),
    ],
)
def test_what_is_not_written_is_refused(tmp_path, type_, column, encoding, problem):
    schema, path = pa.schema([pa.field("x", type_, False)]), tmp_path / "a.parquet"
    with (
        pytest.raises(ValueError, match=f"a.parquet: column 'x': .*{problem}"),
        PartWriter(path, schema, make_settings(schema, encodings={"x": encoding})) as writer,
    ):
        writer.write(Block(0, 2, {"x": column}))
    assert not path.exists()


@pytest.mark.parametrize("type_", [pa.uint8(), pa.float16(), pa.timestamp("us"), pa.binary()])
def test_types_that_no_file_has_are_refused(tmp_path, type_):
    schema = pa.schema([pa.field("x", type_)])
    with pytest.raises(ValueError, match="a.parquet: column 'x': .* does not know"):
        PartWriter(tmp_path / "a.parquet", schema, make_settings(schema)).__enter__()
    schema = pa.schema([pa.field("x", pa.int32())])
    with pytest.raises(ValueError, match="compression 'gzip', not one of snappy, zstd"):
        PartWriter(
            tmp_path / "a.parquet", schema, make_settings(schema, compression="gzip")
        ).__enter__()
    assert not (tmp_path / "a.parquet").exists()


def test_row_groups_beyond_16_bits_have_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr("cpu_fallback.footer._MAX_ORDINAL", 2)
    schema, path = pa.schema([pa.field("x", pa.bool_(), False)]), tmp_path / "a.parquet"
    with PartWriter(path, schema, make_settings(schema, rows_per_row_group=1)) as writer:
        writer.write(Block(0, 5, {"x": Values(np.arange(5) % 3 == 0)}))
    assert [group.get(7) for group in read_struct(path)[ROW_GROUPS]] == [0, 1, 2, None, None]
    assert pq.read_metadata(path).num_row_groups == 5


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PartWriter, "_append_bytes", write)
    schema, path = pa.schema([pa.field("x", pa.int32())]), tmp_path / "a.parquet"
    with (
        pytest.raises(OSError, match="No space left"),
        PartWriter(path, schema, make_settings(schema)),
    ):
        pass
    assert not path.exists()
