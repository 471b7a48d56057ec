"""The strict backend runs kernels row by row, and its verbs take and give device arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.protocol import MatrixByItemAndUser
from gpu_dcgen.kernels import rng, row_kernel
from gpu_dcgen.preparation.interactions import build_interactions
from tests.support.agreement import is_same
from tests.support.shops import tiny_config
from tests.support.stage_shops import make_shop
from tests.support.strict_array import StrictArray
from tests.support.strict_backend import StrictBackend, StrictColumn

A = np.array([3, 1, 2, 1], dtype=np.int32)
F = np.array([0.5, 2.0, 1.5, 4.0])


@pytest.fixture
def strict():
    return StrictBackend()


@numba.njit(cache=True)
def element(values, place):
    return values[place]


@row_kernel
def mixes(row, keys, out):
    out[row] = rng.draw(rng.mix(keys[row]), np.uint64(row))


@row_kernel
def reads_beyond(row, values, out):
    out[row] = values[row + 1]


@row_kernel
def helper_reads_beyond(row, values, out):
    out[row] = element(values, row + 1)


@row_kernel
def sums_before(row, values, out):
    out[row] = values[row] + (out[row - 1] if row else 0)  # wrong: hangs on the order of rows


@row_kernel(scratch=True)
def reversed_row(row, lane, values, scratch, lanes, out):
    for i in range(values.shape[1]):
        scratch[lane, i] = values[row, i]
    for i in range(values.shape[1]):
        out[row, i] = scratch[lane, values.shape[1] - 1 - i]
    lanes[row] = lane


@row_kernel
def scales(row, factor, share, values, out):
    out[row] = values[row] * factor + (1 if share > 0.5 else 0)


class Scaling(NamedTuple):
    values: Any
    factor: int


class Scaled(NamedTuple):
    scaling: Scaling
    out: Any


@row_kernel
def scales_nested(row, scaled):
    scaled.out[row] = scaled.scaling.values[row] * scaled.scaling.factor


def test_a_kernel_of_unsigned_integers_gives_the_cpu_result(strict):
    keys = np.arange(5000, dtype=np.uint64) * np.uint64(2**62 + 12345)
    cpu = np.empty_like(keys)
    NumpyBackend(2).for_each(mixes, 5000, keys, cpu)
    out = strict.xp.empty(5000, dtype=strict.xp.uint64)
    strict.for_each(mixes, 5000, strict.from_host(keys), out)
    assert is_same(out.host, cpu)


@pytest.mark.parametrize(
    "kernel", [reads_beyond, helper_reads_beyond], ids=["in the kernel", "in a function it calls"]
)
def test_a_kernel_that_leaves_an_array_is_named(kernel, strict):
    values, out = strict.from_host(A), strict.xp.zeros(4, dtype=strict.xp.int32)
    strict.for_each(kernel, 3, values, out)
    assert is_same(out.host, np.array([1, 2, 1, 0], dtype=np.int32))
    with pytest.raises(IndexError, match=kernel.python.__name__):
        strict.for_each(kernel, 4, values, out)


def test_rows_run_in_another_order_each_time():
    values = np.arange(50)
    rows = []
    for seed in (0, 0, 1):
        strict = StrictBackend(seed=seed)
        out = strict.xp.zeros(50, dtype=strict.xp.int64)
        strict.for_each(sums_before, 50, strict.from_host(values), out)
        rows.append(out.host.copy())
    assert not is_same(rows[0], np.cumsum(values))
    assert is_same(rows[0], rows[1])
    assert not is_same(rows[0], rows[2])


@pytest.mark.parametrize("single", [False, True])
def test_every_lane_is_used_in_turn(single, strict):
    backend = strict.single_threaded() if single else strict
    xp, values = backend.xp, np.arange(28, dtype=np.int64).reshape(7, 4)
    scratch, lanes, out = (
        xp.empty(shape, dtype=xp.int64) for shape in ((backend.count_lanes(32, 9), 4), 7, (7, 4))
    )
    backend.for_each(
        reversed_row,
        7,
        backend.from_host(values),
        scratch,
        lanes,
        out,
        lanes=backend.count_lanes(32, 9),
    )
    assert is_same(out.host, values[:, ::-1].copy())
    assert sorted(np.bincount(lanes.host).tolist()) == ([7] if single else [2, 2, 3])


def test_kernels_take_device_arrays_and_host_numbers(strict):
    values, out = strict.from_host(A), strict.xp.empty(4, dtype=strict.xp.int64)
    strict.for_each(scales, 4, 2, np.float64(0.75), values, out)
    assert is_same(out.host, A.astype(np.int64) * 2 + 1)
    for wrong in (A, [1], None, values[0], "x", (values, values)):
        with pytest.raises(TypeError, match="argument 0"):
            strict.for_each(scales, 4, wrong, 0.5, values, out)
    with pytest.raises(TypeError):
        strict.for_each(scales, values[0], 2, 0.5, values, out)


def test_kernels_take_named_tuples_of_arrays(strict):
    values, out = strict.from_host(A), strict.xp.empty(4, dtype=strict.xp.int64)
    strict.for_each(scales_nested, 4, Scaled(Scaling(values, 3), out))
    assert is_same(out.host, A.astype(np.int64) * 3)
    host = np.empty(4, np.int64)
    NumpyBackend(1).for_each(scales_nested, 4, Scaled(Scaling(A, 3), host))
    assert is_same(host, out.host)
    with pytest.raises(TypeError, match="argument 0"):
        strict.for_each(scales_nested, 4, Scaled(Scaling(A, 3), out))


class RecordingHost:
    """Stands for the NumPy backend: answers with what it was given."""

    def __init__(self):
        self.seen = []

    def find_similar_items(self, first, last, matrix, **limits):
        self.seen = [first, last, matrix, limits]
        return A.copy(), F.copy()

    def encode(self, column):
        return A.copy(), pa.array(column)

    def parse_numbers(self, column):
        return F.copy(), A > 1

    parse_times = parse_numbers

    def read_columns(self, files, names):
        return {name: ["a", "b"] for name in names}

    def open_part_writer(self, path, schema, settings):
        return self

    def __enter__(self):
        self.seen.append("opened")

    def __exit__(self, *error):
        self.seen.append("closed")

    def write(self, block):
        self.seen.append(block)


@pytest.fixture
def recorded(strict):
    strict._host = RecordingHost()
    return strict


def test_tables_become_device_arrays(recorded):
    columns = recorded.read_columns([], ["x"])
    assert isinstance(columns["x"], StrictColumn)
    codes, values = recorded.encode(columns["x"])
    assert isinstance(codes, StrictArray)
    assert values.to_pylist() == ["a", "b"]
    for verb in (recorded.parse_numbers, recorded.parse_times):
        assert all(isinstance(array, StrictArray) for array in verb(columns["x"]))
        with pytest.raises(TypeError, match="read_columns"):
            verb(["a", "b"])


def test_similarity_gets_host_arrays_and_gives_device_arrays(recorded):
    a = recorded.from_host(A)
    limits = {"min_common_users": 2, "top_k": 3}
    arrays = recorded.find_similar_items(0, 4, MatrixByItemAndUser(*[a] * 6, True), **limits)
    assert all(isinstance(array, StrictArray) for array in arrays)
    first, last, matrix, seen_limits = recorded._host.seen
    assert (first, last, seen_limits, matrix.packed) == (0, 4, limits, True)
    columns = [getattr(matrix, field.name) for field in dataclasses.fields(matrix)][:-1]
    assert len(columns) == 6 and all(type(array) is np.ndarray for array in columns)
    with pytest.raises(TypeError, match="from_host"):
        recorded.find_similar_items(0, 4, MatrixByItemAndUser(*[A] * 6, True), **limits)


@dataclasses.dataclass(frozen=True)
class SomeBlock:
    columns: dict
    n_rows: int = 4


def test_a_part_writer_takes_blocks_of_device_arrays(recorded):
    with recorded.open_part_writer("path", None, None) as writer:
        writer.write(SomeBlock({"x": recorded.from_host(A)}))
        with pytest.raises(TypeError, match="from_host"):
            writer.write(SomeBlock({"x": A}))
    opened, block, closed = recorded._host.seen
    assert (opened, closed) == ("opened", "closed")
    assert is_same(block.columns["x"], A)
    assert type(block.columns["x"]) is np.ndarray


def test_sparse_matrices_hold_floats(strict):
    a = strict.from_host(np.array([0, 1, 1], dtype=np.int32))
    offsets = strict.from_host(np.array([0, 2, 3]))
    assert (
        strict.sparse.csr_matrix((a.astype(strict.xp.float64), a, offsets), shape=(2, 2))
        .toarray()
        .sum()
        == 2
    )
    with pytest.raises(TypeError, match="int32"):
        strict.sparse.csr_matrix((a, a, offsets), shape=(2, 2))


def test_products_of_matrices_are_of_floats_on_the_device(strict):
    a = strict.from_host(np.array([[1.0, 2.0], [3.0, 4.0]]))
    sparse = strict.sparse.csr_matrix(
        (a[0], *(strict.from_host(np.array(x, dtype=np.int32)) for x in ([0, 1], [0, 1, 2]))),
        (2, 2),
    )
    assert strict.to_host(a @ a).tolist() == [[7, 10], [15, 22]]
    assert strict.to_host(sparse @ a).tolist() == [[1, 2], [6, 8]]
    assert strict.to_host(sparse.T @ a).tolist() == [[1, 2], [6, 8]]
    for product in (
        lambda: a @ a[0],
        lambda: a.astype(np.int64) @ a,
        lambda: sparse @ np.ones((2, 2)),
        lambda: a @ np.ones((2, 2)),
        lambda: sparse.T @ sparse,  # all zeros at some sizes (cupy#10033)
    ):
        with pytest.raises(TypeError):
            product()
    values, vectors = strict.xp.linalg.eigh(strict.from_host(np.array([[2.0, 0.0], [0.0, 1.0]])))
    assert strict.to_host(values).tolist() == [1, 2]
    assert (strict.to_host(vectors) ** 2).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(TypeError):
        strict.xp.linalg.eigh(np.eye(2))


def _random_lines(seed):
    chance = np.random.default_rng(seed)
    for _ in range(300):
        yield (
            int(chance.integers(12)),
            int(chance.integers(9)),
            float(chance.integers(40)) + (0.5 if chance.random() < 0.2 else 0),
            float(chance.choice([0.5, 1.0, 2.5])),
            int(chance.integers(-1, 3)),
        )


@pytest.mark.parametrize("seed", range(4))
def test_interactions_are_the_same_on_both_backends(seed):
    lines = list(_random_lines(seed))
    views = [(user, item, day) for user, item, day, *_ in lines[:40]]
    columns = {
        "product_group": [("Shoes", "Socks", None)[i % 3] for i in range(9)],
        "club_status": ["ACTIVE", None] * 6,
    }
    config = tiny_config(filtering={"min_user_interactions": 20, "min_item_interactions": 10})
    results = [
        build_interactions(
            make_shop(backend, lines, n_users=12, n_items=9, columns=columns, views=views),
            config,
            backend,
        )
        for backend in (NumpyBackend(), StrictBackend(seed=seed))
    ]
    assert 0 < results[0].n_rows < 300
    assert results[0].dropped["cold_user"] > 0
    assert isinstance(results[1].user, StrictArray)
    assert is_same(*results)
