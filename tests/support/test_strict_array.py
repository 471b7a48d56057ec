"""Device arrays refuse what CuPy refuses, and answer as NumPy does where they answer."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from gpu_dcgen.backend.runs import count_codes, offsets_from_lengths, repeat_index, run_starts
from gpu_dcgen.kernels import rng
from tests.support import cupy_surface
from tests.support.agreement import is_same
from tests.support.strict_backend import StrictBackend


@pytest.fixture
def strict():
    return StrictBackend()


A = np.array([3, 1, 2, 1], dtype=np.int32)
F = np.array([0.5, 2.0, 1.5, 4.0])

REFUSED = {
    "a NumPy array beside a device array": (TypeError, lambda xp, a: a + A),
    "a NumPy array before a device array": (TypeError, lambda xp, a: A + a),
    "a list beside a device array": (TypeError, lambda xp, a: a + [1, 2, 3, 4]),
    "a 0-d NumPy array": (TypeError, lambda xp, a: a + np.array(1)),
    "comparing with a NumPy array": (TypeError, lambda xp, a: a == A),
    "comparing with None": (TypeError, lambda xp, a: a == None),  # noqa: E711
    "adding a NumPy array in place": (TypeError, lambda xp, a: a.__iadd__(A)),
    "a NumPy array in a function": (TypeError, lambda xp, a: xp.cumsum(A)),
    "a list in a function": (TypeError, lambda xp, a: xp.sum([1, 2])),
    "a NumPy array as second argument": (TypeError, lambda xp, a: xp.maximum(a, A)),
    "a list of NumPy arrays": (TypeError, lambda xp, a: xp.concatenate([a, A])),
    "concatenating an array itself": (TypeError, lambda xp, a: xp.concatenate(a)),
    "array": (AttributeError, lambda xp, a: xp.array([1])),
    "asarray": (AttributeError, lambda xp, a: xp.asarray(A)),
    "numpy.asarray": (TypeError, lambda xp, a: np.asarray(a)),
    "numpy.array of a list of device arrays": (TypeError, lambda xp, a: np.array([a, a])),
    "a NumPy function": (TypeError, lambda xp, a: np.concatenate([a, a])),
    "a method of a NumPy ufunc": (TypeError, lambda xp, a: np.add.reduce(a)),
    "storing a device array in a NumPy array": (
        TypeError,
        lambda xp, a: A.copy().__setitem__(slice(None), a),
    ),
    "an index that is a list": (TypeError, lambda xp, a: a[[0, 1]]),
    "an index that is a NumPy array": (TypeError, lambda xp, a: a[A]),
    "an index that is a mask of NumPy": (TypeError, lambda xp, a: a[A > 1]),
    "an index that is True": (TypeError, lambda xp, a: a[True]),
    "assigning a NumPy array": (TypeError, lambda xp, a: a.__setitem__(slice(None), A)),
    "assigning a list": (TypeError, lambda xp, a: a.__setitem__(slice(0, 2), [1, 2])),
    "a negative index array": (IndexError, lambda xp, a: a[a - 2]),
    "assigning to a negative index array": (IndexError, lambda xp, a: a.__setitem__(a - 2, 0)),
    "taking by negative indices": (IndexError, lambda xp, a: a.take(a - 2)),
    "taking along an axis by negative indices": (
        IndexError,
        lambda xp, a: xp.take_along_axis(a, a - 2, 0),
    ),
    "an index beyond the end": (IndexError, lambda xp, a: a[a + 1]),
    "assigning beyond the end": (IndexError, lambda xp, a: a.__setitem__(a + 1, 0)),
    "two index arrays, one negative": (IndexError, lambda xp, a: xp.zeros((4, 4))[a, a - 2]),
    "a mask beside an index array": (IndexError, lambda xp, a: xp.zeros((4, 4))[a > 1, a]),
    "assigning twice to one place": (IndexError, lambda xp, a: a.__setitem__(a, a + 0)),
    "adding twice to one place": (IndexError, lambda xp, a: a.__setitem__(a, a[a] + 1)),
    "assigning twice to one row": (
        IndexError,
        lambda xp, a: xp.zeros((4, 2)).__setitem__(a, xp.ones((4, 2))),
    ),
    "assigning twice to one cell": (
        IndexError,
        lambda xp, a: xp.zeros((4, 4)).__setitem__((a, a), xp.ones(4)),
    ),
    "copying between overlapping parts": (
        TypeError,
        lambda xp, a: a.__setitem__(slice(1, None), a[:-1]),
    ),
    "scattering an array into itself": (
        TypeError,
        lambda xp, a: a.__setitem__(xp.argsort(a, kind="stable"), a),
    ),
    "a device number in a slice": (TypeError, lambda xp, a: a[: a[1]]),
    "a device number as a range": (TypeError, lambda xp, a: range(a[1])),
    "a device number as a shape": (TypeError, lambda xp, a: xp.zeros(a[1])),
    "a device number in a shape": (TypeError, lambda xp, a: xp.zeros((a[1], 2))),
    "a device number as a new shape": (TypeError, lambda xp, a: a.reshape(a[0], -1)),
    "a device number as a bound of arange": (TypeError, lambda xp, a: xp.arange(a[0])),
    "a device number as a fill value": (TypeError, lambda xp, a: xp.full(3, a[0])),
    "truth of many": (ValueError, lambda xp, a: bool(a)),
    "truth of none": (ValueError, lambda xp, a: bool(a[:0])),
    "iterating": (TypeError, lambda xp, a: list(a)),
    "unpacking": (TypeError, lambda xp, a: (lambda *values: values)(*a)),
    "membership": (TypeError, lambda xp, a: 3 in a),
    "hashing": (TypeError, lambda xp, a: hash(a)),
    "sort without a kind": (TypeError, lambda xp, a: xp.sort(a)),
    "argsort without a kind": (TypeError, lambda xp, a: xp.argsort(a)),
    "argsort as a method without a kind": (TypeError, lambda xp, a: a.argsort()),
    "argsort of another kind": (TypeError, lambda xp, a: xp.argsort(a, kind="quicksort")),
    "sorting in place": (AttributeError, lambda xp, a: a.sort()),
    "lexsort of a tuple": (TypeError, lambda xp, a: xp.lexsort((a, a))),
    "lexsort of one key": (TypeError, lambda xp, a: xp.lexsort(a)),
    "repeat by an array": (TypeError, lambda xp, a: xp.repeat(a, a)),
    "repeat by a list": (TypeError, lambda xp, a: a.repeat([1, 2, 3, 4])),
    "unique along an axis": (TypeError, lambda xp, a: xp.unique(a, axis=0)),
    "unique with sorted": (TypeError, lambda xp, a: xp.unique(a, sorted=False)),
    "searchsorted with a sorter": (TypeError, lambda xp, a: xp.searchsorted(a, a, sorter=a)),
    "searchsorted of a NumPy number": (TypeError, lambda xp, a: xp.searchsorted(a, np.int64(1))),
    "searchsorted of floats among integers": (
        TypeError,
        lambda xp, a: xp.searchsorted(a, xp.zeros(1)),
    ),
    "searchsorted of unsigned among signed": (
        TypeError,
        lambda xp, a: xp.searchsorted(a, a.astype(xp.uint64)),
    ),
    "isin of floats": (TypeError, lambda xp, a: xp.isin(a, xp.zeros(1))),
    "bincount of negative codes": (IndexError, lambda xp, a: xp.bincount(a - 2)),
    "bincount by NumPy weights": (TypeError, lambda xp, a: xp.bincount(a, F)),
    "where of a Python condition": (TypeError, lambda xp, a: xp.where(True, a, 0)),
    "where with a NumPy branch": (TypeError, lambda xp, a: xp.where(a > 1, A, 0)),
    "sum where": (TypeError, lambda xp, a: xp.sum(a, where=a > 1)),
    "max with an initial": (TypeError, lambda xp, a: a.max(initial=0)),
    "a ufunc where": (TypeError, lambda xp, a: xp.add(a, a, where=a > 1)),
    "a ufunc into a NumPy array": (TypeError, lambda xp, a: xp.add(a, a, out=A.copy())),
    "clip by keyword min": (TypeError, lambda xp, a: xp.clip(a, min=0)),
    "maximum.accumulate": (AttributeError, lambda xp, a: xp.maximum.accumulate(a)),
    "maximum.reduce": (AttributeError, lambda xp, a: xp.maximum.reduce(a)),
    "add.at on int64": (TypeError, lambda xp, a: xp.add.at(xp.zeros(4, dtype=xp.int64), a, 1)),
    "add.at on negative indices": (IndexError, lambda xp, a: xp.add.at(xp.zeros(4), a - 2, 1)),
    "multiply.at": (TypeError, lambda xp, a: xp.multiply.at(a, a, 1)),
    "floor division of floats": (TypeError, lambda xp, a: (a + 0.5) // 1),
    "remainder of floats": (TypeError, lambda xp, a: a % 1.5),
    "a power": (TypeError, lambda xp, a: a**2),
    "exp": (AttributeError, lambda xp, a: xp.exp(a)),
    "numpy.exp": (TypeError, lambda xp, a: np.exp(a)),
    "mean": (AttributeError, lambda xp, a: a.mean()),
    "a shift by all bits": (ValueError, lambda xp, a: a << 32),
    "a shift by less than none": (ValueError, lambda xp, a: a >> (a - 2)),
    "int64 with uint64 in bits": (TypeError, lambda xp, a: a ^ a.astype(xp.uint64)),
    "an array of objects": (TypeError, lambda xp, a: a.astype(object)),
    "an array of strings": (TypeError, lambda xp, a: a.astype(str)),
    "an array of times": (TypeError, lambda xp, a: xp.zeros(2, dtype="datetime64[ns]")),
    "an array of complex numbers": (TypeError, lambda xp, a: a.astype(complex)),
    "casting in astype": (TypeError, lambda xp, a: a.astype(xp.int64, casting="safe")),
    "a name that is not listed": (AttributeError, lambda xp, a: xp.fromiter),
    "a method that is not listed": (AttributeError, lambda xp, a: a.tolist()),
    "copies in order F": (TypeError, lambda xp, a: a.ravel(order="F")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_strict_refuses(name, strict):
    error, program = REFUSED[name]
    array = strict.from_host(A)
    with pytest.raises(error):
        program(strict.xp, array)
    assert is_same(array, A)


def _scattered(xp, a, f):
    out = xp.zeros(4, dtype=xp.float64)
    out[xp.argsort(a, kind="stable")] = f
    out[a] = 7.0  # twice in one place, but the same
    return out, a[a[2]], a[a - 1]


def _slices(xp, a, f):
    a[1:] += a[:-1]
    a[0] = 7
    a[a > 5] = 5
    a[::2] |= 8
    grid = xp.zeros((3, 4), dtype=xp.int32)
    grid[1], grid[:, 2], grid[2, 0] = a, 9, a[1]
    return (
        a,
        grid,
        grid[1:, 1:3],
        grid[xp.arange(2), xp.arange(2)],
        grid[:, xp.arange(2)],
        grid[None, ..., 0],
    )


def _sorting(xp, a, f):
    order = xp.argsort(a, kind="stable")
    keys = xp.stack([f, a.astype(xp.float64)])
    return (
        order,
        xp.sort(f, kind="stable"),
        xp.lexsort(keys),
        xp.unique(a),
        xp.unique(a, return_inverse=True, return_counts=True),
    )


def _searching(xp, a, f):
    ordered = xp.sort(a, kind="stable")
    return (
        xp.searchsorted(ordered, a, side="right"),
        xp.searchsorted(ordered, 2),
        xp.isin(a, ordered[:2]),
        xp.nonzero(a > 1),
        xp.flatnonzero(a == 1),
        xp.where(a > 1),
        xp.bincount(a, minlength=6),
        xp.bincount(a, weights=a),
    )


def _reductions(xp, a, f):
    grid = a.reshape(2, 2)
    results = [
        getattr(a, name)()
        for name in ("sum", "min", "max", "any", "all", "argmin", "argmax", "cumsum")
    ]
    return (
        results,
        grid.sum(axis=0),
        grid.max(axis=1, keepdims=True),
        xp.count_nonzero(a > 1),
        (a > 1).sum(),
        xp.cumsum(a > 1),
        f.max(),
    )


def _arithmetic(xp, a, f):
    wide = a.astype(xp.uint64) * np.uint64(2**63) + np.uint64(5)
    return (
        wide,
        wide >> 3,
        a / 2,
        -a // 2,
        a % 2,
        7 - a,
        2 / f,
        ~(a > 1),
        abs(-a),
        f * np.float32(0.1),
        a + np.int64(2**40),
        xp.rint(f),
        xp.sqrt(f),
    )


def _shapes(xp, a, f):
    return (
        xp.repeat(a, 2),
        xp.tile(a, 2),
        xp.broadcast_to(a, (2, 4)),
        xp.expand_dims(a, 1),
        xp.flip(a),
        xp.roll(a, 1),
        xp.diff(a, append=a[:1]),
        xp.take_along_axis(a, xp.argsort(a, kind="stable"), 0),
        xp.concatenate([a, a.astype(xp.int64)]),
        xp.clip(a, 1, 2),
        xp.zeros_like(f, dtype=bool),
        xp.full_like(a, 3),
        xp.arange(2, 11, 3, dtype=xp.int16),
        f.view(xp.uint64),
        a.T,
        a.copy(),
    )


def _segments(xp, a, f):
    ordered = xp.sort(a, kind="stable")
    return (
        run_starts(xp, ordered),
        count_codes(xp, ordered, 5),
        repeat_index(xp, a),
        offsets_from_lengths(xp, a),
    )


def _randoms(xp, a, f):
    return rng.fold_array(rng.purpose_key(7, rng.USER_SPLIT), a)


def _at(xp, a, f):
    total = xp.zeros(4, dtype=xp.int32)
    xp.add.at(total, a, a)
    xp.maximum.at(total, a, 3)
    return total


PROGRAMS = (
    _scattered,
    _slices,
    _sorting,
    _searching,
    _reductions,
    _arithmetic,
    _shapes,
    _segments,
    _randoms,
    _at,
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.strip("_"))
def test_strict_answers_as_numpy_does(program, strict):
    expected = program(np, A.copy(), F.copy())
    result = program(strict.xp, strict.from_host(A), strict.from_host(F))
    assert is_same(result, expected)


def test_results_that_differ_are_not_the_same(strict):
    @dataclasses.dataclass
    class Result:
        array: object

    assert is_same((A, {"x": Result(F)}), (strict.from_host(A), {"x": Result(F.copy())}))
    for other in (A.astype(np.int64), A + 1, A[:3], A.reshape(2, 2)):
        assert not is_same(A, other)
        assert not is_same(Result(A), Result(strict.from_host(other)))
    for left, right in (
        ((A,), (A, A)),
        ({"x": A}, {"y": A}),
        ({"x": A}, {"x": F}),
        (1, 1.0),
        (A, None),
        ({}, None),
    ):
        assert not is_same(left, right)


def test_a_sum_of_floats_depends_on_the_order(strict):
    tenths = np.full(1000, 0.1)
    shares = np.random.default_rng(1).random(1000)
    assert float(strict.from_host(tenths).cumsum()[-1]) != np.cumsum(tenths)[-1]
    assert float(strict.from_host(shares).sum()) == pytest.approx(shares.sum(), rel=1e-12)
    weighed = strict.xp.bincount(
        strict.from_host(np.zeros(1000, dtype=np.int32)), weights=strict.from_host(shares)
    )
    assert float(weighed[0]) != np.bincount(np.zeros(1000, dtype=np.int32), weights=shares)[0]


def test_one_element_is_a_view_as_in_cupy(strict):
    array = strict.from_host(A)
    first = array[0]
    array[0] = 9
    assert int(first) == 9


@pytest.mark.parametrize("dtype", ["int32", "float32", "bool"])
def test_empty_is_full_of_something_else(dtype, strict):
    assert bool((strict.xp.empty((3, 2), dtype=dtype) != 0).all())
    assert bool((strict.xp.empty_like(strict.from_host(A), dtype=dtype) != 0).all())


def test_waits_for_the_device_are_counted(strict):
    xp, array = strict.xp, strict.from_host(A)
    steps = {
        "arithmetic": (lambda: array + xp.cumsum(array)[xp.argsort(array, kind="stable")], 0),
        "int": (lambda: int(array.max()), 1),
        "float": (lambda: float(array[0]), 1),
        "bool": (lambda: bool((array > 1).any()), 1),
        "nonzero": (lambda: xp.nonzero(array > 1), 1),
        "where": (lambda: xp.where(array > 1), 1),
        "where of three": (lambda: xp.where(array > 1, array, 0), 0),
        "mask": (lambda: array[array > 1], 1),
        "bincount": (lambda: xp.bincount(array), 2),
        "to_host": (lambda: strict.to_host(array), 1),
        "synchronize": (strict.synchronize, 1),
        "single": (lambda: int(strict.single_threaded().xp.ones(1)[0]), 1),
    }
    for name, (step, expected) in steps.items():
        before = strict.n_syncs
        step()
        assert strict.n_syncs - before == expected, name


def test_crossing_copies(strict):
    host = A.copy()
    device = strict.from_host(host)
    strict.to_host(device)[0] = 100
    host[0] = 200
    assert int(device[0]) == A[0]
    assert is_same(strict.to_host(strict.from_host([1, 2])), np.array([1, 2]))
    for crossing, value in (
        (strict.to_host, A),
        (strict.from_host, device),
        (strict.from_host, ["a"]),
        (strict.from_host, [2**64]),
    ):
        with pytest.raises(TypeError):
            crossing(value)


def test_every_listed_name_is_in_cupy_with_these_parameters():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed (its import needs no GPU)")
    for name in cupy_surface.UFUNCS | cupy_surface.CONSTANTS:
        assert hasattr(cupy, name), name
    for name, marked in cupy_surface.FUNCTIONS.items():
        parameters = list(inspect.signature(getattr(cupy, name)).parameters)
        listed = [mark.rstrip("!*") for mark in marked.split()]
        assert set(listed) <= set(parameters), name
        assert listed[0] == parameters[0], name
    for name in cupy_surface.METHODS | {
        "astype",
        "view",
        "copy",
        "reshape",
        "fill",
        "item",
        "T",
        "nbytes",
    }:
        assert hasattr(cupy.ndarray, name), name
