"""Write the Parquet files that are not in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values, Vocabulary
from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..contract.schema import SPLITS, make_arrow_schema, make_writer_settings
from ..digest import ContentDigest, vocabulary
from ..inputs.entities import Category
from ..kernels.candidates import SCORE_ONE
from ..kernels.sources import SOURCES
from ..negative_sampler import gather_hard_tables
from ..quality_validator.metrics import QualityMetrics
from ..resources import DiskRateLimiter
from ..samples import ITEM_CATEGORIES, StageResults
from ..sequence_builder import UserSequences

# Rows of a block.
_MATRIX_ROWS = 1 << 17
_SEQUENCE_ROWS = 1 << 14
_CANDIDATE_ROWS = 1 << 19

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


def item_blocks(
    results: StageResults, metrics: QualityMetrics, backend: Backend
) -> Iterator[Block]:
    """Yield item_vocabulary: item_index 1..n with each item's id, static columns and counts."""
    log, tallies = results.interactions, metrics.tallies.get_vectors(SPLITS[0])
    order = backend.xp.argsort(results.item_codes, kind="stable")
    counts = {
        "n_train_positives": backend.from_host(tallies["positive_items"]),
        "n_train_hard_negatives": backend.from_host(tallies["hard_items"]),
    }
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
        **{name: Values(count[order].astype(backend.xp.int32)) for name, count in counts.items()},
    }
    yield Block(0, log.n_items, columns)


def candidate_blocks(
    results: StageResults, config: DatasetConfig, backend: Backend
) -> Iterator[Block]:
    """Yield hard_candidates: the lists by snapshot and item, each in its own order (D13)."""
    xp, lists = backend.xp, results.candidates.lists
    n_rows, sources = int(lists.item.shape[0]), vocabulary(SOURCES, backend)
    tables = gather_hard_tables(results, config, backend)
    neighbors, snapshots = tables.neighbors, results.features.snapshots
    # One more value than there are pairs: that of no pair.
    similarities = xp.concatenate([neighbors.similarity, xp.full(1, -1, dtype=xp.float32)])
    n_pairs, n_items = int(neighbors.similarity.shape[0]), results.interactions.n_items
    for first in range(0, max(1, n_rows), _CANDIDATE_ROWS):
        block = slice(first, min(n_rows, first + _CANDIDATE_ROWS))
        rows = xp.arange(block.start, block.stop, dtype=xp.int64)
        number = xp.searchsorted(lists.offsets, rows, side="right") - 1
        snapshot, place = lists.key[number] // n_items, rows - lists.offsets[number]
        item, candidate = lists.key[number] - snapshot * n_items, lists.item[block]
        rank, source = lists.rank[block].astype(xp.int64), lists.source[block]
        similarity = similarities[xp.where(rank >= 0, neighbors.offsets[item] + rank, n_pairs)]
        weight = tables.source_weight[source] * tables.mining_weight[candidate]
        is_own = (place >= lists.own_first[number]) & (place < lists.own_stop[number])
        price = snapshots.price[snapshot, candidate]
        columns: Columns = {
            "item_id": Codes(item, results.vocabularies["item_id"]),
            "snapshot": Values(snapshots.origin + snapshot * snapshots.step),
            "candidate_id": Codes(candidate, results.vocabularies["item_id"]),
            "source": Codes(source, sources),
            "score": Values(lists.score[block].astype(xp.float32) / SCORE_ONE),
            "similarity": Values(similarity, similarity >= 0),
            # At most 16 times 2^16.
            "weight": Values(weight.astype(xp.int32)),
            "is_own_group": Values(is_own),
            "popularity_score": Values(snapshots.popularity[snapshot, candidate]),
            "price_category": Codes(
                snapshots.price_category[snapshot, candidate],
                results.vocabularies["price_category"],
            ),
            "price_normalized": Values(price, price == price),
        }
        yield Block(first, int(rows.shape[0]), columns)
