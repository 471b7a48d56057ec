"""Write a split for other trainers: RecBole, or sentence-transformers."""

from __future__ import annotations

import contextlib
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
from .groups import SEQUENCE
from .row_groups import RowGroupReader
from .vocabularies import load_vocabularies

_NS_PER_S = 10**9
_MAX_ANCHOR_ITEMS = 10  # latest purchases in an anchor


def export(
    dataset: Path,
    output: Path,
    form: Literal["inter", "tuples"],
    *,
    split: str = "train",
    overwrite: bool = False,
) -> int:
    """Write a split to a file, in its order; the file appears when it is complete.

    Args:
        dataset: Folder of the dataset.
        output: File to write.
        form: "inter" is RecBole's atomic file, tab-separated, with one row per sample:
            user_id:token, item_id:token, label:float, timestamp:float (seconds since 1970 UTC). It
            has negatives: set LABEL_FIELD to label.
            "tuples" is Parquet with one row per positive, all columns texts: anchor (names of the
            user's latest 10 purchases, oldest first), positive, negative_1, negative_2, ... (hard
            ones first). An item without a name has its id.
        split: "train", "val" or "test".
        overwrite: Whether to replace an existing file.

    Returns:
        The number of rows written.

    Raises:
        InputError: The dataset cannot be used.
        OutputError: `output` exists, cannot be written, or cannot hold the ids.

    Example:
        >>> export(Path("data/training"), Path("train.inter"), "inter")
        2377728
    """
    files = open_split(dataset, split)
    if output.exists() and not overwrite:
        raise OutputError(
            f"{output} already exists.\n"
            f"Choose another file, or replace it with {spell_option('overwrite')}."
        )
    write = _write_inter if form == "inter" else _write_tuples
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        n_rows = write(files, unfinished)
        unfinished.replace(output)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written ({error.strerror}).\n"
            "Name another file, or make room and its folder writable."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # where its folder is a file, it does not exist either
            unfinished.unlink(missing_ok=True)
    return n_rows


def _write_inter(files: SplitFiles, output: Path) -> int:
    n_rows = 0
    # Arrow would quote the header, and RecBole would take the quotes as part of the names.
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with output.open("wb") as file:
        for table in _make_inter_tables(files):
            if not n_rows:
                file.write(("\t".join(table.column_names) + "\n").encode())
            try:
                csv.write_csv(table, file, options)
            except pa.ArrowInvalid as error:
                raise OutputError(
                    f"{files.folder}: a user_id or item_id has a tab, a quotation mark or a line"
                    f" break, which .inter files cannot hold ({error}).\n"
                    "Export tuples, or build the dataset with other ids."
                ) from error
            n_rows += table.num_rows
    return n_rows


def _write_tuples(files: SplitFiles, output: Path) -> int:
    tables = _make_tuple_tables(files)
    first = next(tables)
    n_rows = 0
    with pq.ParquetWriter(output, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)
            n_rows += table.num_rows
    return n_rows


def _make_inter_tables(files: SplitFiles) -> Iterator[pa.Table]:
    users = read_table(files.folder / "user_sequences.parquet", ["user_id"])["user_id"]
    items = read_table(files.folder / "item_vocabulary.parquet", ["item_id"])["item_id"]
    vocabularies = load_vocabularies(files.folder)
    reader = RowGroupReader(files, vocabularies, ["user_id", "item_id", "timestamp"])
    for row_group in files.row_groups:
        groups = reader.read(row_group)
        user = np.repeat(groups.user_features["user_index"].numpy(), groups.width)
        item = groups.item_features["item_index"].numpy().reshape(-1)
        label = groups.metadata["slot"].numpy().reshape(-1) == 0
        seconds = groups.metadata["timestamp"].numpy() / _NS_PER_S
        yield pa.table(
            {
                "user_id:token": users.take(pa.array(user - 1)),
                "item_id:token": items.take(pa.array(item - 1)),
                "label:float": pa.array(label.astype(np.float32)),
                "timestamp:float": pa.array(np.repeat(seconds, groups.width)),
            }
        )


def _make_tuple_tables(files: SplitFiles) -> Iterator[pa.Table]:
    vocabulary = read_table(files.folder / "item_vocabulary.parquet", ["item_id", "item_name"])
    names = pc.coalesce(vocabulary["item_name"], vocabulary["item_id"])
    reader = RowGroupReader(files, load_vocabularies(files.folder), [SEQUENCE, "item_id"])
    columns = ["positive", *(f"negative_{place}" for place in range(1, files.width))]
    for row_group in files.row_groups:
        groups = reader.read(row_group)
        item = groups.item_features["item_index"].numpy()
        texts = {
            name: names.take(pa.array(item[:, place] - 1)) for place, name in enumerate(columns)
        }
        anchor = _make_anchors(groups.user_features[SEQUENCE].numpy(), names)
        yield pa.table({"anchor": anchor, **texts})


def _make_anchors(sequence: np.ndarray, names: pa.ChunkedArray) -> pa.Array:
    """Join the names of each row's latest items: (n,) texts."""
    length = (sequence > 0).sum(axis=1)
    place = np.arange(sequence.shape[1])
    is_latest = (sequence > 0) & (place >= length[:, None] - _MAX_ANCHOR_ITEMS)
    offsets = np.concatenate([[0], np.cumsum(is_latest.sum(axis=1))]).astype(np.int32)
    chosen = names.take(pa.array(sequence[is_latest] - 1)).combine_chunks()
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), chosen), ", ")
