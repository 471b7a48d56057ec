"""The interface between the stages of a build and the device that they run on.

Stages are written once. A backend gives them namespaces (`xp`, `sparse`), a way to run row kernels
(`for_each`), and methods for what NumPy and CuPy do not spell alike. `cpu_fallback` implements the
protocol with NumPy, SciPy, numba and pyarrow; it imports nothing of this package, so the protocol
is structural.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ..contract.schema import WriterSettings
    from ..kernels import RowKernel
    from .blocks import Block

Array = Any  # numpy.ndarray or cupy.ndarray
Column = Any  # a table column between `read_columns` and `encode`, in the form of its backend


@dataclass(frozen=True)
class MatrixByItemAndUser:
    """A sparse matrix of integer weights, stored by item and by user."""

    item_offsets: Array  # (I+1,) int64  each item's run in `item_user` and `item_weight`
    item_user: Array  # (N,) int32
    item_weight: Array  # (N,) int32
    user_offsets: Array  # (U+1,) int64  each user's run in `user_cell`
    user_cell: Array  # (N,) int64: weight << 32 | item, so that one read gives both
    norms: Array  # (I,) int64  sums of squared weights
    packed: bool  # whether a sum of products and 21 bits of common users fit one int64


class PartWriter(Protocol):
    """A context manager that writes one Parquet file."""

    def __enter__(self) -> Self:
        """Open the file."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the footer; after an error, remove the file."""

    def write(self, block: Block) -> None:
        """Append the rows of a block as one row group or more."""


@runtime_checkable
class Backend(Protocol):
    """The operations of a device. Arrays are `xp` arrays unless a line says host."""

    name: str  # "cpu", "gpu", "strict"
    xp: Any  # numpy or cupy
    n_threads: int  # threads that may write parts at the same time
    # What the backend raises when its memory is full, and how a user can avoid it.
    out_of_memory_errors: tuple[type[BaseException], ...]
    out_of_memory_hint: str
    # The best order of scratch arrays (lanes, ...): "C" keeps a lane together, "F" mixes lanes.
    scratch_order: str

    @property
    def sparse(self) -> Any:
        """scipy.sparse or cupyx.scipy.sparse."""

    def single_threaded(self) -> Backend:
        """Return this backend with kernels on the calling thread only (one lane).

        For threads that run kernels at the same time as others.
        """

    def for_each(self, kernel: RowKernel, n: int, *arrays: Any, lanes: int = 1) -> None:
        """Run `kernel(row, *arrays)` for every row in 0..n-1, in any order.

        An argument is an array, a number on the host, or a NamedTuple of these. Kernels with
        scratch are called with `(row, lane, *arrays)`: rows that run at the same time have
        different lanes in 0..lanes-1.
        """

    def count_lanes(self, lane_bytes: int, n_rows: int) -> int:
        """Return how many of `n_rows` run at a time when each needs `lane_bytes` of scratch."""

    def choose_block_size(self, requested: int, entry_bytes: int) -> int:
        """Return the entries of a block: `requested`, or what fits at `entry_bytes` each."""

    def hold_arrays(self, folder: Path, available_bytes: int) -> AbstractContextManager[None]:
        """Keep the arrays of the calling thread within a limit while the context lasts.

        Beyond the backend's memory limit, or `available_bytes` where it has none, arrays of the
        host live in files in `folder`. OSError where its disk is full.
        """

    def map_saved(self, arrays: Sequence[tuple[Any, int]], file: int) -> None:
        """Let pages of a file stand for the memory of arrays of the host, where that is short.

        The open file has each array's bytes at its offset; nothing writes to the arrays any more.
        The last of them make room first.
        OSError where the file cannot be written.
        """

    def reset_counters(self) -> None:
        """Start the counters of `memory_usage` and `describe_device` at zero."""

    def release_memory(self) -> None:
        """Free what memory can be freed after `out_of_memory_errors`, and count the event."""

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, Column]:
        """Read named columns of Parquet files, in file and row order."""

    def encode(self, column: Column) -> tuple[Array, pa.Array]:
        """Return codes and the sorted distinct values that they index.

        Codes are (n,) int32, -1 for null; the values are a host pyarrow array.
        """

    def parse_numbers(self, column: Column) -> tuple[Array, Array]:
        """Return values (n,) float64 and valid (n,) bool; other text than a number is not valid."""

    def parse_times(self, column: Column) -> tuple[Array, Array]:
        """Return nanoseconds since 1970 UTC (n,) int64 and valid (n,) bool.

        Text that is not a time and times outside int64 are not valid.
        """

    def stable_argsort(self, keys: Array, n_bits: int) -> Array:
        """Return the stable order (n,) int64 of `keys` (n,) int64, all in 0..2^n_bits - 1."""

    def find_similar_items(
        self,
        first: int,
        last: int,
        matrix: MatrixByItemAndUser,
        *,
        min_common_users: int,
        top_k: int,
    ) -> tuple[Array, Array, Array, Array]:
        """Find the `top_k` most similar items of each item in first..last-1 (D9, D10).

        Returns lengths (last - first,) int32 and, concatenated, item int32, similarity float32 and
        common users int32, by falling similarity, then rising item.
        """

    def build_nearest_search(
        self, vectors: Array, k: int, engine: str
    ) -> tuple[str, Callable[[Array], Array]]:
        """Return the engine that is used and a function that finds nearest vectors.

        The function takes rows (r,) int64 of `vectors` (n, d) float32 and returns ids (r, k) int32
        of the k largest inner products, unordered within a row; an id may be the row itself, or -1.
        `engine` is a value of `similarity.nearest`. ImportError, with a remedy, if it is missing.
        """

    def open_part_writer(
        self, path: Path, schema: pa.Schema, settings: WriterSettings
    ) -> PartWriter:
        """Return a writer of blocks to one Parquet file."""

    def to_host(self, array: Array) -> np.ndarray:
        """Return the array as numpy.ndarray."""

    def from_host(self, values: Any) -> Array:
        """Return a NumPy array (or list of numbers) as an `xp` array."""

    def describe_device(self) -> dict[str, Any]:
        """Describe the device for the manifest: name, driver or threads, bytes copied."""

    def memory_usage(self) -> dict[str, int]:
        """Return `peak_bytes` of this process and `n_out_of_memory`, calls of `release_memory`."""

    def synchronize(self) -> None:
        """Wait until all submitted work is done (for timings)."""
