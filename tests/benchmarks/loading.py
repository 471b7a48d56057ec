"""Measure how fast samples reach a training loop, beside other loaders and Arrow alone.

    python -m tests.benchmarks.loading DATASET                      all loaders, best and median
    python -m tests.benchmarks.loading DATASET --json loading.json  writes what was printed
    python -m tests.benchmarks.loading DATASET --only ours raw      some of them

Each loader yields batches of 4,096 samples of the train split with every feature, the label and
the metadata that training needs, on the same two cores. RePlay reads numbers only, and Hugging
Face makes no tensors of times: they read a copy with codes instead of strings, of the same row
groups and encodings, and need replay-rec and datasets. A loader is stopped after `--seconds`; its
rate is that of the rows until then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from gpu_dcgen.training.dataset import ContrastiveDataset, LocalSampler
from gpu_dcgen.training.files import open_split
from gpu_dcgen.training.groups import SEQUENCE, to_sample_batch
from gpu_dcgen.training.row_groups import RowGroupReader
from gpu_dcgen.training.stream import ContrastiveStream
from gpu_dcgen.training.vocabularies import load_vocabularies

from . import machine

BATCH_ROWS = 4096

Rows = Iterator[int]  # the rows of each batch
Loader = Callable[[], Rows]


def ours(dataset: Path, workers: int, layout: str = "samples", **settings: Any) -> Loader:
    def run() -> Rows:
        stream = ContrastiveStream(dataset, num_workers=workers, layout=layout, **settings)
        stream.batch_size = BATCH_ROWS // stream.files.width
        for batch in stream:
            yield batch["label"].numel()

    return run


def ours_map_style(dataset: Path) -> Loader:
    def run() -> Rows:
        samples = ContrastiveDataset(dataset)
        loader = torch.utils.data.DataLoader(
            samples,
            batch_size=BATCH_ROWS,
            sampler=LocalSampler(samples),
            collate_fn=samples.collate,
        )
        for batch in loader:
            yield len(batch["label"])

    return run


def raw(dataset: Path, columns: list[str]) -> Loader:
    """Read Arrow's record batches: no tensors, padding, codes or shuffling."""

    def run() -> Rows:
        for batch in ds.dataset(dataset / "train_dataset.parquet").to_batches(
            columns=columns, batch_size=BATCH_ROWS
        ):
            yield batch.num_rows

    return run


def replay(numbers: Path, columns: list[str], max_length: int, workers: int) -> Loader:
    from replay.data.nn.parquet import ParquetDataset

    def run() -> Rows:
        source = ParquetDataset(
            str(numbers),
            metadata={
                name: {"shape": max_length, "padding": 0} if name == SEQUENCE else {}
                for name in columns
            },
            partition_size=32 * BATCH_ROWS,
            batch_size=BATCH_ROWS,
            generator=torch.Generator().manual_seed(0),
        )
        for batch in torch.utils.data.DataLoader(source, batch_size=None, num_workers=workers):
            yield len(batch["label"])

    return run


def hugging_face(numbers: Path, *, streaming: bool, cache: Path) -> Loader:
    import datasets

    datasets.disable_progress_bars()
    table = datasets.load_dataset(
        "parquet", data_files=str(numbers), split="train", streaming=streaming, cache_dir=str(cache)
    )
    table = (
        table.shuffle(seed=0, buffer_size=BATCH_ROWS) if streaming else table.shuffle(seed=0)
    ).with_format("torch")

    def run() -> Rows:
        for batch in table.iter(batch_size=BATCH_ROWS):
            yield len(batch["label"])

    return run


def write_numeric_copy(dataset: Path, path: Path) -> list[str]:
    """Write the train split with codes for strings, 0 for nulls; return its columns."""
    files = open_split(dataset, "train")
    reader = RowGroupReader(files, load_vocabularies(files.folder))
    writer = None
    for row_group in files.row_groups:
        samples = to_sample_batch(reader.read(row_group))
        parts = {
            **samples["user_features"],
            **samples["item_features"],
            **samples["metadata"],
            "label": samples["label"],
        }
        lengths = samples["user_features"]["user_sequence_lengths"]
        items = parts[SEQUENCE][torch.arange(files.max_length) < lengths[:, None]]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()])
        numbers = {
            name: tensor.char() if tensor.dtype == torch.bool else tensor
            for name, tensor in parts.items()
        }
        columns = {
            name: pa.array(tensor.numpy()) for name, tensor in numbers.items() if name != SEQUENCE
        }
        columns[SEQUENCE] = pa.ListArray.from_arrays(
            pa.array(offsets.numpy()), pa.array(items.numpy())
        )
        table = pa.table(columns)
        if writer is None:
            coded = [
                name
                for name in table.schema.names
                if name.startswith("item_") or name in ("season", "negative_source")
            ]
            writer = pq.ParquetWriter(
                path, table.schema, compression="zstd", compression_level=3, use_dictionary=coded
            )
        writer.write_table(table, row_group_size=table.num_rows)
    writer.close()
    return table.schema.names


def measure_rate(loader: Loader, seconds: float) -> float:
    """Return rows a second, with the opening of files; stop after `seconds`."""
    started, rows = time.perf_counter(), 0
    for n in loader():
        rows += n
        if time.perf_counter() - started > seconds:
            break
    return rows / (time.perf_counter() - started)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument(
        "--only",
        nargs="*",
        default=["ours", "raw", "RePlay", "Hugging Face"],
        help="first words of names",
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_loaders(
    dataset: Path, columns: list[str], max_length: int, only: list[str], folder: Path
) -> dict[str, Loader]:
    """Make the loaders with names that begin with `only`; `folder` is for copies and caches."""
    makers: dict[str, Callable[[], Loader]] = {
        "raw pyarrow to_batches": lambda: raw(dataset, columns),
        "ours, stream, 1 worker": lambda: ours(dataset, 1),
        "ours, stream, 2 workers": lambda: ours(dataset, 2),
        "ours, stream, 2 workers, a row a positive": lambda: ours(dataset, 2, layout="groups"),
        "ours, stream, 2 workers, in file order": lambda: ours(dataset, 2, shuffle=False),
        "ours, map-style": lambda: ours_map_style(dataset),
    }
    if {"RePlay", "Hugging Face"} & set(only):
        copy = folder / "numbers.parquet"
        names = write_numeric_copy(dataset, copy)
        makers |= {
            "RePlay ParquetDataset": lambda: replay(copy, names, max_length, 0),
            "RePlay ParquetDataset, 2 workers": lambda: replay(copy, names, max_length, 2),
            "Hugging Face, map-style": lambda: hugging_face(copy, streaming=False, cache=folder),
            "Hugging Face, streaming": lambda: hugging_face(copy, streaming=True, cache=folder),
        }
    return {name: make() for name, make in makers.items() if name.startswith(tuple(only))}


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()
    # As RePlay's documentation advises; the loaders' own threads and processes use the cores.
    torch.set_num_threads(1)
    dataset = arguments.dataset
    files = open_split(dataset, "train")
    columns = RowGroupReader(files, load_vocabularies(files.folder)).columns
    with tempfile.TemporaryDirectory() as name:
        loaders = make_loaders(dataset, columns, files.max_length, arguments.only, Path(name))
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        # In turn, so that other load on the machine affects all loaders.
        for _ in range(arguments.rounds):
            for name, loader in loaders.items():
                rates[name].append(measure_rate(loader, arguments.seconds))
    n_samples = files.n_groups * files.width
    print(f"{dataset}: {n_samples:,} samples, {len(columns)} columns, batches of {BATCH_ROWS:,}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, pyarrow {pa.__version__}"
    )
    for name, of_loader in rates.items():
        best, median = max(of_loader) / 1e6, statistics.median(of_loader) / 1e6
        print(f"{name:40} best {best:6.3f}  median {median:6.3f} M samples/s")
    if arguments.json:
        results = {
            "machine": machine.describe(),
            "load_average": {"before": load, "after": os.getloadavg()},
            "dataset": {"samples": n_samples, "columns": len(columns), "batch": BATCH_ROWS},
            "content_digest": files.manifest.content_digest,
            "samples_per_s": {
                name: [round(rate) for rate in of_loader] for name, of_loader in rates.items()
            },
        }
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
