"""Stage 10: staging, the single Parquet files, JSON files, publication (D23)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Iterable, Iterator

from .backend import Backend
from .blocks import Block, Codes, Lists, Values, Vocabulary
from .config import DatasetConfig
from .contract import arrow_schema, writer_settings
from .digest import ContentDigest
from .errors import OutputError
from .samples import ITEM_CATEGORIES, Ingredients
from .sequence_builder import UserSequences

_MATRIX_ROWS = 1 << 20  # rows a block of item_similarity_matrix
_SEQUENCE_USERS = 1 << 16  # rows a block of user_sequences


class Staging:
    """A folder beside the output in which everything is written, and which becomes the output in one rename (D23)."""

    def __init__(self, output: Path, overwrite: bool) -> None:
        """Raises OutputError when the output is there and must not be replaced, or its parent cannot be written to."""
        self.output, self._overwrite = Path(os.path.abspath(output)), overwrite
        if self.output.exists() and not overwrite and not _is_empty_folder(self.output):
            raise OutputError(f"{output} is there already.\nChoose another OUTPUT, or replace it with --overwrite.")
        if (
            overwrite
            and self.output.is_dir()
            and not _is_empty_folder(self.output)
            and not (self.output / "manifest.json").exists()
        ):
            raise OutputError(
                f"{output} is there already and holds no data set (no manifest.json); --overwrite replaces data sets only.\n"
                "Choose another OUTPUT, or remove it yourself."
            )
        self.path = self.output.parent / f".{self.output.name}.staging-{secrets.token_hex(4)}"
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
        except OSError as error:
            raise OutputError(
                f"{self.output.parent}: cannot be written to ({error.strerror}).\nChoose another OUTPUT."
            ) from error

    def publish(self) -> None:
        """Flush every file to disk, then put the folder in the output's place; an old data set goes only after that."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                _flush(Path(folder) / name)
            _flush(Path(folder))
        old = None
        if self.output.is_dir() and _is_empty_folder(self.output):
            self.output.rmdir()
        elif self.output.exists():
            old = self.output.parent / f".{self.output.name}.old-{secrets.token_hex(4)}"
            self.output.rename(old)
        self.path.rename(self.output)
        _flush(self.output.parent)
        if old is not None:
            shutil.rmtree(old) if old.is_dir() else old.unlink()

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_file(path: Path, blocks: Iterable[Block], config: DatasetConfig, backend: Backend) -> ContentDigest:
    """Write one of the contract's single files from its blocks."""
    name = path.stem
    digest = ContentDigest()
    settings = writer_settings(name, compression_level=config.output.compression_level)
    with backend.part_writer(path, arrow_schema(name), settings) as writer:
        for block in blocks:
            digest.add(block, backend)
            writer.write(block)
    return digest


def similarity_blocks(have: Ingredients, backend: Backend) -> Iterator[Block]:
    """item_similarity_matrix: each item's neighbors by rank, from 1."""
    xp, neighbors, ids = backend.xp, have.neighbors, have.vocabularies["item_id"]
    n_rows = int(neighbors.item.shape[0])
    for first in range(0, max(1, n_rows), _MATRIX_ROWS):
        rows = xp.arange(first, min(n_rows, first + _MATRIX_ROWS), dtype=xp.int64)
        item = xp.searchsorted(neighbors.offsets, rows, side="right") - 1
        columns = {
            "item_id": Codes(item, ids),
            "similar_item_id": Codes(neighbors.item[rows], ids),
            "similarity": Values(neighbors.similarity[rows]),
            "common_users": Values(neighbors.common_users[rows]),
            "rank": Values((rows - neighbors.offsets[item] + 1).astype(xp.int32)),
        }
        yield Block(first, int(rows.shape[0]), columns)


def sequence_blocks(sequences: UserSequences, have: Ingredients, splits: Vocabulary, backend: Backend) -> Iterator[Block]:
    """user_sequences: one row a user, lists of equal length."""
    xp, log, calendar = backend.xp, have.interactions, have.calendar
    n_users = int(sequences.user.shape[0])
    for first in range(0, n_users, _SEQUENCE_USERS):
        users = slice(first, min(n_users, first + _SEQUENCE_USERS))
        offsets = sequences.offsets[first : users.stop + 1]
        start, length = offsets[:-1] - offsets[0], xp.diff(offsets).astype(xp.int32)
        elements = slice(int(offsets[0]), int(offsets[-1]))
        row = sequences.row[elements]
        day = calendar.rows(log.time[row])
        lists = {
            "item_indices": have.sequence_items[row],
            "timestamps": log.time[row],
            "session_ids": sequences.session[elements],
            "recency": sequences.recency[elements],
            "day_of_week_sin": calendar.week_angle[0][day],
            "day_of_week_cos": calendar.week_angle[1][day],
            "season_sin": calendar.year_angle[0][day],
            "season_cos": calendar.year_angle[1][day],
        }
        columns = {
            "user_id": Codes(sequences.user[users], have.vocabularies["user_id"]),
            "split": Codes(sequences.split[users], splits),
            **{name: Lists(values, start, length) for name, values in lists.items()},
            "sequence_length": Values(length.astype(xp.int16)),
        }
        yield Block(first, users.stop - first, columns)


def item_blocks(have: Ingredients, backend: Backend) -> Iterator[Block]:
    """item_vocabulary: item_index 1..n with each item's id and static columns."""
    log = have.interactions
    columns = {
        "item_index": Values(have.item_codes),
        "item_id": Codes(have.item_codes - 1, have.vocabularies["item_id"]),
        **{f"item_{name}": Codes(log.item_columns[name].codes, have.vocabularies[name]) for name in ITEM_CATEGORIES},
    }
    yield Block(0, log.n_items, columns)
