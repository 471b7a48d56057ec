"""Arrays that do what CuPy does: NumPy inside, and refused is whatever CuPy refuses or answers in
another way.

`StrictNamespace` stands for the module `cupy`, `StrictArray` for `cupy.ndarray`. `cupy_surface`
lists what may be used, parameter by parameter; all else is refused, so that a stage that runs here
runs there. Where CuPy is silently different, arrays are loud (a negative index array, a scatter to
one place twice) or different too (`empty` is never zero, floats are summed in another order, `a[0]`
sees later writes to `a`).
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tests.support.cupy_surface import AT_DTYPES, DTYPES, UFUNCS


class Syncs:
    """Counts how often the host waited for the device."""

    def __init__(self) -> None:
        self.count = 0


class StrictArray:
    """An array on the device that is not there. `host` is for backends and tests; stages must not
    know it.
    """

    __hash__ = None
    __slots__ = ("_syncs", "host")

    def __init__(self, host: Any, syncs: Syncs) -> None:
        self.host, self._syncs = np.asarray(host), syncs
        if self.host.dtype not in DTYPES:
            raise TypeError(
                f"CuPy has no arrays of dtype {self.host.dtype}; expected one of "
                f"{sorted(map(str, DTYPES))}"
            )

    shape = property(lambda self: self.host.shape)
    size = property(lambda self: self.host.size)
    ndim = property(lambda self: self.host.ndim)
    dtype = property(lambda self: self.host.dtype)
    nbytes = property(lambda self: self.host.nbytes)
    T = property(lambda self: StrictArray(self.host.T, self._syncs))

    def __repr__(self) -> str:
        return f"StrictArray({self.host!r})"

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Any:
        raise TypeError(
            "CuPy goes to the device for every element: take the array to the host with "
            "backend.to_host"
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "CuPy never becomes a NumPy array by itself: take the array to the host with "
            "backend.to_host"
        )

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(
            f"numpy.{function.__name__} was called with an array of the device: call "
            f"backend.xp.{function.__name__}"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            raise TypeError(
                f"numpy.{ufunc.__name__}.{method} was called with an array of the device: CuPy may "
                f"not have it"
            )
        return StrictUfunc(ufunc, self._syncs)(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"array.{name} is not among what CuPy has and answers as NumPy does "
            f"(tests/support/cupy_surface.py)"
        )

    def item(self) -> Any:
        self._syncs.count += 1
        return self.host.item()

    def __bool__(self) -> bool:
        self._syncs.count += 1
        if self.host.size == 0:  # older NumPy warns, newer and CuPy refuse
            raise ValueError("the truth value of an empty array is ambiguous")
        return bool(self.host)

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def astype(self, dtype: Any, *, copy: bool = True) -> "StrictArray":
        return StrictArray(self.host.astype(dtype, copy=copy), self._syncs)

    def view(self, dtype: Any) -> "StrictArray":
        return StrictArray(self.host.view(dtype), self._syncs)

    def copy(self) -> "StrictArray":
        return StrictArray(self.host.copy(), self._syncs)

    def reshape(self, *shape: Any) -> "StrictArray":
        no_arrays("reshape", shape)
        return StrictArray(self.host.reshape(*shape), self._syncs)

    def fill(self, value: Any) -> None:
        self[...] = value

    def __getitem__(self, index: Any) -> "StrictArray":
        return StrictArray(self.host[self.plain_index(index)], self._syncs)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, StrictArray):
            self.host[self.plain_index(index)] = operand("assignment", value)
            return
        plain = self.plain_index(index)
        if any(isinstance(part, np.ndarray) for part in plain):
            targets = np.arange(self.size).reshape(self.shape)[plain]
            if value.ndim and np.unique(targets).size < targets.size:
                raise IndexError(
                    "CuPy leaves open which value stays where an index occurs twice: sort and take "
                    "run starts"
                )
            overlaps = np.may_share_memory(self.host, value.host)
        else:
            places = self.host[plain]
            itself = (places.ctypes.data, places.strides) == (
                value.host.ctypes.data,
                value.host.strides,
            )  # ends `a[1:] += b`
            overlaps = np.may_share_memory(places, value.host) and not itself
        if overlaps:
            raise TypeError(
                "CuPy copies between overlapping parts of one array in no fixed order: assign a "
                "copy"
            )
        self.host[plain] = value.host

    def __matmul__(self, other: "StrictArray") -> "StrictArray":
        """Sums are added backwards: cuBLAS has an order of its own."""
        dense = operand("@", other)
        if self.ndim != 2 or np.ndim(dense) != 2 or {self.dtype.kind, dense.dtype.kind} != {"f"}:
            raise TypeError(
                "@: CuPy multiplies matrices of floats by cuBLAS; others it multiplies slowly, or "
                "not at all"
            )
        return StrictArray(self.host[:, ::-1] @ dense[::-1], self._syncs)

    def plain_index(self, index: Any) -> tuple:
        """The index for the host array; TypeError for what CuPy would fetch or send, IndexError for
        negative codes.
        """
        parts = index if isinstance(index, tuple) else (index,)
        arrays = [part for part in parts if isinstance(part, StrictArray)]
        for part in parts:
            if isinstance(part, slice):
                if any(
                    bound is not None and not is_integer(bound)
                    for bound in (part.start, part.stop, part.step)
                ):
                    raise TypeError(
                        f"{part}: a slice takes Python integers; CuPy waits for the device here, "
                        f"say so with int()"
                    )
            elif not (
                part is None
                or part is Ellipsis
                or isinstance(part, StrictArray)
                or is_integer(part)
            ):
                raise TypeError(
                    f"an index of type {type(part).__name__}, which CuPy would send over; use "
                    f"backend.from_host"
                )
        masks = [part for part in arrays if part.dtype == bool]
        self._syncs.count += len(masks)
        if masks and len(arrays) > 1:
            raise IndexError("a boolean mask beside another index array: use xp.nonzero")
        for part in arrays:
            not_negative("an index array", part)
        one_element = not arrays and not any(part is Ellipsis for part in parts)
        rest = (Ellipsis,) if one_element else ()  # makes a view even of one element, as in CuPy
        return (*(part.host if isinstance(part, StrictArray) else part for part in parts), *rest)


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def operand(what: str, value: Any) -> Any:
    """The value as NumPy takes it; TypeError for what CuPy takes neither as an array nor as a
    number.
    """
    if isinstance(value, StrictArray):
        return value.host
    if isinstance(value, (bool, int, float)) or (
        isinstance(value, np.generic) and value.dtype in DTYPES
    ):
        return value
    raise TypeError(
        f"{what}: CuPy takes its own arrays and numbers, not {type(value).__name__}; use "
        f"backend.from_host"
    )


def no_arrays(what: str, values: Any) -> None:
    for value in values:
        if isinstance(value, (tuple, list)):
            no_arrays(what, value)
        elif isinstance(value, (StrictArray, np.ndarray)):
            raise TypeError(
                f"{what}: expected Python values here, not an array; for a number on the device "
                f"say int() or float()"
            )


def not_negative(what: str, array: StrictArray) -> None:
    if array.dtype.kind == "i" and array.size and array.host.min() < 0:
        raise IndexError(
            f"{what} holds {array.host.min()}, which counts from the end, silently; sort the -1 "
            f"codes out first"
        )


class StrictUfunc:
    """An elementwise function; of its methods only `at`, since CuPy has `accumulate` and `reduce`
    for sums alone.
    """

    def __init__(self, ufunc: np.ufunc, syncs: Syncs) -> None:
        self._ufunc, self._syncs = ufunc, syncs

    def __call__(self, *arguments: Any, **options: Any) -> StrictArray:
        name = self._ufunc.__name__
        if unknown := options.keys() - {"out", "dtype", "casting"}:
            raise TypeError(f"xp.{name}: CuPy takes no {', '.join(sorted(unknown))}")
        plain = [operand(f"xp.{name}", argument) for argument in arguments]
        kinds = {np.asarray(value).dtype.kind for value in plain}
        if name in ("floor_divide", "remainder") and "f" in kinds:
            raise TypeError(f"xp.{name} of floats: CuPy rounds it in another way; use integers")
        if name in ("left_shift", "right_shift"):
            width = np.result_type(*plain[:2]).itemsize * 8
            if np.any(np.less(plain[1], 0) | np.greater_equal(plain[1], width)):
                raise ValueError(
                    f"xp.{name} by less than 0 or by {width} bits or more: undefined in CUDA"
                )
        if "out" in options:
            out = options["out"]
            options["out"] = operand(f"xp.{name}", out[0] if isinstance(out, tuple) else out)
        return StrictArray(self._ufunc(*plain, **options), self._syncs)

    def at(self, array: StrictArray, index: StrictArray, values: Any) -> None:
        """In place, duplicates included; only for what CUDA adds or compares atomically."""
        name = self._ufunc.__name__
        if name not in ("add", "maximum", "minimum") or array.dtype not in AT_DTYPES:
            raise TypeError(
                f"xp.{name}.at on {array.dtype}: CuPy has add, maximum, minimum on "
                f"{sorted(map(str, AT_DTYPES))}"
            )
        self._ufunc.at(array.host, array.plain_index(index), operand(f"xp.{name}.at", values))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"xp.{self._ufunc.__name__}.{name}: CuPy has it for sums at most; use xp.cumsum, "
            f"xp.max or segments"
        )


def _operator(ufunc: np.ufunc) -> tuple[Callable, Callable, Callable]:
    def forward(self: StrictArray, other: Any) -> StrictArray:
        return StrictUfunc(ufunc, self._syncs)(self, other)

    def reflected(self: StrictArray, other: Any) -> StrictArray:
        return StrictUfunc(ufunc, self._syncs)(other, self)

    def in_place(self: StrictArray, other: Any) -> StrictArray:
        StrictUfunc(ufunc, self._syncs)(self, other, out=self)
        return self

    return forward, reflected, in_place


for _name, _ufunc in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}.items():
    for _prefix, _function in zip(("", "r", "i"), _operator(_ufunc), strict=True):
        setattr(StrictArray, f"__{_prefix}{_name}__", _function)
for _name, _ufunc in {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    setattr(StrictArray, f"__{_name}__", _operator(_ufunc)[0])
for _name, _ufunc in {"neg": np.negative, "abs": np.absolute, "invert": np.invert}.items():
    setattr(
        StrictArray,
        f"__{_name}__",
        lambda self, ufunc=_ufunc: StrictUfunc(ufunc, self._syncs)(self),
    )
