"""A split as files for other trainers: RecBole's `.inter`, and tuples of texts as sentence-transformers takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from ..errors import OutputError, spell_option
from .files import SplitFiles, open_split, read_table
from .row_groups import SEQUENCE, RowGroupReader
from .vocabularies import load_vocabularies

_NS = 10**9
_LATEST = 10  # purchases that an anchor names


def export(
    dataset: Path,
    output: Path,
    form: Literal["inter", "tuples"],
    *,
    split: str = "train",
    overwrite: bool = False,
) -> int:
    """Write a split into the file `output`, in its order; returns the rows written.

    inter: RecBole's atomic file, tab-separated, a row a sample: user_id:token, item_id:token, label:float, timestamp:float
    (seconds since 1970 UTC). Negatives are in it: set LABEL_FIELD to label.

    tuples: Parquet, a row a positive, all columns texts: anchor (the names of the user's latest purchases, oldest first),
    positive, negative_1, negative_2, ... (hard ones first). An item without a name goes by its id.

    The file appears when it is complete. InputError when the dataset cannot be used, OutputError when `output` is there
    and not to be overwritten, or cannot hold the ids.
    """
    files = open_split(dataset, split)
    if output.exists() and not overwrite:
        raise OutputError(
            f"{output} is there already.\nChoose another file, or replace it with {spell_option('overwrite')}."
        )
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        n_rows = (
            _write_inter(files, unfinished) if form == "inter" else _write_tuples(files, unfinished)
        )
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return n_rows


def _write_inter(files: SplitFiles, output: Path) -> int:
    n_rows = 0
    # Arrow's own header may be quoted, which RecBole takes for a part of the names.
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with output.open("wb") as file:
        for table in _inter(files):
            if not n_rows:
                file.write(("\t".join(table.column_names) + "\n").encode())
            try:
                csv.write_csv(table, file, options)
            except pa.ArrowInvalid as error:
                raise OutputError(
                    f"{files.folder}: a user_id or item_id has a tab, a quotation mark or a line break, which .inter files "
                    f"cannot hold ({error}).\nExport tuples, or build the dataset with other ids."
                ) from error
            n_rows += table.num_rows
    return n_rows


def _write_tuples(files: SplitFiles, output: Path) -> int:
    tables = _tuples(files)
    first = next(tables)
    n_rows = 0
    with pq.ParquetWriter(output, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)
            n_rows += table.num_rows
    return n_rows


def _inter(files: SplitFiles) -> Iterator[pa.Table]:
    users = read_table(files.folder / "user_sequences.parquet", ["user_id"])["user_id"]
    items = read_table(files.folder / "item_vocabulary.parquet", ["item_id"])["item_id"]
    reader = RowGroupReader(
        files, load_vocabularies(files.folder), ["user_id", "item_id", "timestamp"]
    )
    for row_group in files.row_groups:
        block = reader.read(row_group)
        user, time = block.user_features["user_index"].numpy(), block.metadata["timestamp"].numpy()
        yield pa.table(
            {
                "user_id:token": users.take(pa.array(np.repeat(user, block.width) - 1)),
                "item_id:token": items.take(
                    pa.array(block.item_features["item_index"].numpy().reshape(-1) - 1)
                ),
                "label:float": pa.array(
                    (block.metadata["slot"].numpy().reshape(-1) == 0).astype(np.float32)
                ),
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
        texts = {
            name: names.take(pa.array(item[:, place] - 1)) for place, name in enumerate(columns)
        }
        yield pa.table({"anchor": _anchors(block.user_features[SEQUENCE].numpy(), names), **texts})


def _anchors(sequence: np.ndarray, names: pa.ChunkedArray) -> pa.Array:
    """(n,) texts: the names of each row's latest items."""
    length = (sequence > 0).sum(axis=1)
    latest = (sequence > 0) & (np.arange(sequence.shape[1]) >= length[:, None] - _LATEST)
    offsets = np.concatenate([[0], np.cumsum(latest.sum(axis=1))]).astype(np.int32)
    chosen = names.take(pa.array(sequence[latest] - 1)).combine_chunks()
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), chosen), ", ")
