"""Idioms of sorted runs against what NumPy and plain loops say."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_dcgen.backend import runs
from gpu_dcgen.kernels.gather import find_run_maxima, mark_later

EASY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIZES = st.sampled_from([1, 2, 9, 2**20, 2**31 - 1, 2**40, 2**62])


def codes(most: int, **limits: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, most), max_size=40, **limits)


def array(backend: Any, values: list, dtype: type = np.int64) -> Any:
    return backend.from_host(np.array(values, dtype))


@st.composite
def keys(draw) -> list[tuple[list[int], int]]:
    """Columns of equal length and their sizes: from few values with many ties to more bits than one
    int64 holds.
    """
    n, sizes = draw(st.integers(0, 40)), draw(st.lists(SIZES, min_size=1, max_size=4))
    few = draw(st.booleans())
    most = [min(size - 1, 2) if few else size - 1 for size in sizes]
    return [
        (draw(st.lists(st.integers(0, m), min_size=n, max_size=n)), size)
        for m, size in zip(most, sizes, strict=True)
    ]


@EASY
@given(keys=keys())
def test_sort_order_is_that_of_tuples_and_stable(backend, keys):
    order = runs.sort_order(backend, [(array(backend, values), size) for values, size in keys])
    rows = list(zip(*(values for values, _ in keys), strict=True))
    assert order.dtype == np.int32  # of fewer than 2^31 rows
    assert backend.to_host(order).tolist() == sorted(range(len(rows)), key=rows.__getitem__)


@EASY
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_run_starts_are_where_any_key_changes(backend, pairs):
    pairs.sort()
    starts = runs.run_starts(
        backend.xp, *(array(backend, column, np.int32) for column in zip(*pairs, strict=True))
    )
    assert backend.to_host(starts).tolist() == [
        r == 0 or pairs[r] != pairs[r - 1] for r in range(len(pairs))
    ]


@EASY
@given(values=codes(5), n_codes=st.integers(6, 9))
def test_offsets_and_counts_are_those_of_the_codes(backend, values, n_codes):
    values.sort()
    count = runs.count_codes(backend.xp, array(backend, values, np.int32), n_codes)
    offsets = runs.offsets_from_lengths(backend.xp, count)
    assert backend.to_host(offsets).tolist() == [
        sum(v < code for v in values) for code in range(n_codes + 1)
    ]
    assert backend.to_host(count).tolist() == [values.count(code) for code in range(n_codes)]
    assert offsets.dtype == count.dtype == np.int64


@EASY
@given(columns=st.lists(codes(5), max_size=4), n_codes=st.sampled_from([6, 500]))
def test_columns_counted_together_are_counted_alone(backend, columns, n_codes):
    dtypes = (np.int8, np.int32, np.int64)  # of which one does not hold the codes of all columns
    by_name = {
        str(k): (array(backend, values, dtypes[k % 3]), n_codes) for k, values in enumerate(columns)
    }
    table = array(backend, [[9, 0, 1], [9, 1, 1]], np.int8)[:, 1:]
    counts = runs.count_each(backend.xp, {"table": (table, 2)} | by_name)
    assert backend.to_host(counts.pop("table")).tolist() == [1, 3]
    assert list(counts) == list(by_name)
    for name, values in zip(by_name, columns, strict=True):
        assert counts[name].dtype == np.int64
        assert backend.to_host(counts[name]).tolist() == [
            values.count(code) for code in range(n_codes)
        ]


def test_vectors_come_to_the_host_by_name(backend):
    vectors = {"a": array(backend, [1, 2]), "b": array(backend, []), "c": array(backend, [3])}
    on_host = runs.bring_to_host(backend, vectors)
    assert {name: vector.tolist() for name, vector in on_host.items()} == {
        "a": [1, 2],
        "b": [],
        "c": [3],
    }


@EASY
@given(lengths=codes(4, min_size=1))
def test_runs_laid_end_to_end(backend, lengths):
    xp = backend.xp
    assert backend.to_host(runs.offsets_from_lengths(xp, array(backend, lengths))).tolist() == [
        0,
        *np.cumsum(lengths),
    ]
    index = runs.repeat_index(xp, array(backend, lengths))
    assert backend.to_host(index).tolist() == np.repeat(np.arange(len(lengths)), lengths).tolist()


def test_no_runs_hold_no_elements(backend):
    none = array(backend, [])
    assert backend.to_host(runs.offsets_from_lengths(backend.xp, none)).tolist() == [0]
    assert backend.to_host(runs.repeat_index(backend.xp, none)).tolist() == []


@EASY
@given(
    groups=st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=6), min_size=1, max_size=12),
    seed=st.integers(0, 9),
)
def test_maxima_of_runs_and_what_comes_after_their_first(backend, groups, seed):
    """Runs lie in an order of their own: place p of the runs has row order[p]."""
    n = sum(map(len, groups))
    order = np.random.default_rng(seed).permutation(n)
    values = np.empty(n, np.int64)
    values[order] = [value for group in groups for value in group]
    first = array(backend, np.cumsum([0, *map(len, groups[:-1])]), np.int32)
    xp, arrays = backend.xp, (array(backend, values), array(backend, order, np.int32), first)
    maxima, is_later = xp.empty(len(groups), dtype=xp.int64), xp.zeros(n, dtype=bool)
    backend.for_each(find_run_maxima, len(groups), *arrays, maxima)
    backend.for_each(mark_later, len(groups), *arrays, is_later)
    assert backend.to_host(maxima).tolist() == [max(group) for group in groups]
    later = [value > group[0] for group in groups for value in group]
    assert backend.to_host(is_later)[order].tolist() == later


@EASY
@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=40))
def test_runs_of_an_order_start_where_any_key_changes(backend, pairs):
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    columns = [[pair[side] for pair in pairs] for side in (0, 1)]
    starts = runs.find_run_starts(
        backend, array(backend, order), *(array(backend, column, np.int32) for column in columns)
    )
    expected = [
        place == 0 or pairs[order[place]] != pairs[order[place - 1]] for place in range(len(order))
    ]
    assert backend.to_host(starts).tolist() == expected


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_array_code_in_chunks_is_that_of_all_rows(backend, chunk, monkeypatch):
    monkeypatch.setattr(runs, "CHUNK_ROWS", chunk)
    values = np.random.default_rng(chunk).integers(0, 5, 50)
    rows = [row for part in runs.chunks(50) for row in range(part.start, part.stop)]
    assert rows == list(range(50)) and not list(runs.chunks(0))
    codes = array(backend, values, np.int32)
    counted = runs.count_codes(backend.xp, codes, 7)
    assert backend.to_host(counted).tolist() == [values.tolist().count(code) for code in range(7)]
    positions = runs.find_positions(backend.xp, codes > 2)
    assert backend.to_host(positions).tolist() == np.flatnonzero(values > 2).tolist()
    runs.map_in_place(array(backend, [7, 6, 5, 4, 3], np.int32), codes)
    assert backend.to_host(codes).tolist() == (7 - values).tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.float64])
@pytest.mark.parametrize("positions", [np.int32, np.int64])
def test_values_are_gathered_with_their_dtype(backend, dtype, positions):
    values, index = array(backend, [3, 1, 2], dtype), array(backend, [2, 2, 0], positions)
    gathered = runs.gather(backend, values, index)
    assert gathered.dtype == dtype and backend.to_host(gathered).tolist() == [2, 2, 3]


def test_positions_are_narrow_as_long_as_they_fit(backend, monkeypatch):
    mask = array(backend, [0, 1, 1], bool)
    assert runs.find_positions(backend.xp, mask).dtype == np.int32
    monkeypatch.setattr(runs, "MAX_NARROW", 3)
    assert runs.find_positions(backend.xp, mask).dtype == np.int64


@EASY
@given(values=st.lists(st.integers(0, 9), max_size=40), bounds=st.lists(st.integers(-1, 11)))
def test_search_ordered_finds_the_first_that_is_not_lower(backend, values, bounds):
    order = sorted(range(len(values)), key=values.__getitem__)
    places = runs.search_ordered(
        backend.xp, array(backend, values), array(backend, order), array(backend, bounds)
    )
    ordered = [values[i] for i in order]
    assert places.dtype == np.int64
    assert backend.to_host(places).tolist() == [bisect.bisect_left(ordered, b) for b in bounds]
