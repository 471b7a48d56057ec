"""Measure what each column of a sample file costs to write, and other encodings of it.

    python -m tests.benchmarks.encodings                    columns, whole files, other libraries
    python -m tests.benchmarks.encodings --alternatives     row groups, codecs, other encodings
    python -m tests.benchmarks.encodings --json costs.json  writes what was printed

The encodings of `contract.schema.Column` follow from these figures. pyarrow's encoder is measured
too, which writes more encodings than ours. Rows are shaped like H&M's: 16 a group, 64 hex digits a
user id, 105,000 items of which 40,000 are on sale, chronological groups.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback import NumpyBackend, PartWriter
from gpu_dcgen.backend.blocks import Block, Codes, Lists, SampleIds, Values, Vocabulary
from gpu_dcgen.contract import schema as contract
from gpu_dcgen.digest import ContentDigest, vocabulary
from tests.support.arrow_part_writer import ArrowPartWriter

N_ITEMS, N_LIVE, N_USERS, ROWS_PER_GROUP = 105_000, 40_000, 200_000, 16
HARD, RANDOM = 5, 10
DAY_NS = 86_400 * 10**9
GROUPS_PER_DAY = 31_000
N_CATEGORIES = {
    "item_product_group": 19,
    "item_color_group": 50,
    "item_garment_group": 21,
    "item_department": 250,
    "item_index_group": 5,
    "user_age_group": 5,
    "user_club_status": 3,
    "user_news_frequency": 4,
}
REPEATS = 3  # runs; the best counts
# Encodings that our encoder writes.
OURS = {"sample_id": ("DELTA_BYTE_ARRAY",), "others": ("PLAIN", "DICTIONARY")}


class Shop:
    """What blocks look up: vocabularies, item and user features, one array of histories."""

    def __init__(self, backend: Any) -> None:
        rng = np.random.default_rng(7)
        words = {
            name: [f"{name[5:]} number {k}" for k in range(n)] for name, n in N_CATEGORIES.items()
        }
        words |= {
            "user_id": [rng.bytes(32).hex() for _ in range(N_USERS)],
            "item_id": [f"0{108_775_015 + 8_117 * k}" for k in range(N_ITEMS)],
            "season": contract.SEASONS,
            "negative_source": contract.NEGATIVE_SOURCES,
            "negative_detail": contract.NEGATIVE_DETAILS,
            "item_price_category": contract.PRICE_CATEGORIES,
        }
        self.vocabularies: dict[str, Vocabulary] = {
            name: vocabulary(pa.array(w), backend) for name, w in words.items()
        }
        self.live = np.sort(rng.choice(N_ITEMS, N_LIVE, replace=False)).astype(np.int32)
        weight = np.arange(1, N_LIVE + 1) ** -0.7
        self.popular = rng.permutation(N_LIVE), np.cumsum(weight / weight.sum())
        self.item_codes = {
            n: rng.integers(0, k, N_ITEMS, np.int32)
            for n, k in N_CATEGORIES.items()
            if n.startswith("item")
        }
        self.item_codes["item_price_category"] = rng.integers(0, 4, N_ITEMS, np.int32)
        self.user_codes = {
            n: rng.integers(-1, k, N_USERS, np.int32)
            for n, k in N_CATEGORIES.items()
            if n.startswith("user")
        }
        self.popularity = (np.log1p(rng.geometric(0.01, N_ITEMS)) / np.log1p(2000)).astype(
            np.float32
        )
        self.price = (np.rint(rng.gamma(2, 0.1, N_ITEMS).clip(0, 1) * 9000) / 9000).astype(
            np.float32
        )
        self.user_age = rng.integers(16, 80, N_USERS).astype(np.int16)
        self.history_length = np.minimum(400, rng.geometric(1 / 30, N_USERS) + 3)
        self.history_start = np.concatenate(([0], np.cumsum(self.history_length)[:-1]))
        self.history = self.live[rng.integers(0, N_LIVE, self.history_length.sum())]

    def make_block(self, first_group: int, n_groups: int) -> Block:
        rng = np.random.default_rng(first_group)
        group = np.arange(first_group, first_group + n_groups)
        day = group // GROUPS_PER_DAY
        user = np.sort(rng.integers(0, N_USERS // 40, n_groups) + N_USERS // 3).astype(np.int32)
        by_user = {"repeats": ROWS_PER_GROUP}
        order, shares = self.popular
        popular = order[
            np.minimum(np.searchsorted(shares, rng.random((n_groups, 1 + HARD))), N_LIVE - 1)
        ]
        slots = np.concatenate((popular, rng.integers(0, N_LIVE, (n_groups, RANDOM))), axis=1)
        item = self.live[slots].ravel()
        slot = np.tile(np.arange(ROWS_PER_GROUP), n_groups)
        hard, random = (slot > 0) & (slot <= HARD), slot > HARD
        detail = np.where(random, 4, np.where(hard, rng.integers(0, 4, len(slot)), -1)).astype(
            np.int8
        )
        end = (self.history_length[user] * rng.uniform(0.2, 1, n_groups)).astype(np.int64)
        length = np.minimum(50, end).astype(np.int32)
        timestamp = (18_000 + day) * DAY_NS
        similarity = rng.uniform(0.3, 0.8, len(slot)).astype(np.float32)
        channel = rng.integers(1, 3, n_groups).astype(np.int8)
        columns: dict[str, Any] = {
            "user_id": Codes(user, self.vocabularies["user_id"], **by_user),
            "user_age": Values(self.user_age[user], user % 50 > 0, **by_user),
            **{
                n: Codes(codes[user], self.vocabularies[n], **by_user)
                for n, codes in self.user_codes.items()
            },
            "user_lifetime_days": Values((user % 700).astype(np.int16), **by_user),
            "user_total_purchases": Values(end.astype(np.int32), **by_user),
            "user_avg_basket_size": Values((end / (1 + end // 3)).astype(np.float32), **by_user),
            "user_preferred_channel": Values((1 + user % 2).astype(np.int8), **by_user),
            "user_interaction_sequence": Lists(
                self.history, self.history_start[user] + end - length, length, **by_user
            ),
            "user_sequence_lengths": Values(length.astype(np.int16), **by_user),
            "item_id": Codes(item, self.vocabularies["item_id"]),
            **{n: Codes(codes[item], self.vocabularies[n]) for n, codes in self.item_codes.items()},
            "item_popularity_score": Values(self.popularity[item]),
            "item_price_normalized": Values(self.price[item]),
            "label": Values((slot == 0).astype(np.float32)),
            "timestamp": Values(timestamp, **by_user),
            "sales_channel": Values(channel, **by_user),
            "day_of_week": Values((day % 7).astype(np.int8), **by_user),
            "month": Values((1 + day // 30 % 12).astype(np.int8), **by_user),
            "season": Codes(
                (day // 91 % 4).astype(np.int8), self.vocabularies["season"], **by_user
            ),
            "negative_source": Codes(
                np.where(slot == 0, -1, hard).astype(np.int8), self.vocabularies["negative_source"]
            ),
            "similarity_score": Values(similarity, hard & (detail == 0)),
            "sample_id": SampleIds("train", first_group, n_groups, ROWS_PER_GROUP),
            "generation_timestamp": Values(np.full(n_groups, 1_767_225_600 * 10**9), **by_user),
            "sample_weight": Values(
                np.float32(0.5 + rng.integers(0, 4000, n_groups) / 1000).astype(np.float32),
                **by_user,
            ),
            "negative_detail": Codes(detail, self.vocabularies["negative_detail"]),
            "negative_log_q": Values(rng.normal(-8, 2, len(slot)).astype(np.float32), slot > 0),
            "is_repurchase": Values(user % 20 == 0, **by_user),
        }
        names = [column.name for column in contract.get_columns("train_dataset")]
        return Block(
            first_group * ROWS_PER_GROUP, len(slot), {name: columns[name] for name in names}
        )


def measure_writing(
    blocks: list[Block],
    schema: Any,
    settings: Any,
    folder: Path,
    part: int = 0,
    writer_type: type[PartWriter | ArrowPartWriter] = PartWriter,
) -> tuple[float, int]:
    """Return this thread's CPU seconds to write a part, and the part's bytes."""
    path = folder / f"part-{part:05d}.parquet"
    start = time.thread_time()
    with writer_type(path, schema, settings) as writer:
        for block in blocks:
            writer.write(block)
    return time.thread_time() - start, path.stat().st_size


def measure_digest(blocks: list[Block], backend: Any) -> float:
    start = time.thread_time()
    digest = ContentDigest()
    for block in blocks:
        digest.add(block, backend)
    return time.thread_time() - start


def measure_cost(
    blocks: list[Block],
    names: list[str],
    settings: Any,
    folder: Path,
    writer_type: type[PartWriter | ArrowPartWriter] = PartWriter,
) -> dict[str, float]:
    """Return CPU nanoseconds and bytes a row of some columns under the settings."""
    narrow = [_select_columns(block, names) for block in blocks]
    schema = pa.schema([contract.make_arrow_schema("train_dataset").field(name) for name in names])
    n_rows = sum(block.n_rows for block in blocks)
    runs = [
        measure_writing(narrow, schema, settings, folder, writer_type=writer_type)
        for _ in range(REPEATS)
    ]
    return {
        "ns_a_row": min(seconds for seconds, _ in runs) * 1e9 / n_rows,
        "bytes_a_row": runs[0][1] / n_rows,
    }


def _select_columns(block: Block, names: list[str]) -> Block:
    return dataclasses.replace(block, columns={name: block.columns[name] for name in names})


def measure_columns(
    blocks: list[Block], settings: Any, folder: Path, backend: Any
) -> dict[str, dict[str, float]]:
    table = {}
    n_rows = sum(block.n_rows for block in blocks)
    for name in blocks[0].columns:
        narrow = [_select_columns(block, [name]) for block in blocks]
        digest = min(measure_digest(narrow, backend) for _ in range(REPEATS)) * 1e9 / n_rows
        table[name] = {**measure_cost(blocks, [name], settings, folder), "digest_ns_a_row": digest}
    return table


def measure_throughput(
    blocks: list[Block], n_threads: int, settings: Any, folder: Path, backend: Any
) -> dict[str, float]:
    """Return rows a second of writers with a part each: by wall-clock and by CPU time."""
    schema = contract.make_arrow_schema("train_dataset")

    def write_part(part: int) -> tuple[float, float, int]:
        digest_s = measure_digest(blocks, backend)
        write_s, n_bytes = measure_writing(blocks, schema, settings, folder, part)
        return digest_s, write_s, n_bytes

    n_rows = sum(block.n_rows for block in blocks)
    wall_s, core_s = [], []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(REPEATS):
            start = time.perf_counter()
            parts = list(pool.map(write_part, range(n_threads)))
            wall_s.append(time.perf_counter() - start)
            core_s += [digest_s + write_s for digest_s, write_s, _ in parts]
    return {
        "rows_a_s": n_threads * n_rows / min(wall_s),
        "rows_a_core_s": n_rows / min(core_s),
        "digest_ns_a_row": parts[0][0] * 1e9 / n_rows,
        "bytes_a_row": parts[0][2] / n_rows,
    }


def measure_peers(folder: Path) -> dict[str, dict[str, float]]:
    """Write the same rows by other libraries from tables in memory, ZSTD 3; CPU time."""
    table = pq.read_table(folder / "part-00000.parquet")
    frame = pl.from_arrow(table)
    path = folder / "peer.parquet"
    writers = {
        "pyarrow": lambda: pq.write_table(
            table, path, compression="zstd", compression_level=3, row_group_size=131_072
        ),
        "polars": lambda: frame.write_parquet(
            path, compression="zstd", compression_level=3, row_group_size=131_072
        ),
    }
    figures = {}
    for name, write in writers.items():
        core_s = []
        for _ in range(REPEATS):
            start = time.process_time()
            write()
            core_s.append(time.process_time() - start)
        figures[name] = {
            "rows_a_core_s": table.num_rows / min(core_s),
            "bytes_a_row": path.stat().st_size / table.num_rows,
        }
    return figures


def measure_alternatives(
    blocks: list[Block], settings: Any, folder: Path
) -> dict[str, dict[str, float]]:
    """Measure columns under all their encodings, and the file under other settings."""
    table = {}
    numbers = ("PLAIN", "BYTE_STREAM_SPLIT")
    for column in contract.get_columns("train_dataset"):
        encodings = ["DICTIONARY"]
        if column.name == "sample_id":
            encodings = ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"]
        elif column.type == "bool":
            encodings = ["PLAIN"]
        elif column.type == "list[int]":
            encodings += [*numbers, "DELTA_BINARY_PACKED"]
        elif column.type not in ("string", "category"):
            encodings += numbers
        for encoding in encodings:
            for statistics in ((), (column.name,)):
                own = {} if encoding == "DICTIONARY" else {column.name: encoding}
                changed = dataclasses.replace(settings, encodings=own, statistics=statistics)
                key = f"{column.name} {encoding}{' with statistics' if statistics else ''}"
                table[f"{key}, pyarrow"] = measure_cost(
                    blocks, [column.name], changed, folder, ArrowPartWriter
                )
                if encoding in OURS.get(column.name, OURS["others"]):
                    table[key] = measure_cost(blocks, [column.name], changed, folder)
    names = list(blocks[0].columns)
    for label, change in {
        "file": {},
        "file, ZSTD 1": {"compression_level": 1},
        "file, ZSTD 6": {"compression_level": 6},
        "file, snappy": {"compression": "snappy", "compression_level": None},
        "file, row groups of 65,536": {"rows_per_row_group": 65_536},
        "file, row groups of 262,144": {"rows_per_row_group": 262_144},
        "file, all columns with statistics": {"statistics": tuple(names)},
        "file, no statistics": {"statistics": ()},
    }.items():
        table[label] = measure_cost(blocks, names, dataclasses.replace(settings, **change), folder)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=32_768)
    parser.add_argument("--groups-per-block", type=int, default=8_192)
    parser.add_argument("--alternatives", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backend = NumpyBackend(n_threads=1)
    shop = Shop(backend)
    blocks = [
        shop.make_block(g, options.groups_per_block)
        for g in range(0, options.groups, options.groups_per_block)
    ]
    settings = contract.make_writer_settings("train_dataset")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["columns"] = measure_columns(blocks, settings, folder, backend)
        if options.alternatives:
            results["alternatives"] = measure_alternatives(blocks, settings, folder)
        results["threads"] = {
            str(n): measure_throughput(blocks, n, settings, folder, backend) for n in (1, 2)
        }
        results["peers"] = measure_peers(folder)
    for section, rows in results.items():
        print(f"\n{section}")
        for key, figures in rows.items():
            values = "".join(f"{value:14,.2f} {unit}" for unit, value in figures.items())
            print(f"  {key:56s}{values}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
