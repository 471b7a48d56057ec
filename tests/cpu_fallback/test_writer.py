"""The part writer: what readers find in its files, how rows are cut, what it refuses."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback import NumpyBackend, PartWriter
from gpu_dcgen.backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values
from gpu_dcgen.contract import schema as contract
from gpu_dcgen.digest import ContentDigest, digest_file, vocabulary

CPU = NumpyBackend(1)
WIDTH = 4  # rows a group
N_USERS, N_ITEMS = 40, 25
USER_IDS = [f"{u:064x}" for u in range(N_USERS)]
ITEM_IDS = [f"0{i:09d}" for i in range(N_ITEMS)]
WORDS = {
    "user_id": USER_IDS,
    "item_id": ITEM_IDS,
    "user_age_group": contract.AGE_GROUPS,
    "item_price_category": contract.PRICE_CATEGORIES,
    "season": contract.SEASONS,
    "negative_source": contract.NEGATIVE_SOURCES,
    "negative_detail": contract.NEGATIVE_DETAILS,
}
OF_GROUP = ("timestamp", "day_of_week", "month", "season", "sample_weight", "is_repurchase")
DAY = 86_400 * 10**9
NUMPY_TYPES = {"float32": np.float32, "int8": np.int8, "int16": np.int16, "int32": np.int32}


def word_list(name):
    return list(WORDS.get(name, ["Noir", "Weiß", ""]))


def sample_block(n_groups=6, first_group=0, seed=0):
    """A block of the full schema, group columns once a group, and its rows as a pyarrow table."""
    rng = np.random.default_rng([seed, first_group])
    schema = contract.make_arrow_schema("train_dataset")
    columns, rows = {}, {}
    for column in contract.get_columns("train_dataset"):
        name, type_ = column.name, column.type
        of_group = name.startswith("user_") or name in OF_GROUP
        repeats = WIDTH if of_group else 1
        n = n_groups if of_group else n_groups * WIDTH
        valid = rng.random(n) < 0.7 if column.nullable else None
        if name == "sample_id":
            columns[name] = SampleIds("train", first_group, n_groups, WIDTH)
            rows[name] = [
                f"train-{first_group + g:010d}-{s:02d}"
                for g in range(n_groups)
                for s in range(WIDTH)
            ]
            continue
        if type_ in ("string", "category"):
            words = word_list(name)
            codes = rng.integers(0, len(words), n).astype(np.int32)
            codes[~valid if valid is not None else slice(0, 0)] = -1
            columns[name] = Codes(codes, vocabulary(words, CPU), repeats)
            values = [None if c < 0 else words[c] for c in codes]
        elif type_ == "list[int]":
            history = rng.integers(1, N_ITEMS, 100).astype(np.int32)
            starts, lengths = rng.integers(0, 50, n), rng.integers(0, 50, n).astype(np.int32)
            columns[name] = Lists(history, starts, lengths, repeats)
            values = [history[s : s + k].tolist() for s, k in zip(starts, lengths, strict=True)]
        else:
            if type_ == "datetime64[ns]":
                array = (first_group + np.arange(n) // 2) * DAY
            elif type_ == "bool":
                array = rng.random(n) < 0.5
            else:
                array = rng.integers(0, 99, n).astype(NUMPY_TYPES[type_])
            columns[name] = Values(array, valid, repeats)
            values = [
                None if valid is not None and not valid[k] else array[k].item() for k in range(n)
            ]
        rows[name] = [value for value in values for _ in range(repeats)]
    table = pa.table([pa.array(rows[f.name], f.type) for f in schema], schema=schema)
    return Block(first_group * WIDTH, n_groups * WIDTH, columns), table


def write(path, blocks, schema=None, **changes):
    schema = schema or contract.make_arrow_schema("train_dataset")
    with PartWriter(
        path, schema, replace(contract.make_writer_settings("train_dataset"), **changes)
    ) as writer:
        for block in blocks:
            writer.write(block)
    return path


def write_column(path, type_, column, n_rows, nullable=True, **changes):
    write(
        path,
        [Block(0, n_rows, {"x": column})],
        pa.schema([pa.field("x", type_, nullable)]),
        **changes,
    )
    return pq.read_table(path)["x"].combine_chunks()


def decoded(table):
    """Categories as strings: two chunks of equal categories may differ in their dictionaries."""
    return {
        name: column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def test_pyarrow_reads_the_contracts_schema_and_the_values(tmp_path):
    blocks, tables = zip(*(sample_block(6, g) for g in (0, 6, 12)), strict=True)
    result = pq.read_table(write(tmp_path / "a.parquet", blocks))
    result.validate(full=True)
    assert result.schema.equals(contract.make_arrow_schema("train_dataset"), check_metadata=True)
    assert decoded(result) == decoded(pa.concat_tables(tables))


def test_polars_pandas_and_duckdb_read_strings_and_categories(tmp_path):
    block, table = sample_block(50)
    path = write(tmp_path / "a.parquet", [block], rows_per_row_group=80)
    expected = decoded(table)
    categories = [c.name for c in contract.get_columns("train_dataset") if c.type == "category"]
    strings = [c.name for c in contract.get_columns("train_dataset") if c.type == "string"]

    by_polars = pl.read_parquet(path)
    assert all(by_polars[name].dtype == pl.Categorical for name in categories)
    assert all(by_polars[name].dtype == pl.String for name in strings)
    assert by_polars["user_interaction_sequence"].dtype == pl.List(pl.Int32)
    assert by_polars.to_dict(as_series=False) == expected

    by_pandas = pd.read_parquet(path)
    assert all(isinstance(by_pandas[name].dtype, pd.CategoricalDtype) for name in categories)
    for name in [*categories, *strings]:
        assert (
            by_pandas[name].astype(object).where(by_pandas[name].notna(), None).tolist()
            == expected[name]
        ), name

    duckdb = pytest.importorskip("duckdb")
    for name in [
        *categories,
        *strings,
        "user_interaction_sequence",
        "similarity_score",
        "is_repurchase",
    ]:
        result = duckdb.sql(f"select {name} from '{path}'").fetchall()
        assert [value for (value,) in result] == expected[name], name


@pytest.mark.parametrize("name", ["user_age_group", "user_id"])
def test_a_column_without_any_value_reads_as_nulls_everywhere(tmp_path, name):
    schema = pa.schema(
        [contract.make_arrow_schema("train_dataset").field(name).with_nullable(True)]
    )
    block = Block(0, 6, {name: Codes(np.full(3, -1, np.int8), vocabulary([], CPU), 2)})
    path = write(tmp_path / "a.parquet", [block], schema)
    assert pq.read_table(path).schema == schema
    assert pq.read_table(path)[name].to_pylist() == [None] * 6
    assert pl.read_parquet(path)[name].to_list() == [None] * 6
    assert pd.read_parquet(path)[name].isna().all()
    assert (
        digest_file(path, CPU)[name]
        == digest_file(write(tmp_path / "b.parquet", [block], schema), CPU)[name]
    )


def test_a_file_is_what_its_blocks_digest_to(tmp_path):
    blocks = [sample_block(6, g)[0] for g in (0, 6)]
    digest = ContentDigest()
    for block in blocks:
        digest.add(block, CPU)
    assert (
        digest_file(write(tmp_path / "a.parquet", blocks, rows_per_row_group=8), CPU)
        == digest.hex()
    )
    wrong = write(tmp_path / "b.parquet", [blocks[0], sample_block(6, 6, seed=1)[0]])
    assert digest_file(wrong, CPU) != digest.hex()


@pytest.mark.parametrize(
    "limit, expected", [(1_000, [28]), (28, [28]), (13, [8, 8, 12]), (12, [8, 8, 12]), (1, [4] * 7)]
)
def test_row_groups_hold_whole_groups_and_at_most_the_limit(tmp_path, limit, expected):
    block, table = sample_block(7)
    result = pq.ParquetFile(write(tmp_path / "a.parquet", [block], rows_per_row_group=limit))
    assert [result.metadata.row_group(k).num_rows for k in range(result.num_row_groups)] == expected
    assert decoded(result.read()) == decoded(table)
    result.close()


def test_equal_blocks_give_equal_bytes_also_beside_another_writer(tmp_path):
    blocks = [sample_block(200, g)[0] for g in (0, 200)]
    alone = write(tmp_path / "alone.parquet", blocks).read_bytes()
    with ThreadPoolExecutor(2) as pool:
        pair = list(
            pool.map(lambda k: write(tmp_path / f"{k}.parquet", blocks).read_bytes(), range(2))
        )
    assert pair == [alone, alone]


def test_an_id_is_stored_once_a_row_group_however_long(tmp_path):
    ids = [
        f"{k:064d}" for k in range(20_000)
    ]  # together more than Arrow's usual limit of a dictionary, 1 MiB
    column = Codes(np.arange(20_000, dtype=np.int32).repeat(10), vocabulary(ids, CPU))
    write_column(tmp_path / "a.parquet", pa.string(), column, 200_000)
    chunk = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    assert chunk.has_dictionary_page
    assert chunk.total_uncompressed_size < 20_000 * 68 + 200_000 * 2.5


def test_a_row_group_carries_the_ids_that_occur_in_it_alone(tmp_path):
    write_column(
        tmp_path / "a.parquet",
        pa.string(),
        Codes(np.array([3, 9, 3]), vocabulary(ITEM_IDS, CPU)),
        3,
    )
    column = pq.ParquetFile(tmp_path / "a.parquet", read_dictionary=["x"]).read()["x"].chunk(0)
    assert column.dictionary.to_pylist() == [ITEM_IDS[3], ITEM_IDS[9]]


def test_a_category_has_the_same_dictionary_in_every_row_group(tmp_path):
    column = Codes(np.array([0, 0, 2, 2]), vocabulary(contract.SEASONS, CPU))
    type_ = contract.make_arrow_schema("train_dataset").field("season").type
    result = write_column(tmp_path / "a.parquet", type_, column, 4, rows_per_row_group=2)
    assert result.dictionary.to_pylist() == list(contract.SEASONS)


def test_filters_on_time_and_user_skip_row_groups(tmp_path):
    blocks = [sample_block(6, g)[0] for g in (0, 6, 12)]
    metadata = pq.read_metadata(write(tmp_path / "a.parquet", blocks))
    names = contract.make_arrow_schema("train_dataset").names
    times = [metadata.row_group(k).column(names.index("timestamp")) for k in range(3)]
    assert all(
        t.statistics.has_min_max and t.has_column_index and t.has_offset_index for t in times
    )
    assert times[0].statistics.max < times[1].statistics.min
    users = metadata.row_group(0).column(names.index("user_id")).statistics
    assert users.min in USER_IDS
    assert users.min <= users.max


def test_columns_that_no_filter_needs_have_no_statistics(tmp_path):
    metadata = pq.read_metadata(write(tmp_path / "a.parquet", [sample_block()[0]]))
    item = contract.make_arrow_schema("train_dataset").names.index("item_id")
    assert not metadata.row_group(0).column(item).is_stats_set


def test_a_part_without_rows_has_the_schema(tmp_path):
    result = pq.read_table(write(tmp_path / "a.parquet", []))
    assert result.num_rows == 0
    assert result.schema.equals(contract.make_arrow_schema("train_dataset"), check_metadata=True)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=20),
    st.integers(1, 5),
    st.sampled_from("iqhf"),
)
@settings(max_examples=40, deadline=None)
def test_lists_are_slices_repeated(tmp_path_factory, slices, repeats, kind):
    values = np.arange(40).astype(kind)
    starts = np.array([s for s, _ in slices], np.int64)
    lengths = np.array([k for _, k in slices], np.int32)
    type_ = pa.list_(pa.from_numpy_dtype(values.dtype))
    path = tmp_path_factory.mktemp("lists") / "a.parquet"
    result = write_column(
        path, type_, Lists(values, starts, lengths, repeats), len(slices) * repeats
    )
    assert result.to_pylist() == [
        values[s : s + k].tolist() for s, k in slices for _ in range(repeats)
    ]


def test_lists_of_times_read_as_times(tmp_path):
    field = contract.make_arrow_schema("user_sequences").field("timestamps")
    column = Lists(np.array([0, DAY, 2 * DAY]), np.array([1]), np.array([2], np.int32))
    result = write_column(tmp_path / "a.parquet", field.type, column, 1)
    assert result.type == field.type
    assert result.flatten().cast(pa.int64()).to_pylist() == [DAY, 2 * DAY]


@pytest.mark.parametrize("element", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_matrix_of_codes_reads_as_fixed_lists_of_words(tmp_path, element):
    codes = np.array([[0, 2], [-1, 1]], np.int32)
    column = Matrix(
        codes, np.array([[True, True], [True, False]]), vocabulary(["a", "b", "c"], CPU), 2
    )
    result = write_column(tmp_path / "a.parquet", pa.list_(element, 2), column, 4)
    assert result.type == pa.list_(element, 2)
    assert result.to_pylist() == [["a", "c"], ["a", "c"], [None, None], [None, None]]
    assert pl.read_parquet(tmp_path / "a.parquet")["x"].to_list() == result.to_pylist()


def test_a_matrix_of_numbers_keeps_its_nulls(tmp_path):
    column = Matrix(np.float32([[1, 2], [3, 4]]), np.array([[True, False], [True, True]]))
    assert write_column(
        tmp_path / "a.parquet", pa.list_(pa.float32(), 2), column, 2
    ).to_pylist() == [[1, None], [3, 4]]


@pytest.mark.parametrize("n_slots", [1, 100, 101])
def test_sample_ids_of_wide_groups_have_longer_slots(tmp_path, n_slots):
    column = SampleIds("test", 123, 2, n_slots)
    result = write_column(
        tmp_path / "a.parquet",
        pa.string(),
        column,
        2 * n_slots,
        encodings={"x": "DELTA_BYTE_ARRAY"},
    )
    assert result.to_pylist() == [
        f"test-{g:010d}-{s:02d}" for g in (123, 124) for s in range(n_slots)
    ]


@pytest.mark.parametrize("shape", ["n_tuple", "triplet"])
def test_other_shapes_have_settings_that_write(tmp_path, shape):
    schema = contract.make_arrow_schema("train_dataset", shape=shape, n_negatives=2)
    path = tmp_path / "a.parquet"
    with PartWriter(path, schema, contract.make_writer_settings("train_dataset", shape=shape)):
        pass
    assert pq.read_schema(path).equals(schema, check_metadata=True)


@pytest.mark.parametrize(
    "type_, column, problem",
    [
        (pa.int8(), Values(np.array([1, 300])), "int64 values for int8"),
        (pa.int8(), Values(np.array([1], np.int8)), "1 rows where the block has 2"),
        (
            pa.int8(),
            Values(np.zeros(2, np.int8), np.array([True, False])),
            "1 nulls where the schema allows none",
        ),
        (
            pa.string(),
            Codes(np.array([0, 2]), vocabulary(["a", "b"], CPU)),
            "codes 0..2 for a vocabulary of 2",
        ),
        (
            pa.string(),
            Codes(np.array([0, -2]), vocabulary(["a", "b"], CPU)),
            "codes -2..0 for a vocabulary of 2",
        ),
        (
            pa.list_(pa.int32()),
            Lists(np.zeros(3, np.int32), np.array([0, 2]), np.array([1, 2], np.int32)),
            "reach outside",
        ),
        (
            pa.list_(pa.int32()),
            Lists(np.zeros(3), np.array([0, 2]), np.array([1, 1], np.int32)),
            "lists of float64",
        ),
        (
            pa.list_(pa.int32()),
            Lists(np.zeros(3, np.int32), np.array([0, 2]), np.array([1, -1], np.int32)),
            "lists of a length below 0",
        ),
        (
            pa.list_(pa.field("element", pa.int8(), nullable=False), 1),
            Matrix(np.zeros((2, 1), np.int8), np.array([[True], [False]])),
            "null elements where the schema allows none",
        ),
        (
            pa.list_(pa.field("element", pa.string(), nullable=False), 1),
            Matrix(np.array([[0], [-1]]), None, vocabulary(["a"], CPU)),
            "null elements where the schema allows none",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_column_and_leaves_no_file(
    tmp_path, type_, column, problem
):
    with pytest.raises(ValueError, match=f"a.parquet: column 'x': .*{problem}"):
        write_column(tmp_path / "a.parquet", type_, column, 2, nullable=False)
    assert not (tmp_path / "a.parquet").exists()


def test_a_fault_in_a_later_row_group_is_found(tmp_path):
    schema = pa.schema([pa.field("x", pa.string(), nullable=False)])
    words = vocabulary(["a", "b"], CPU)
    for codes, problem in [
        ([0, 1, 1], "1 rows where the block has 2"),
        ([0, 1, 2, 0], "codes 0..2 for a vocabulary of 2"),
        ([0, 1, 0, -1], "1 nulls where the schema allows none"),
    ]:
        block = Block(0, 4, {"x": Codes(np.array(codes), words)})
        with pytest.raises(ValueError, match=f"a.parquet: column 'x': {problem}"):
            write(tmp_path / "a.parquet", [block], schema, rows_per_row_group=2)
        assert not (tmp_path / "a.parquet").exists()


def test_more_list_elements_than_offsets_of_32_bits_count_are_refused(tmp_path):
    n, length = 1 << 11, 1 << 20
    column = Lists(np.zeros(length, np.int8), np.zeros(n, int), np.full(n, length, np.int32))
    with pytest.raises(ValueError, match=r"column 'x': 2147483648 list elements in a row group"):
        write_column(tmp_path / "a.parquet", pa.list_(pa.int8()), column, n)
    assert not (tmp_path / "a.parquet").exists()


def test_columns_in_another_order_are_refused(tmp_path):
    block, _ = sample_block()
    swapped = replace(block, columns=dict(reversed(block.columns.items())))
    with pytest.raises(ValueError, match="block has columns"):
        write(tmp_path / "a.parquet", [swapped])


def test_a_part_whose_stage_fails_leaves_no_file(tmp_path):
    path = tmp_path / "a.parquet"

    def blocks():
        yield sample_block()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, blocks())
    assert not path.exists()
