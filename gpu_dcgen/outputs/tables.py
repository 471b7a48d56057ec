"""Write the Parquet files that are not in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values, Vocabulary
from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..contract.schema import make_arrow_schema, make_writer_settings
from ..digest import ContentDigest, vocabulary
from ..inputs.shop import Category
from ..resources import DiskRateLimiter
from ..samples import ITEM_CATEGORIES, StageResults
from ..sequence_builder import UserSequences

# Rows of a block.
_MATRIX_ROWS = 1 << 20
_SEQUENCE_ROWS = 1 << 16

Columns = dict[str, Values | Codes | Lists | Matrix | SampleIds]


def write_file(
    path: Path, blocks: Iterable[Block], config: DatasetConfig, backend: Backend
) -> ContentDigest:
    """Write one of the contract's single files from its blocks; return its digest."""
    name = path.stem
    digest = ContentDigest()
    settings = make_writer_settings(name, compression_level=config.output.compression_level)
    disk = DiskRateLimiter(config.resources.max_disk_rate)
    with backend.open_part_writer(path, make_arrow_schema(name), settings) as writer:
        for block in blocks:
            digest.add(block, backend)
            writer.write(block)
            disk.throttle(path)
    return digest


def similarity_blocks(results: StageResults, backend: Backend) -> Iterator[Block]:
    """Yield item_similarity_matrix: each item's neighbors by rank, from 1."""
    xp, neighbors, ids = backend.xp, results.neighbors, results.vocabularies["item_id"]
    n_rows = int(neighbors.item.shape[0])
    for first in range(0, max(1, n_rows), _MATRIX_ROWS):
        rows = xp.arange(first, min(n_rows, first + _MATRIX_ROWS), dtype=xp.int64)
        item = xp.searchsorted(neighbors.offsets, rows, side="right") - 1
        columns: Columns = {
            "item_id": Codes(item, ids),
            "similar_item_id": Codes(neighbors.item[rows], ids),
            "similarity": Values(neighbors.similarity[rows]),
            "common_users": Values(neighbors.common_users[rows]),
            "rank": Values((rows - neighbors.offsets[item] + 1).astype(xp.int32)),
        }
        yield Block(first, int(rows.shape[0]), columns)


def sequence_blocks(
    sequences: UserSequences, results: StageResults, splits: Vocabulary, backend: Backend
) -> Iterator[Block]:
    """Yield user_sequences: a row for each user, with lists of equal length."""
    xp, log, calendar = backend.xp, results.interactions, results.calendar
    n_users = int(sequences.user.shape[0])
    for first in range(0, n_users, _SEQUENCE_ROWS):
        users = slice(first, min(n_users, first + _SEQUENCE_ROWS))
        offsets = sequences.offsets[first : users.stop + 1]
        start, length = offsets[:-1] - offsets[0], xp.diff(offsets).astype(xp.int32)
        elements = slice(int(offsets[0]), int(offsets[-1]))
        row = sequences.row[elements]
        day = calendar.rows(log.time[row])
        lists = {
            "item_indices": results.sequence_items[row],
            "timestamps": log.time[row],
            "session_ids": sequences.session[elements],
            "recency": sequences.recency[elements],
            "day_of_week_sin": calendar.week_angle[0][day],
            "day_of_week_cos": calendar.week_angle[1][day],
            "season_sin": calendar.year_angle[0][day],
            "season_cos": calendar.year_angle[1][day],
        }
        columns: Columns = {
            "user_id": Codes(sequences.user[users], results.vocabularies["user_id"]),
            "split": Codes(sequences.split[users], splits),
            **{name: Lists(values, start, length) for name, values in lists.items()},
            "sequence_length": Values(length.astype(xp.int16)),
        }
        yield Block(first, users.stop - first, columns)


def _text(column: Category, order: Array, backend: Backend) -> Codes:
    return Codes(column.codes[order], vocabulary(column.values, backend))


def item_blocks(results: StageResults, backend: Backend) -> Iterator[Block]:
    """Yield item_vocabulary: item_index 1..n with each item's id and static columns."""
    log = results.interactions
    order = backend.xp.argsort(results.item_codes, kind="stable")
    columns: Columns = {
        "item_index": Values(results.item_codes[order]),
        "item_id": Codes(order.astype(results.item_codes.dtype), results.vocabularies["item_id"]),
        **{
            f"item_{name}": Codes(log.item_columns[name].codes[order], results.vocabularies[name])
            for name in ITEM_CATEGORIES
        },
        **{
            f"item_{name}": _text(log.item_columns[name], order, backend)
            for name in ("product_code", "section", "name")
        },
        "mining_weight": Values(results.candidates.mining_weight[order]),
    }
    yield Block(0, log.n_items, columns)
