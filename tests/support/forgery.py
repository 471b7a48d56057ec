"""Datasets that were tampered with, with manifests that match the changed files.

A defect is a function that changes a `Forgery`; `breaks` registers it under the rule of the
audit that must report it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback import NumpyBackend
from gpu_dcgen.digest import digest_file
from tests.support.reference import SPLITS, World
from tests.support.shops import tiny_config

TRAIN, VAL, TEST = (f"{split}_dataset" for split in SPLITS)
LARGE = 1_000_000
CONFIG = tiny_config(
    output={"groups_per_part": LARGE, "groups_per_row_group": LARGE, "hard_candidates": True},
    resources={"batch_size": LARGE},
)
WIDTH = 1 + CONFIG.negatives_per_positive
HARD, RANDOM = 1, WIDTH - 1  # slots

# Rule and defect; the function's name says what is wrong.
DEFECTS: list[tuple[str, Callable[[Forgery], None]]] = []


def breaks(rule: str) -> Callable[[Callable[[Forgery], None]], Callable[[Forgery], None]]:
    """Register the decorated defect under the rule that it breaks."""

    def register(defect: Callable[[Forgery], None]) -> Callable[[Forgery], None]:
        DEFECTS.append((rule, defect))
        return defect

    return register


class Forgery:
    """A dataset to be changed cell by cell; `world` is the reference's version of it."""

    def __init__(self, folder: Path, world: World, width: int) -> None:
        self.folder, self.world, self.width = folder, world, width

    def table(self, file: str) -> pa.Table:
        return pq.read_table(self.folder / f"{file}.parquet")

    def write(self, file: str, table: pa.Table) -> None:
        pq.write_table(table, self.folder / f"{file}.parquet")

    def set(self, file: str, column: str, row: int, value: Any) -> None:
        """Set one cell; a callable gets its present value."""
        self.set_rows(file, column, {row: value})

    def set_rows(self, file: str, column: str, changes: dict[int, Any]) -> None:
        table = self.table(file)
        place, field = table.schema.get_field_index(column), table.schema.field(column)
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        values = (
            table[column].cast(pa.int64()).to_pylist()
            if pa.types.is_timestamp(plain)
            else table[column].to_pylist()
        )
        for row, value in changes.items():
            values[row] = value(values[row]) if callable(value) else value
        array = pa.array(values, plain)
        self.write(
            file,
            table.set_column(
                place, field, array.dictionary_encode() if plain is not field.type else array
            ),
        )

    def take(self, file: str, rows: Callable[[list[int]], list[int]]) -> None:
        """Select rows, and their order."""
        table = self.table(file)
        self.write(file, table.take(rows(list(range(table.num_rows)))))

    def json(self, file: str, change: Callable[[dict], None]) -> None:
        path = self.folder / file
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), "utf-8")

    def replace_item(self, split: int, group: int, slot: int, item: int) -> None:
        """Replace the item of a row, with the features it had then."""
        world, positive = self.world, self.world.positives[split][group]
        file, row, k = f"{SPLITS[split]}_dataset", group * self.width + slot, positive.snapshot
        pattern = next(r for rows in world.rows for r in rows if r["item_id"] == world.items[item])
        cells = {name: value for name, value in pattern.items() if name.startswith("item_")}
        cells["item_popularity_score"] = float(world.snapshots.popularity(k, item))
        price = world.snapshots.normalized(k, item)
        cells["item_price_normalized"] = None if price is None else float(price)
        cells["item_price_category"] = world.snapshots.category(k, item)
        for name, value in cells.items():
            self.set(file, name, row, value)

    def update_manifest(self) -> None:
        """Update digests, sizes and the digest of the digests."""
        backend = NumpyBackend(1)

        def fit(manifest: dict) -> None:
            digests = {
                path.stem: digest_file(path, backend)
                for path in sorted(self.folder.glob("*.parquet"))
            }
            manifest["digests"] = digests
            manifest["content_digest"] = hashlib.sha256(
                json.dumps(digests, sort_keys=True).encode()
            ).hexdigest()
            for name in manifest["files"]:
                manifest["files"][name] = (self.folder / name).stat().st_size

        self.json("manifest.json", fit)


def set_group(f: Forgery, file: str, group: int, column: str, value: Any) -> None:
    """Set one column in all rows of a group."""
    f.set_rows(file, column, dict.fromkeys(range(group * WIDTH, (group + 1) * WIDTH), value))
