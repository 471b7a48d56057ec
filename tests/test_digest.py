"""The content digest: the same for equal content however cut, ordered, merged or stored; another
for anything else.
"""

import random
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values
from gpu_dcgen.digest import ContentDigest, digest_file, hash_strings, vocabulary
from gpu_dcgen.errors import InputError
from tests.support.strict_backend import StrictBackend

BACKENDS = [NumpyBackend(1), NumpyBackend(2), StrictBackend()]
MASK = (1 << 64) - 1
NULL = 0x6E756C6C
POSITION, LENGTH = 0x706F736974696F6E, 0x6C656E677468
CPU = BACKENDS[0]


@pytest.fixture(params=BACKENDS, ids=["cpu", "cpu two threads", "strict"])
def backend(request):
    return request.param


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def value_hash(value):
    """Hash of a Python value: bool and int, np.float32 and np.float64, str, list, None."""
    match value:
        case None:
            return NULL
        case str():
            h = 0xCBF29CE484222325
            for byte in value.encode():
                h = ((h ^ byte) * 0x100000001B3) & MASK
            return mix(h)
        case list():
            h = mix(len(value) ^ LENGTH)
            for element in value:
                h = mix(h ^ value_hash(element))
            return h
        case np.float32():
            return mix(struct.unpack("<I", struct.pack("<f", value))[0])
        case float():  # np.float64 is one
            return mix(struct.unpack("<Q", struct.pack("<d", value))[0])
    return mix(int(value) & MASK)


def column_digest(values, first_row=0):
    rows = enumerate(values, first_row)
    total = sum(mix(mix(row ^ POSITION) ^ value_hash(value)) for row, value in rows)
    return f"{total & MASK:016x}"


def digest_of(blocks, backend=CPU):
    digest = ContentDigest()
    for block in blocks:
        digest.add(block, backend)
    return digest.hex()


def one_column(column, n_rows, first_row=0):
    return Block(first_row, n_rows, {"x": column})


def little_block(backend, n_groups=3, first_group=5):
    """A block of two rows a group with every kind of column, and its columns as Python values."""
    put = backend.from_host
    rng = np.random.default_rng(first_group)
    words = ["", "Ärmel", "Hose", "x" * 70]
    n = 2 * n_groups
    group = rng.integers(-(2**31), 2**31, n_groups)
    valid = np.arange(n) % 3 > 0
    price = rng.random(n).astype(np.float32)
    codes = rng.integers(-1, len(words), n).astype(np.int32)
    long = rng.integers(-5, 5, 40).astype(np.int32)
    starts, lengths = rng.integers(0, 30, n_groups), rng.integers(0, 10, n_groups).astype(np.int32)
    cells = rng.integers(-1, len(words), (n, 3)).astype(np.int32)
    columns = {
        "time": Values(put(group), repeats=2),
        "flag": Values(put(group > 0), repeats=2),
        "price": Values(put(price), put(valid)),
        "wide": Values(put(price.astype(np.float64))),
        "word": Codes(put(codes), vocabulary(words, backend)),
        "nothing": Codes(put(np.full(n, -1, np.int8)), vocabulary([], backend)),
        "history": Lists(put(long), put(starts), put(lengths), 2),
        "words": Matrix(put(cells), vocabulary=vocabulary(words, backend)),
        "numbers": Matrix(put(cells.astype(np.float32)), put(cells >= 0)),
        "sample_id": SampleIds("train", first_group, n_groups, 2),
    }
    word = [None if c < 0 else words[c] for c in codes]
    values = {
        "time": np.repeat(group, 2).tolist(),
        "flag": np.repeat(group > 0, 2).tolist(),
        "price": [p if v else None for p, v in zip(price, valid, strict=True)],
        "wide": list(price.astype(np.float64)),
        "word": word,
        "nothing": [None] * n,
        "history": [
            long[s : s + k].tolist() for s, k in zip(starts, lengths, strict=True) for _ in range(2)
        ],
        "words": [[None if c < 0 else words[c] for c in row] for row in cells],
        "numbers": [[None if c < 0 else np.float32(c) for c in row] for row in cells],
        "sample_id": [
            f"train-{first_group + g:010d}-{s:02d}" for g in range(n_groups) for s in range(2)
        ],
    }
    return Block(2 * first_group, n, columns), values


def test_fnv_matches_its_published_vectors():
    published = {"": 0xCBF29CE484222325, "a": 0xAF63DC4C8601EC8C, "foobar": 0x85944171F73967E8}
    assert hash_strings(pa.array(list(published))).tolist() == [mix(h) for h in published.values()]


@pytest.mark.parametrize("n_groups", [1, 2, 3, 4, 5, 6, 300])
def test_every_kind_of_column_has_the_digest_of_the_formula(n_groups, backend):
    """Also where lists are hashed four at a time, and spans of rows end within a group."""
    block, values = little_block(backend, n_groups)
    assert digest_of([block], backend) == {
        name: column_digest(column, 10) for name, column in sorted(values.items())
    }


@given(
    st.lists(st.one_of(st.none(), st.text(max_size=9))),
    st.integers(0, 3),
    st.sampled_from([pa.string(), pa.large_string()]),
)
@settings(max_examples=60, deadline=None)
def test_strings_hash_alike_sliced_or_large(strings, start, type_):
    array = pa.array(strings, type_)[start:]
    assert hash_strings(array).tolist() == [value_hash(s) for s in strings[start:]]


@pytest.mark.parametrize("rows_per_group", [1, 16, 100, 321])
def test_sample_ids_hash_as_the_texts_they_are(rows_per_group, backend):
    block = one_column(SampleIds("val", 9_999_999_998, 2, rows_per_group), 2 * rows_per_group)
    texts = [
        f"val-{g:010d}-{s:02d}"
        for g in (9_999_999_998, 9_999_999_999)
        for s in range(rows_per_group)
    ]
    assert digest_of([block], backend) == {"x": column_digest(texts)}


def test_blocks_add_up_in_any_order_and_any_cut():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, 3000)
    whole = digest_of([one_column(Values(values), 3000)])
    for _ in range(5):
        cuts = [0, *sorted(rng.choice(np.arange(1, 3000), 6, replace=False).tolist()), 3000]
        blocks = [
            one_column(Values(values[a:b]), b - a, a)
            for a, b in zip(cuts[:-1], cuts[1:], strict=True)
        ]
        random.Random(int(values[0])).shuffle(blocks)
        assert digest_of(blocks) == whole


def test_parts_merge_to_the_digest_of_the_file_even_from_text():
    blocks = [little_block(CPU, 3, g)[0] for g in (0, 3, 6)]
    merged = ContentDigest()
    for block in reversed(blocks):
        part = ContentDigest()
        part.add(block, CPU)
        merged.merge(part)
    assert merged.hex() == digest_of(blocks)


def test_a_changed_value_changes_its_column_alone():
    block, _ = little_block(CPU)
    changed = block.columns["price"].values.copy()
    changed[1] = np.nextafter(changed[1], np.float32(2))
    other = replace(
        block, columns={**block.columns, "price": replace(block.columns["price"], values=changed)}
    )
    before, after = digest_of([block]), digest_of([other])
    assert {name for name in before if before[name] != after[name]} == {"price"}


@pytest.mark.parametrize(
    "one, other",
    [
        ([1, 2], [2, 1]),
        ([0, 0], [0, 0, 0]),
        ([1, -1], [-1, 1]),
        (np.float32([0.0]), np.float32([-0.0])),
    ],
)
def test_order_length_and_sign_count(one, other):
    columns = [Values(np.asarray(values)) for values in (one, other)]
    assert digest_of([one_column(columns[0], len(one))]) != digest_of(
        [one_column(columns[1], len(other))]
    )


def test_a_list_ends_where_it_ends():
    values = np.array([1, 2, 3], np.int32)
    cuts = [([0, 1], [1, 2]), ([0, 2], [2, 1]), ([0, 0], [0, 3])]
    digests = {
        digest_of([one_column(Lists(values, np.array(s), np.array(k, np.int32)), 2)])["x"]
        for s, k in cuts
    }
    assert len(digests) == 3


def test_what_stands_under_a_null_does_not_count():
    valid = np.array([True, False])
    digests = {
        digest_of([one_column(Values(np.array([3, under]), valid), 2)])["x"] for under in (4, 9)
    }
    assert len(digests) == 1


def test_generation_timestamp_is_left_out():
    block = Block(0, 1, {"generation_timestamp": Values(np.array([1])), "x": Values(np.array([1]))})
    assert list(digest_of([block])) == ["x"]


def test_a_block_with_a_short_column_is_refused():
    with pytest.raises(ValueError, match="column 'x' has 2 rows in a block of 3"):
        digest_of([one_column(Values(np.array([1, 2])), 3)])


TABLE = {
    "text": pa.array(["a", None, "b", "b"]),
    "count": pa.array([1, None, -3, 4], pa.int16()),
    "flag": pa.array([True, None, False, True]),
    "price": pa.array([0.5, None, -0.0, 1.0], pa.float32()),
    "time": pa.array([0, None, -5, 7], pa.timestamp("ns")),
    "list": pa.array([[1, 2], [], [3], [-4]], pa.list_(pa.int32())),
    "pair": pa.array([["a", None], ["b", "b"], ["", "c"], [None, None]], pa.list_(pa.string(), 2)),
    "generation_timestamp": pa.array([1, 2, 3, 4], pa.timestamp("ns")),
}


def table_digest(table):
    def plain(name):
        column = table[name].cast(pa.int64()) if name == "time" else table[name]
        return [np.float32(v) if isinstance(v, float) else v for v in column.to_pylist()]

    return {
        name: column_digest(plain(name))
        for name in sorted(table.column_names)
        if name != "generation_timestamp"
    }


def test_a_file_has_the_digest_of_its_values_in_any_storage(tmp_path, backend):
    table = pa.table(TABLE)
    expected = table_digest(table)
    pq.write_table(table, tmp_path / "plain.parquet", use_dictionary=False)
    pq.write_table(
        table.set_column(0, "text", table["text"].dictionary_encode()),
        tmp_path / "codes.parquet",
        row_group_size=3,
    )
    assert digest_file(tmp_path / "plain.parquet", backend) == expected
    assert digest_file(tmp_path / "codes.parquet", backend) == expected


def test_a_folder_of_parts_has_the_digest_of_one_file(tmp_path):
    table = pa.table(TABLE)
    for number, (start, stop) in enumerate([(0, 1), (1, 3), (3, 4)]):
        pq.write_table(table.slice(start, stop - start), tmp_path / f"part-{number:05d}.parquet")
    assert digest_file(tmp_path, CPU) == table_digest(table)
    (tmp_path / "part-00001.parquet").rename(tmp_path / "part-00003.parquet")
    assert digest_file(tmp_path, CPU) != table_digest(table)


def test_a_file_without_rows_has_a_digest_for_each_column(tmp_path):
    schema = pa.schema([("x", pa.int32()), ("generation_timestamp", pa.timestamp("ns"))])
    with pq.ParquetWriter(tmp_path / "empty.parquet", schema):
        pass
    assert digest_file(tmp_path / "empty.parquet", CPU) == {"x": "0" * 16}


def test_a_folder_without_parquet_and_a_strange_type_are_named(tmp_path):
    with pytest.raises(InputError, match="has no Parquet files"):
        digest_file(tmp_path, CPU)
    pq.write_table(pa.table({"when": pa.array([1], pa.time64("us"))}), tmp_path / "odd.parquet")
    with pytest.raises(InputError, match=r"odd.parquet: column 'when' has type time64\[us\]"):
        digest_file(tmp_path, CPU)


def test_a_permutation_of_the_row_numbers_and_its_inverse_differ():
    assert column_digest([1, 2, 0]) != column_digest([2, 0, 1])


def test_a_list_that_begins_with_its_length_is_not_a_shorter_one():
    assert value_hash([1]) != value_hash([])
    assert value_hash([2, 0]) != value_hash([0])
