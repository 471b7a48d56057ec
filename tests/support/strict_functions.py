"""The functions of the module `cupy` as far as stages may use them, for `StrictArray`."""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np

from tests.support.cupy_surface import CONSTANTS, FUNCTIONS, METHODS, REMEDIES, SYNCS, UFUNCS
from tests.support.strict_array import (
    StrictArray,
    StrictUfunc,
    Syncs,
    is_integer,
    no_arrays,
    not_negative,
    operand,
)


class StrictNamespace:
    """The module `cupy` as far as stages may use it."""

    ndarray = StrictArray

    def __init__(self, syncs: Syncs) -> None:
        self._syncs = syncs

    def __getattr__(self, name: str) -> Any:
        if name in CONSTANTS:
            return getattr(np, name)
        if name in UFUNCS:
            return StrictUfunc(getattr(np, name), self._syncs)
        if name in FUNCTIONS:
            return functools.partial(call, name, self._syncs)
        if name == "linalg":
            return StrictLinalg(self._syncs)
        remedy = REMEDIES.get(
            name,
            "find out that CuPy answers as NumPy does, then list it in "
            "tests/support/cupy_surface.py",
        )
        raise AttributeError(f"xp.{name} is not on the list of what stages may use: {remedy}")


class StrictLinalg:
    """The module `cupy.linalg`: its `eigh`, whose vectors may point the other way."""

    def __init__(self, syncs: Syncs) -> None:
        self._syncs = syncs

    def eigh(self, a: StrictArray) -> tuple[StrictArray, StrictArray]:
        values, vectors = np.linalg.eigh(operand("xp.linalg.eigh", a))
        self._syncs.count += 1
        return StrictArray(values, self._syncs), StrictArray(-vectors, self._syncs)


def call(name: str, syncs: Syncs, *arguments: Any, **options: Any) -> Any:
    """Call the function of FUNCTIONS with NumPy, once all arguments are what CuPy takes."""
    marked = FUNCTIONS[name].split()
    names = [mark.rstrip("!*") for mark in marked]
    unknown = [option for option in options if option not in names]
    if len(arguments) > len(names) or unknown:
        raise TypeError(
            f"xp.{name}: CuPy takes ({', '.join(names)}); found {len(arguments)} arguments and "
            f"{unknown}"
        )
    given = dict(zip(names, arguments, strict=False)) | options
    plain = {}
    for mark, parameter in zip(marked, names, strict=True):
        if parameter not in given:
            continue
        value = given[parameter]
        if mark.endswith("*"):
            plain[parameter] = [operand(f"xp.{name}", part) for part in _listed(name, value)]
        elif mark.endswith("!") and value is not None:
            if mark == marked[0] and not isinstance(value, StrictArray):
                raise TypeError(
                    f"xp.{name}: CuPy takes its own array first, not {type(value).__name__}; use "
                    f"backend.from_host"
                )
            plain[parameter] = operand(f"xp.{name}", value)
        else:
            no_arrays(f"xp.{name}", (value,))
            plain[parameter] = value
    CHECKS.get(name, lambda **_: None)(**given)
    syncs.count += SYNCS.get("nonzero" if name == "where" and len(plain) == 1 else name, 0)
    values = list(plain.values())[: len(arguments)]
    keywords = dict(list(plain.items())[len(arguments) :])
    result = IMPLEMENTATIONS.get(name, getattr(np, name))(*values, **keywords)
    return (
        tuple(StrictArray(part, syncs) for part in result)
        if isinstance(result, tuple)
        else StrictArray(result, syncs)
    )


def _listed(name: str, value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(part, StrictArray) for part in value
    ):
        raise TypeError(
            f"xp.{name}: CuPy takes a list of its own arrays; bring others in with "
            f"backend.from_host"
        )
    return value


def _stable(*, kind: str | None = None, **_: Any) -> None:
    if kind != "stable":
        raise TypeError(
            f"a sort of kind {kind}: CuPy has only stable sorts and NumPy's default is not stable; "
            f"say kind='stable'"
        )


def _scalar_count(*, repeats: Any, **_: Any) -> None:
    if not is_integer(repeats):
        raise TypeError(
            "xp.repeat by a list of counts: CuPy before 14.1 fails on arrays; use segments"
        )


def _one_matrix(*, keys: StrictArray) -> None:
    if keys.ndim != 2:
        raise TypeError("xp.lexsort: CuPy takes one array (keys, n); use segments.sort_order")


def _comparable(*, a: StrictArray, v: Any, **_: Any) -> None:
    """CUDA's C++ compares an int64 with a float32 as float32 and with a uint64 as uint64."""
    if not isinstance(v, (StrictArray, int, float)):
        raise TypeError(
            f"xp.searchsorted: CuPy takes an array or a Python number, not {type(v).__name__}"
        )
    kind = (
        v.dtype.kind
        if isinstance(v, StrictArray)
        else "f"
        if isinstance(v, float)
        else a.dtype.kind
    )
    if a.dtype.kind != kind:
        raise TypeError(
            f"xp.searchsorted among {a.dtype}: values of kind {kind!r} are compared in C++; bring "
            f"both to one dtype"
        )


def _members(*, element: StrictArray, test_elements: StrictArray) -> None:
    _comparable(a=test_elements, v=element)


def _codes(*, x: StrictArray, **_: Any) -> None:
    not_negative("xp.bincount", x)


def _indices(*, indices: StrictArray, **_: Any) -> None:
    if isinstance(indices, StrictArray):
        not_negative("xp.take", indices)


CHECKS: dict[str, Callable] = {
    "sort": _stable,
    "argsort": _stable,
    "repeat": _scalar_count,
    "lexsort": _one_matrix,
    "searchsorted": _comparable,
    "isin": _members,
    "bincount": _codes,
    "take": _indices,
    "take_along_axis": _indices,
}


def _filled(array: np.ndarray) -> np.ndarray:
    """Memory as a device hands it out: full of something else."""
    memory = array if array.flags.c_contiguous else array.T
    memory.fill(True) if array.dtype == bool else memory.view(np.uint8).fill(0xA5)
    return array


def _empty(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    return _filled(np.empty(shape, dtype, order))


def _empty_like(prototype: np.ndarray, dtype: Any = None) -> np.ndarray:
    return _filled(np.empty_like(prototype, dtype=dtype))


def _sum(a: np.ndarray, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    if a.dtype.kind != "f":
        return np.sum(a, axis=axis, dtype=dtype, keepdims=keepdims)
    return np.asarray(np.sum(a, axis=axis, dtype=np.longdouble, keepdims=keepdims)).astype(
        dtype or a.dtype
    )


def _cumsum(
    a: np.ndarray, axis: Any = None, dtype: Any = None, out: np.ndarray | None = None
) -> np.ndarray:
    if a.dtype.kind != "f":
        return np.cumsum(a, axis=axis, dtype=dtype, out=out)
    sums = np.cumsum(a, axis=axis, dtype=np.longdouble).astype(dtype or a.dtype)
    if out is None:
        return sums
    out[...] = sums
    return out


def _bincount(x: np.ndarray, weights: np.ndarray | None = None, minlength: int = 0) -> np.ndarray:
    return (
        np.bincount(x, minlength=minlength)
        if weights is None
        else np.bincount(x[::-1], weights[::-1], minlength)
    )


# Floats are summed in extended precision or backwards: a result that hangs on the last bit differs
# from NumPy's.
IMPLEMENTATIONS: dict[str, Callable] = {
    "empty": _empty,
    "empty_like": _empty_like,
    "sum": _sum,
    "cumsum": _cumsum,
    "bincount": _bincount,
}


def _method(name: str) -> Callable:
    return lambda self, *arguments, **options: call(name, self._syncs, self, *arguments, **options)


for _name in METHODS:
    setattr(StrictArray, _name, _method(_name))
