"""The seam between the stages and the machine that runs them.

Stages are written once. A backend gives them namespaces (`xp`, `sparse`), one way to run a row kernel
(`for_each`), and a few verbs for what has no common spelling. `cpu_fallback` implements this protocol with
NumPy, SciPy, numba and pyarrow; it imports nothing of this package, so the protocol is structural.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Protocol, Sequence, runtime_checkable

Array = Any  # numpy.ndarray or cupy.ndarray
Column = Any  # a table column as the backend holds it between reading and encoding


@runtime_checkable
class Backend(Protocol):
    """What a machine must be able to do. Arrays go in and out as `xp` arrays unless a line says host."""

    name: str  # "cpu", "gpu", "strict"
    xp: Any  # numpy or cupy
    sparse: Any  # scipy.sparse or cupyx.scipy.sparse
    n_threads: int  # workers that may build parts at the same time
    out_of_memory_errors: tuple[type[BaseException], ...]  # what it raises when its memory is full
    out_of_memory_hint: str  # what a user can do about that
    scratch_order: (
        str  # how scratch (lanes, ...) lies best: "C" lane after lane, "F" lanes side by side
    )

    def single_threaded(self) -> "Backend":
        """The same machine with kernels run on the calling thread only (one lane): for workers that run beside others."""

    def for_each(self, kernel: Any, n: int, *arrays: Array, lanes: int = 1) -> None:
        """Run `kernel(row, *arrays)` for every row in 0..n-1, in any order.

        An argument is an array, a number of the host, or a NamedTuple of these.
        Kernels with scratch get `(row, lane, *arrays)`: no two rows that run at the same time share a lane in 0..lanes-1.
        """

    def lanes(self, lane_bytes: int) -> int:
        """How many rows a kernel with scratch should run at a time, when each needs `lane_bytes` of scratch."""

    def block_size(self, asked: int, entry_bytes: int) -> int:
        """Entries of a block: the `asked` number, or what suits the machine when each needs about `entry_bytes`."""

    def reset_counters(self) -> None:
        """A build begins: what `memory` and `versions` count starts anew."""

    def release_memory(self) -> None:
        """After `out_of_memory_errors`: give back what memory can be given back, and count it."""

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, Column]:
        """Read named columns of Parquet files, in file and row order."""

    def encode(self, column: Column) -> tuple[Array, Any]:
        """Codes (n,) int32 in the order of the sorted distinct values, -1 for null; and those values as a host pyarrow array."""

    def numbers(self, column: Column) -> tuple[Array, Array]:
        """Values (n,) float64 and valid (n,) bool. Text that is not a number is not valid."""

    def times(self, column: Column) -> tuple[Array, Array]:
        """Nanoseconds since 1970 UTC (n,) int64 and valid (n,) bool. Unparsable or outside int64: not valid."""

    def stable_order(self, keys: Array, n_bits: int) -> Array:
        """The stable order (n,) int64 of `keys` (n,) int64, all in 0..2^n_bits - 1."""

    def similarity_block(
        self, first: int, last: int, by_item: Any, by_user: Any, norms: Array, **limits: int
    ) -> Any:
        """Most similar items of each item in first..last-1 (`exact_neighbors`)."""

    def nearest(self, vectors: Array, k: int, engine: str) -> tuple[str, Callable[[Array], Array]]:
        """Who finds, for rows (r,) int64 of `vectors` (n, d) float32, the k vectors of largest inner product with each.

        `engine` is a value of `similarity.nearest`. Returns the one that is used, and a function of rows that returns ids (r, k)
        int32, in no order within a row; an id may be the row itself, or -1. ImportError, with a remedy, for an engine that is not
        there.
        """

    def part_writer(self, path: Path, schema: Any, settings: Any) -> Any:
        """A context manager whose `write(block)` appends one row group or more to a Parquet file."""

    def to_host(self, array: Array) -> Any:
        """The array as numpy.ndarray."""

    def from_host(self, values: Any) -> Array:
        """A numpy array (or list of numbers) as an `xp` array."""

    def versions(self) -> dict[str, Any]:
        """The machine in words: device and driver or processor, threads."""

    def memory(self) -> dict[str, int]:
        """`peak_bytes`: the most memory this process has held on the machine so far; `exhausted`: calls of `release_memory`."""

    def synchronize(self) -> None:
        """Wait until all work handed to the machine is done (for timings)."""
