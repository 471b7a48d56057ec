"""Samples to Parquet, ZSTD 3: our part writer beside pyarrow and polars.

All write the same rows: blocks of the train split as the build makes them, with all columns.
The others get them as a reader does, with ids as strings, categories as dictionaries, sequences as
lists; the time for that does not count. Ours starts from codes, slices of the log and values of
groups; the time to repeat them counts. All row groups are as large as ours; other settings are
each library's defaults.
With two threads, ours and pyarrow write two files side by side; polars has its own threads.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_dcgen.backend.blocks import Block
from gpu_dcgen.contract.schema import make_arrow_schema, make_writer_settings
from gpu_dcgen.samples import gather_groups, labeled_pairs

from .measure import Case, Log, Work
from .stages import load_stage_results, make_setting, spread_blocks

MAX_GROUPS = 60_000  # 960,000 rows
FILE = "train_dataset"


def cases(threads: int) -> list[Case]:
    cases = []
    for n in sorted({1, threads}):
        suffix = "one thread" if n == 1 else f"{n} threads"
        arguments = {"threads": n}
        polars = {"peer": True, "needs": ("polars",), "environment": {"POLARS_MAX_THREADS": str(n)}}
        cases += [
            Case("writing", f"gpu-dcgen, {suffix}", "ours", "rows", arguments),
            Case(
                "writing",
                f"pyarrow write_table, {suffix}",
                "pyarrow_table",
                "rows",
                arguments,
                peer=True,
            ),
            Case(
                "writing",
                f"polars write_parquet, {suffix}",
                "polars_frame",
                "rows",
                {**arguments, "lazy": False},
                **polars,
            ),
            Case(
                "writing",
                f"polars sink_parquet, {suffix}",
                "polars_frame",
                "rows",
                {**arguments, "lazy": True},
                **polars,
            ),
        ]
    return cases


def ours(log: Log, *, threads: int) -> Work:
    _, backend = make_setting(threads)
    blocks = _make_blocks(log, threads)
    return _work(blocks, threads, lambda path, part: _write_part(path, part, backend))


def pyarrow_table(log: Log, *, threads: int) -> Work:
    pa.set_cpu_count(threads)
    blocks = _make_blocks(log, threads)
    tables = [_read_table(part) for part in _deal(blocks, threads)]
    group = max(block.n_rows for block in blocks)

    def write(path: Path, table: pa.Table) -> None:
        pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=group)

    return _work(blocks, threads, write, tables)


def polars_frame(log: Log, *, threads: int, lazy: bool) -> Work:
    import polars as pl

    blocks = _make_blocks(log, threads)
    frame = pl.from_arrow(_read_table(blocks))
    options = {
        "compression": "zstd",
        "compression_level": 3,
        "row_group_size": max(block.n_rows for block in blocks),
    }

    def write(path: Path, frame: Any) -> None:
        if lazy:
            frame.lazy().sink_parquet(path, **options)
        else:
            frame.write_parquet(path, **options)

    return _work(blocks, 1, write, [frame])


def _make_blocks(log: Log, threads: int) -> list[Block]:
    config, backend = make_setting(threads)
    results = load_stage_results(log, config, backend)
    positives = results.plan.positives[0]
    size = min(config.resources.batch_size, max(1, len(positives) // threads))
    blocks = []
    for rows in spread_blocks(len(positives), size, MAX_GROUPS):
        groups = gather_groups(positives, rows, results, config, backend)
        blocks.append(labeled_pairs(groups, results, config, backend))
    return blocks


def _deal(blocks: list[Block], n_parts: int) -> list[list[Block]]:
    return [blocks[part::n_parts] for part in range(n_parts)]


def _write_part(path: Path, blocks: list[Block], backend: Any) -> None:
    with backend.open_part_writer(
        path, make_arrow_schema(FILE), make_writer_settings(FILE, rows_per_row_group=160_000)
    ) as writer:
        for block in blocks:
            writer.write(block)


def _read_table(blocks: list[Block]) -> pa.Table:
    """Return the rows as a reader of our file gets them."""
    folder = Path(mkdtemp(prefix="benchmark-"))
    try:
        path = folder / "rows.parquet"
        _write_part(path, blocks, make_setting(1)[1])
        return pq.read_table(path)
    finally:
        shutil.rmtree(folder)


def _work(
    blocks: list[Block],
    threads: int,
    write: Callable[[Path, Any], None],
    parts: list[Any] | None = None,
) -> Work:
    """Set up the writing of parts side by side, each to its own file."""
    parts = _deal(blocks, threads) if parts is None else parts
    n_rows = sum(block.n_rows for block in blocks)
    folder = Path(mkdtemp(prefix="benchmark-"))
    paths = [folder / f"part-{number}.parquet" for number in range(len(parts))]

    def run() -> None:
        with ThreadPoolExecutor(len(parts)) as pool:
            for done in [
                pool.submit(write, path, part) for path, part in zip(paths, parts, strict=True)
            ]:
                done.result()

    def examine(result: None) -> dict[str, Any]:
        files = [pq.read_metadata(path) for path in paths]
        if sum(file.num_rows for file in files) != n_rows:
            raise AssertionError(
                f"{sum(file.num_rows for file in files)} rows were written of {n_rows}"
            )
        n_bytes = sum(path.stat().st_size for path in paths)
        shutil.rmtree(folder)
        columns = files[0].row_group(0).num_columns
        return {
            "bytes_written": n_bytes,
            "bytes_a_row": round(n_bytes / n_rows, 2),
            "columns": columns,
        }

    return Work(run, lambda result: n_rows, examine)
