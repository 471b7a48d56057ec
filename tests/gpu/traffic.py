"""`python -m tests.gpu.traffic`: the device memory traffic of each stage, counted without a device.

A made-up shop is built on arrays that stand for CuPy's. Each operation on them counts as a launch,
with the bytes of its arrays that it reads and writes; sorts count as the passes of a radix sort.
Kernels that pass over their arguments once count with these; what the others look up is not in the
sizes of their arguments, so they are only counted. Bytes grow with the transactions, the operations
of a part with the number of parts: so the figures of a small shop give those of a large one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_dcgen.backend.gpu.parquet import PartWriter
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.digest import ContentDigest
from gpu_dcgen.example_data.fashion_shop import generate
from gpu_dcgen.monitoring.timing import BuildTimer
from gpu_dcgen.outputs import part_writer, parts
from gpu_dcgen.quality_validator.metrics import QualityMetrics
from tests.gpu.machines import open_machine
from tests.support import strict_array, strict_functions
from tests.support.strict_array import StrictArray
from tests.support.strict_backend import StrictBackend

# A stable radix sort reads and writes keys and places once for each digit of 8 bits.
SORT_PASSES = 8
SORTS = {"argsort": 1, "sort": 1, "unique": 1, "lexsort": 2}
# H&M's size, accepted; four fifths of what the vendors give for memory; what a host spends on a
# whole-array operation of CuPy, on a launch by numba-cuda, and on a wait: assumed, not measured.
HM_TRANSACTIONS = 31_600_000
GIGABYTES_A_SECOND = (0.8 * 4800, 0.8 * 300)  # H200, L4
HOST_SECONDS = (15e-6, 60e-6, 20e-6)
# Parts of the stage "samples", by the function that does them.
PARTS = (
    (part_writer, "gather_groups", "draw"),
    (QualityMetrics, "add", "check"),
    (ContentDigest, "add", "digest"),
    (PartWriter, "write", "lay out for the file"),
)


# Bytes of the row kernels that pass over arrays once, by their arguments.
STREAMING = {
    "describe_items": lambda item, snapshot, tables, columns: (
        item.nbytes + snapshot.nbytes + 2 * sum(column.nbytes for column in columns)
    ),
    "copy_lists": lambda values, starts, lengths, repeats, offsets, out: 2 * out.nbytes,
    "mix_positions": lambda first_row, out: out.nbytes,
    "mix_values": lambda values, out: values.nbytes + out.nbytes,
    "mix_nullable": lambda values, valid, null_hash, out: values.nbytes + valid.nbytes + out.nbytes,
    "hash_slices": lambda values, starts, lengths, out: (
        int(lengths.host.sum()) * values.dtype.itemsize
        + starts.nbytes
        + lengths.nbytes
        + out.nbytes
    ),
    "hash_codes": lambda codes, hashes, null_hash, out: codes.nbytes + 2 * out.nbytes,
    "hash_lists": lambda offsets, hashes, out: hashes.nbytes + offsets.nbytes + out.nbytes,
    "hash_sample_ids": lambda *arguments: arguments[-1].nbytes,
    "add_rows": lambda positions, hashes, repeats, out: positions.nbytes + hashes.nbytes,
}


@dataclass
class Traffic:
    """What one stage did."""

    operations: int = 0  # on whole arrays: at least a launch each
    kernels: int = 0  # launches of row kernels and of similarities
    syncs: int = 0  # waits of the host for the device
    n_bytes: int = 0  # read and written by the operations


class Counter:
    """Counts the operations on strict arrays by the stage that they belong to."""

    def __init__(self) -> None:
        self.stages: dict[str, Traffic] = {}
        self._stack = ["start"]
        self._is_nested = False
        self._syncs: strict_array.Syncs | None = None

    @property
    def current(self) -> Traffic:
        return self.stages.setdefault(self._stack[-1], Traffic())

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside for a stage, its syncs included."""
        self._settle()
        self._stack.append(name)
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def open_machine(self) -> StrictBackend:
        backend = open_machine("strict", has_rapids=True)
        self._syncs = backend._syncs
        return backend

    def _settle(self) -> None:
        if self._syncs is not None:
            self.current.syncs += self._syncs.count
            self._syncs.count = 0

    def operation(self, function: Callable, passes: int = 1) -> Callable:
        """Return a function that counts as one operation, with all its arrays."""

        def count(*arguments: Any, **options: Any) -> Any:
            if self._is_nested:
                return function(*arguments, **options)
            self._is_nested = True
            try:
                result = function(*arguments, **options)
            finally:
                self._is_nested = False
            read = [*_arrays(arguments), *_arrays(options.values())]
            written = list(_arrays([result]))
            is_view = any(np.may_share_memory(a, b) for a in read for b in written)
            if is_view and "out" not in options:
                return result
            arrays = [*read, *written]
            self.current.operations += 1
            self.current.n_bytes += passes * sum(array.nbytes for array in arrays)
            return result

        return count

    def kernel(self, function: Callable) -> Callable:
        """Return a function that launches a kernel and counts it."""

        def count(backend: Any, kernel: Any, *arguments: Any, **options: Any) -> Any:
            self.current.kernels += 1
            name = getattr(getattr(kernel, "python", None), "__name__", "")
            if name in STREAMING:
                _, *arrays = arguments  # the first is the number of rows
                self.current.n_bytes += STREAMING[name](*arrays)
            return function(backend, kernel, *arguments, **options)

        return count


def _arrays(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, StrictArray):
            yield value.host
        elif isinstance(value, tuple | list):
            yield from _arrays(value)


def count_into(counter: Counter, patch: pytest.MonkeyPatch) -> None:
    """Let every operation on strict arrays be counted."""

    def call(name: str, *arguments: Any, **options: Any) -> Any:
        if name in ("empty", "empty_like"):  # memory that nobody touches yet
            return original_call(name, *arguments, **options)
        passes = SORT_PASSES * SORTS[name] if name in SORTS else 1
        return counter.operation(original_call, passes)(name, *arguments, **options)

    original_call, index = strict_functions.call, StrictArray.__getitem__
    patch.setattr(strict_functions, "call", call)
    ufunc = strict_array.StrictUfunc
    for owner, name in (
        *((ufunc, name) for name in ("__call__", "at")),
        *((StrictArray, name) for name in ("astype", "copy", "__matmul__")),
    ):
        patch.setattr(owner, name, counter.operation(getattr(owner, name)))

    def get(array: StrictArray, key: Any) -> StrictArray:
        """A slice is a view; an index array gathers."""
        indices = key if isinstance(key, tuple) else (key,)
        places = [part for part in indices if isinstance(part, StrictArray)]
        if not places or counter._is_nested:
            return index(array, key)
        result = index(array, key)
        counter.current.operations += 1
        counter.current.n_bytes += 2 * result.nbytes + sum(part.nbytes for part in places)
        return result

    def put(array: StrictArray, key: Any, value: Any) -> None:
        set_item(array, key, value)
        if not counter._is_nested:
            counter.current.operations += 1
            n_bytes = value.nbytes if isinstance(value, StrictArray) else 0
            counter.current.n_bytes += 2 * n_bytes

    set_item = StrictArray.__setitem__
    patch.setattr(StrictArray, "__getitem__", get)
    patch.setattr(StrictArray, "__setitem__", put)
    patch.setattr(
        StrictBackend,
        "stable_argsort",
        counter.operation(StrictBackend.stable_argsort, SORT_PASSES),
    )
    for name in ("for_each", "find_similar_items"):
        patch.setattr(StrictBackend, name, counter.kernel(getattr(StrictBackend, name)))


def count_stages(counter: Counter, patch: pytest.MonkeyPatch) -> None:
    """Let the stages of a build, and the parts of its samples, be told apart."""
    time_stage = BuildTimer.stage

    @contextlib.contextmanager
    def stage(timer: BuildTimer, name: str, total: int | None = None) -> Iterator[None]:
        with time_stage(timer, name, total), counter.stage(name):
            yield

    patch.setattr(BuildTimer, "stage", stage)
    for owner, name, words in PARTS:
        patch.setattr(owner, name, _as_part(counter, getattr(owner, name), words))
    shapes = {
        name: _as_part(counter, lay_out, "rows") for name, lay_out in part_writer.SHAPES.items()
    }
    patch.setattr(part_writer, "SHAPES", shapes)


def _as_part(counter: Counter, function: Callable, words: str) -> Callable:
    def run(*arguments: Any, **options: Any) -> Any:
        if counter._stack[-1] != "samples":
            return function(*arguments, **options)
        with counter.stage(f"samples: {words}"):
            return function(*arguments, **options)

    return run


def measure(tables: Path, output: Path, counter: Counter) -> Any:
    """Build on strict arrays, a block a part as on a device; return the manifest."""
    config = DatasetConfig.model_validate({"resources": {"batch_size": 1 << 18}})
    with pytest.MonkeyPatch.context() as patch:
        # Threads would share the counter's stack of stages; there is one.
        count_into(counter, patch)
        count_stages(counter, patch)
        return build(tables, output, config, backend=counter.open_machine()).manifest


def count_parts(positives_by_split: dict[str, int]) -> int:
    """Return the parts of a dataset (D16)."""
    most, size = parts._MAX_GROUPS_OF_ONE_FILE, parts._PART_GROUPS
    return sum(1 if n <= most else -(-n // size) for n in positives_by_split.values())


def render(content: dict[str, Any]) -> str:
    """Return the table of the docs: each stage at H&M's size, from the counts of a small shop."""
    growth = HM_TRANSACTIONS / content["transactions"]
    n_parts = count_parts(content["positives"])
    hm_parts = count_parts({split: round(n * growth) for split, n in content["positives"].items()})
    lines = [
        "| stage | GB | operations | kernels | waits | H200: device, host | L4: device, host |",
        "|---|---|---|---|---|---|---|",
    ]
    total = [0.0] * 8
    for name, counts in content["stages"].items():
        more = hm_parts / n_parts if name.startswith("samples:") else 1
        gigabytes = counts["n_bytes"] * growth / 1e9
        calls = [counts[key] * more for key in ("operations", "kernels", "syncs")]
        host = sum(n * cost for n, cost in zip(calls, HOST_SECONDS, strict=True))
        seconds = [gigabytes / rate for rate in GIGABYTES_A_SECOND]
        values = [gigabytes, *calls, seconds[0], host, seconds[1], host]
        total = [a + b for a, b in zip(total, values, strict=True)]
        lines.append(_row(name, values))
    lines.append(_row("all", total))
    return "\n".join(lines) + "\n"


def _row(name: str, values: list[float]) -> str:
    gigabytes, *calls = (f"{value:,.0f}" for value in values[:4])
    h200, l4 = (f"{values[k]:.2f}, {values[k + 1]:.1f} s" for k in (4, 6))
    return f"| {name} | {gigabytes} | {' | '.join(calls)} | {h200} | {l4} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=0.05, help="of the shop (1: H&M's size)")
    parser.add_argument("--out", type=Path, help="write the counts here, as JSON")
    options = parser.parse_args()
    counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "tables"
        generate(tables, scale=options.scale, seed=42)
        manifest = measure(tables, Path(folder) / "output", counter)
    content = {
        "scale": options.scale,
        "transactions": manifest.inputs.accepted_transactions,
        "positives": {split: counts.groups for split, counts in manifest.counts.items()},
        "items": manifest.vocabulary.items,
        "stages": {name: vars(traffic) for name, traffic in counter.stages.items()},
    }
    if options.out:
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(render(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
