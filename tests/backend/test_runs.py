"""Idioms of sorted runs against what NumPy and plain loops say."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_dcgen.backend import runs

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
    assert order.dtype == np.int64
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
    offsets = runs.run_offsets(backend.xp, array(backend, values, np.int32), n_codes)
    count = runs.count_codes(backend.xp, array(backend, values, np.int32), n_codes)
    assert backend.to_host(offsets).tolist() == [
        sum(v < code for v in values) for code in range(n_codes + 1)
    ]
    assert backend.to_host(count).tolist() == [values.count(code) for code in range(n_codes)]
    assert offsets.dtype == count.dtype == np.int64


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
    groups=st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=6), min_size=1, max_size=12)
)
def test_run_maxima_are_those_of_each_run(backend, groups):
    values = [value for group in groups for value in group]
    first = np.cumsum([0, *map(len, groups[:-1])])
    largest = runs.run_maxima(backend.xp, array(backend, values, np.float64), array(backend, first))
    assert backend.to_host(largest).tolist() == [max(group) for group in groups]


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
