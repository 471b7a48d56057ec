"""A split as files for other trainers: RecBole's `.inter`, and tuples of texts as sentence-transformers takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from ..errors import OutputError
from .files import SplitFiles, open_split, read_table
from .row_groups import SEQUENCE, RowGroupReader
from .vocabularies import load_vocabularies

_NS = 10**9
_LATEST = 10  # purchases that an anchor names


def export(
    dataset: Path, output: Path, form: Literal["inter", "tuples"], *, split: str = "train", overwrite: bool = False
) -> int:
    """Write a split into the file `output`, in its order; returns the rows written.

    inter: RecBole's atomic file, tab-separated, a row a sample: user_id:token, item_id:token, label:float, timestamp:float
    (seconds since 1970 UTC). Negatives are in it: set LABEL_FIELD to label.

    tuples: Parquet, a row a positive, all columns texts: anchor (the names of the user's latest purchases, oldest first),
    positive, negative_1, negative_2, ... (hard ones first). An item without a name goes by its id.

    InputError when the data set cannot be used, OutputError when `output` is there and not to be overwritten.
    """
    files = open_split(dataset, split)
    if output.exists() and not overwrite:
        raise OutputError(f"{output} is there already.\nChoose another file, or replace it with --overwrite.")
    tables = _inter(files) if form == "inter" else _tuples(files)
    first = next(tables)
    if form == "inter":
        writer = csv.CSVWriter(output, first.schema, write_options=csv.WriteOptions(delimiter="\t", quoting_style="none"))
    else:
        writer = pq.ParquetWriter(output, first.schema, compression="zstd")
    with writer:
        writer.write_table(first)
        return first.num_rows + sum(_written(writer, table) for table in tables)


def _written(writer: csv.CSVWriter | pq.ParquetWriter, table: pa.Table) -> int:
    writer.write_table(table)
    return table.num_rows


def _inter(files: SplitFiles) -> Iterator[pa.Table]:
    users = read_table(files.folder / "user_sequences.parquet", ["user_id"])["user_id"]
    items = read_table(files.folder / "item_vocabulary.parquet", ["item_id"])["item_id"]
    reader = RowGroupReader(files, load_vocabularies(files.folder), ["user_id", "item_id", "timestamp"])
    for row_group in files.row_groups:
        block = reader.read(row_group)
        user, time = block.user_features["user_index"].numpy(), block.metadata["timestamp"].numpy()
        yield pa.table(
            {
                "user_id:token": users.take(pa.array(np.repeat(user, block.width) - 1)),
                "item_id:token": items.take(pa.array(block.item_features["item_index"].numpy().reshape(-1) - 1)),
                "label:float": pa.array((block.metadata["slot"].numpy().reshape(-1) == 0).astype(np.float32)),
                "timestamp:float": pa.array(np.repeat(time / _NS, block.width)),
            }
        )


def _tuples(files: SplitFiles) -> Iterator[pa.Table]:
    vocabulary = read_table(files.folder / "item_vocabulary.parquet", ["item_id", "item_name"])
    names = pc.coalesce(vocabulary["item_name"], vocabulary["item_id"])
    reader = RowGroupReader(files, load_vocabularies(files.folder), [SEQUENCE, "item_id"])
    columns = ["positive", *(f"negative_{place}" for place in range(1, files.width))]
    for row_group in files.row_groups:
        block = reader.read(row_group)
        item = block.item_features["item_index"].numpy()
        texts = {name: names.take(pa.array(item[:, place] - 1)) for place, name in enumerate(columns)}
        yield pa.table({"anchor": _anchors(block.user_features[SEQUENCE].numpy(), names), **texts})


def _anchors(sequence: np.ndarray, names: pa.ChunkedArray) -> pa.Array:
    """(n,) texts: the names of each row's latest items."""
    length = (sequence > 0).sum(axis=1)
    latest = (sequence > 0) & (np.arange(sequence.shape[1]) >= length[:, None] - _LATEST)
    offsets = np.concatenate([[0], np.cumsum(latest.sum(axis=1))]).astype(np.int32)
    chosen = names.take(pa.array(sequence[latest] - 1)).combine_chunks()
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), chosen), ", ")
