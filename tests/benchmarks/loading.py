"""How fast samples reach a training loop, beside other loaders and beside Arrow alone, in one run.

    python -m tests.benchmarks.loading DATASET                      rounds of all loaders, best and median of each
    python -m tests.benchmarks.loading DATASET --json loading.json  records what was printed
    python -m tests.benchmarks.loading DATASET --only ours raw      some of them

Each loader hands out batches of 4,096 samples of the training split with every feature, the label and what training
needs of the metadata, on the same two cores. RePlay takes numbers only, and Hugging Face makes no tensors of times:
they read a copy with codes instead of strings, of the same row groups and encodings, and need replay-rec and datasets.
A loader that would take long is stopped after `--seconds`; its rate is of the rows it got to.
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
from gpu_dcgen.training.row_groups import SEQUENCE, RowGroupReader, as_samples
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
    """Arrow's record batches, as they come: no tensors, no padding, no codes, no shuffling."""

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


def numeric_copy(dataset: Path, path: Path) -> list[str]:
    """Write the training split with codes for strings, 0 for nulls; returns its columns."""
    files = open_split(dataset, "train")
    reader = RowGroupReader(files, load_vocabularies(files.folder))
    writer = None
    for row_group in files.row_groups:
        samples = as_samples(reader.read(row_group))
        parts = {
            **samples["user_features"],
            **samples["item_features"],
            **samples["metadata"],
            "label": samples["label"],
        }
        lengths = samples["user_features"]["user_sequence_lengths"]
        kept = parts[SEQUENCE][torch.arange(files.max_length) < lengths[:, None]]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()])
        numbers = {
            name: tensor.char() if tensor.dtype == torch.bool else tensor
            for name, tensor in parts.items()
        }
        columns = {
            name: pa.array(tensor.numpy()) for name, tensor in numbers.items() if name != SEQUENCE
        }
        columns[SEQUENCE] = pa.ListArray.from_arrays(
            pa.array(offsets.numpy()), pa.array(kept.numpy())
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


def rate(loader: Loader, seconds: float) -> float:
    """Rows a second, the opening of files included; stopped after `seconds`."""
    begun, rows = time.perf_counter(), 0
    for n in loader():
        rows += n
        if time.perf_counter() - begun > seconds:
            break
    return rows / (time.perf_counter() - begun)


def main() -> None:
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
    arguments = parser.parse_args()
    load = os.getloadavg()
    torch.set_num_threads(
        1
    )  # as RePlay's documentation advises; the loaders' own threads and processes use the cores
    dataset = arguments.dataset
    files = open_split(dataset, "train")
    columns = RowGroupReader(files, load_vocabularies(files.folder)).columns
    loaders: dict[str, Callable[[], Loader]] = {
        "raw pyarrow to_batches": lambda: raw(dataset, columns),
        "ours, stream, 1 worker": lambda: ours(dataset, 1),
        "ours, stream, 2 workers": lambda: ours(dataset, 2),
        "ours, stream, 2 workers, a row a positive": lambda: ours(dataset, 2, layout="groups"),
        "ours, stream, 2 workers, in file order": lambda: ours(dataset, 2, shuffle=False),
        "ours, map-style": lambda: ours_map_style(dataset),
    }
    with tempfile.TemporaryDirectory() as folder:
        if {"RePlay", "Hugging Face"} & set(arguments.only):
            numbers = Path(folder) / "numbers.parquet"
            names = numeric_copy(dataset, numbers)
            loaders["RePlay ParquetDataset"] = lambda: replay(numbers, names, files.max_length, 0)
            loaders["RePlay ParquetDataset, 2 workers"] = lambda: replay(
                numbers, names, files.max_length, 2
            )
            loaders["Hugging Face, map-style"] = lambda: hugging_face(
                numbers, streaming=False, cache=Path(folder)
            )
            loaders["Hugging Face, streaming"] = lambda: hugging_face(
                numbers, streaming=True, cache=Path(folder)
            )
        chosen = {
            name: make() for name, make in loaders.items() if name.startswith(tuple(arguments.only))
        }
        rates: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(
            arguments.rounds
        ):  # in turn, so that other load on the machine meets all of them
            for name, loader in chosen.items():
                rates[name].append(rate(loader, arguments.seconds))
    print(
        f"{dataset}: {files.n_groups * files.width:,} samples, {len(columns)} columns, batches of {BATCH_ROWS:,}"
    )
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, pyarrow {pa.__version__}"
    )
    for name, found in rates.items():
        print(
            f"{name:40} best {max(found) / 1e6:6.3f}  median {statistics.median(found) / 1e6:6.3f} M samples/s"
        )
    if arguments.json:
        found = {
            "machine": machine.describe(),
            "load_average": {"before": load, "after": os.getloadavg()},
            "dataset": {
                "samples": files.n_groups * files.width,
                "columns": len(columns),
                "batch": BATCH_ROWS,
            },
            "content_digest": files.manifest["content_digest"],
            "samples_per_s": {
                name: [round(rate) for rate in found] for name, found in rates.items()
            },
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
