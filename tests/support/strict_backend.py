"""A NumPy that refuses what CuPy refuses: stages proven on it run on a GPU.

Arrays are `StrictArray` and functions those of `cupy_surface`. Row kernels run one row after the
other in a shuffled order, with every index checked, compiled by numba rather than as Python: only
then are integers typed as on both machines (in Python `np.uint64 + 1` stays uint64 and int32 wraps;
in numba they become float64 and int64).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Callable, Sequence

import numba
import numpy as np
import scipy.sparse

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.protocol import MatrixByItemAndUser
from gpu_dcgen.kernels import OPTIONS, map_arrays, recompiled
from tests.support.cupy_surface import DTYPES
from tests.support.strict_array import StrictArray, Syncs
from tests.support.strict_functions import StrictNamespace


class StrictBackend:
    """`NumpyBackend` behind strict arrays; `n_syncs` counts how often a GPU would have been waited
    for.
    """

    name = "strict"
    n_threads = 1
    out_of_memory_errors = (MemoryError,)
    out_of_memory_hint = NumpyBackend.out_of_memory_hint
    scratch_order = "F"

    def __init__(self, n_lanes: int = 3, seed: int = 0) -> None:
        self._n_lanes = n_lanes
        self._syncs = Syncs()
        self.xp = StrictNamespace(self._syncs)
        self.sparse = StrictSparse()
        self._host = NumpyBackend(1)
        self._order = np.random.default_rng(seed)

    @property
    def n_syncs(self) -> int:
        return self._syncs.count

    def single_threaded(self) -> "StrictBackend":
        """One lane; arrays and the count of syncs are shared."""
        alone = StrictBackend(1)
        alone._syncs, alone.xp, alone._order = self._syncs, self.xp, self._order
        return alone

    def for_each(self, kernel: Any, n: int, *arrays: Any, lanes: int = 1) -> None:
        """Rows in a shuffled order, lanes in turns. IndexError names the kernel that left an
        array.
        """
        plain = [
            map_arrays(partial(_kernel_argument, position), array)
            for position, array in enumerate(arrays)
        ]
        rows = self._order.permutation(operator.index(n))
        try:
            _checked_loop(kernel)(rows, *((lanes,) if kernel.scratch else ()), *plain)
        except IndexError as error:
            raise IndexError(
                f"kernel {kernel.python.__name__}: {error}; a GPU would read or write there, "
                f"silently"
            ) from error

    def count_lanes(self, lane_bytes: int, n_rows: int) -> int:
        return self._n_lanes

    def choose_block_size(self, requested: int, entry_bytes: int) -> int:
        return self._host.choose_block_size(requested, entry_bytes)

    def hold_arrays(self, folder: Path, available_bytes: int) -> AbstractContextManager[None]:
        return self._host.hold_arrays(folder, available_bytes)

    def map_saved(self, arrays: Sequence[tuple[Any, int]], file: int) -> None:
        self._host.map_saved(arrays, file)

    def reset_counters(self) -> None:
        self._host.reset_counters()

    def release_memory(self) -> None:
        self._host.release_memory()

    def read_columns(
        self, files: Sequence[Path], names: Sequence[str]
    ) -> dict[str, "StrictColumn"]:
        return {
            name: StrictColumn(column)
            for name, column in self._host.read_columns(files, names).items()
        }

    def encode(self, column: "StrictColumn") -> tuple[StrictArray, Any]:
        codes, values = self._host.encode(_column(column))
        return self._raise(codes), values

    def parse_numbers(self, column: "StrictColumn") -> tuple[StrictArray, StrictArray]:
        return self._raise(self._host.parse_numbers(_column(column)))

    def parse_times(self, column: "StrictColumn") -> tuple[StrictArray, StrictArray]:
        return self._raise(self._host.parse_times(_column(column)))

    def stable_argsort(self, keys: StrictArray, n_bits: int) -> StrictArray:
        return self._raise(self._host.stable_argsort(_lower(keys), n_bits))

    def find_similar_items(
        self,
        first: int,
        last: int,
        matrix: MatrixByItemAndUser,
        *,
        min_common_users: int,
        top_k: int,
    ) -> tuple[StrictArray, ...]:
        return self._raise(
            self._host.find_similar_items(
                first, last, _lower(matrix), min_common_users=min_common_users, top_k=top_k
            )
        )

    def build_nearest_search(
        self, vectors: StrictArray, k: int, engine: str
    ) -> tuple[str, Callable[[StrictArray], StrictArray]]:
        used, find = self._host.build_nearest_search(_lower(vectors), k, engine)
        return used, lambda rows: self._raise(find(_lower(rows)))

    def open_part_writer(self, path: Path, schema: Any, settings: Any) -> "StrictPartWriter":
        return StrictPartWriter(self._host.open_part_writer(path, schema, settings))

    def to_host(self, array: StrictArray) -> np.ndarray:
        """A copy: what the host does to it does not reach the device."""
        if not isinstance(array, StrictArray):
            raise TypeError(
                f"to_host: expected an array of the device, found {type(array).__name__}"
            )
        self._syncs.count += 1
        return array.host.copy()

    def from_host(self, values: Any) -> StrictArray:
        """A copy of a NumPy array or list of numbers."""
        return StrictArray(np.array(values), self._syncs)

    def describe_device(self) -> dict[str, Any]:
        return self._host.describe_device()

    def memory_usage(self) -> dict[str, int]:
        return self._host.memory_usage()

    def synchronize(self) -> None:
        self._syncs.count += 1

    def _raise(self, value: Any) -> Any:
        """Host arrays, alone or in tuples, as arrays of the device."""
        if isinstance(value, tuple):
            return tuple(self._raise(part) for part in value)
        return StrictArray(value, self._syncs)


@dataclasses.dataclass(frozen=True)
class StrictColumn:
    """A column between reading and encoding: what it is inside is the machine's business."""

    held: Any


class StrictPartWriter:
    """A part writer for blocks of device arrays."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __enter__(self) -> "StrictPartWriter":
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._writer.__exit__(*error)

    def write(self, block: Any) -> Any:
        return self._writer.write(_lower(block))


class StrictSparse:
    """`cupyx.scipy.sparse` as far as stages may use it."""

    def csr_matrix(
        self, arrays: tuple[StrictArray, StrictArray, StrictArray], shape: tuple[int, int]
    ) -> Any:
        """A matrix of (values, columns, offsets); TypeError for values that cuSPARSE cannot
        hold.
        """
        if arrays[0].dtype not in (np.dtype("float32"), np.dtype("float64"), np.dtype("bool")):
            raise TypeError(
                f"csr_matrix: CuPy holds only bool and float values, not {arrays[0].dtype}"
            )
        return StrictMatrix(scipy.sparse.csr_matrix(_lower(arrays), shape=shape), arrays[0]._syncs)


class StrictMatrix:
    """A sparse matrix as far as stages may use it: times a dense one, which cuSPARSE adds in
    another order.
    """

    def __init__(self, held: Any, syncs: Syncs) -> None:
        self._held, self._syncs = held, syncs

    T = property(lambda self: StrictMatrix(self._held.T, self._syncs))

    def __matmul__(self, dense: StrictArray) -> StrictArray:
        if not isinstance(dense, StrictArray) or dense.ndim != 2 or dense.dtype != self._held.dtype:
            raise TypeError(
                f"a sparse matrix times {dense!r:.60}: expected a 2-D array of the device, of "
                f"{self._held.dtype}"
            )
        return StrictArray(self._held[:, ::-1] @ dense.host[::-1], self._syncs)

    def toarray(self) -> StrictArray:
        return StrictArray(self._held.toarray(), self._syncs)


def _lower(value: Any) -> Any:
    """Device arrays as NumPy arrays, in tuples, lists, dicts and dataclasses; TypeError where a
    host array stands for one.
    """
    if isinstance(value, StrictArray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError("expected arrays of the device, found a NumPy array; use backend.from_host")
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return map_arrays(_lower, value)
    if isinstance(value, (tuple, list)):
        return type(value)(_lower(part) for part in value)
    if isinstance(value, dict):
        return {key: _lower(part) for key, part in value.items()}
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(
            value, **{f.name: _lower(getattr(value, f.name)) for f in dataclasses.fields(value)}
        )
    return value


def _column(column: Any) -> Any:
    if not isinstance(column, StrictColumn):
        raise TypeError(
            f"expected a column as read_columns gives it, found {type(column).__name__}"
        )
    return column.held


def _kernel_argument(position: int, value: Any) -> Any:
    if isinstance(value, StrictArray) and value.ndim:
        return value.host
    if isinstance(value, (bool, int, float)) or (
        isinstance(value, np.generic) and value.dtype in DTYPES
    ):
        return value
    kind = "a number on the device" if isinstance(value, StrictArray) else type(value).__name__
    raise TypeError(
        f"for_each: argument {position} is {kind}; CUDA kernels take device arrays and host "
        f"numbers (say int())"
    )


@functools.cache
def _checked_loop(kernel: Any) -> Callable:
    """Return loop(rows, *arrays) or loop(rows, lanes, *arrays) over the kernel.

    It is compiled once in a process.
    """
    body = recompiled(
        kernel.python, numba.njit(boundscheck=True, no_cpython_wrapper=True, **OPTIONS)
    )

    def plain(rows, *arrays):
        for row in rows:
            body(row, *arrays)

    def with_lanes(rows, lanes, *arrays):
        for position in range(rows.shape[0]):
            body(rows[position], position % lanes, *arrays)

    return numba.njit(**OPTIONS)(with_lanes if kernel.scratch else plain)
