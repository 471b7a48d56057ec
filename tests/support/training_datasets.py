"""Small datasets in all three shapes for tests of training, and readers of their files."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_dcgen import build
from gpu_dcgen.contract.schema import SHAPES
from tests.support.shops import random_shop, tiny_config, write_shop

_folder = TemporaryDirectory(prefix="gpu-dcgen-tests-")
CHANNELS = {1: "offline", 2: "online", 7: "online"}


def get_dataset(shape: str = "labeled_pair") -> Path:
    """Return a dataset of many small row groups and parts; to change one, use `copy_dataset`."""
    return _build_dataset(shape)


@cache
def _build_dataset(shape: str) -> Path:
    folder = Path(_folder.name) / shape
    tables = write_shop(
        random_shop(3, n_users=24, n_items=30, n_rows=700, dates=(30, 60), minutes=True),
        folder / "in",
    )
    config = tiny_config(
        output={
            "shape": shape,
            "groups_per_part": 11,
            "groups_per_row_group": 4,
            "hard_candidates": True,
        },
        negative_sampling={
            "random_negatives_per_positive": 4,
            "hard_negatives_per_positive": 2,
            "corpus": "all",
        },
        inputs={"channels": CHANNELS},
        filtering={"max_user_interactions": 40},
        seed=5,
    )
    build(tables, folder / "out", config)
    return folder / "out"


def copy_dataset(folder: Path, shape: str = "labeled_pair") -> Path:
    """Copy the dataset, to damage the copy."""
    return Path(shutil.copytree(get_dataset(shape), folder / shape))


def read_rows(dataset: Path, split: str = "train") -> list[dict[str, Any]]:
    """Read the rows of a split, in file order."""
    return pq.read_table(dataset / f"{split}_dataset.parquet").to_pylist()


def read_item_index(dataset: Path) -> dict[str, int]:
    table = pq.read_table(dataset / "item_vocabulary.parquet").to_pydict()
    return dict(zip(table["item_id"], table["item_index"], strict=True))


def read_user_index(dataset: Path) -> dict[str, int]:
    users = pq.read_table(dataset / "user_sequences.parquet", columns=["user_id"])[
        "user_id"
    ].to_pylist()
    return {user: place for place, user in enumerate(users, 1)}


def change_json(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def update_sizes(dataset: Path) -> None:
    """List the current sizes of the files in the manifest, which then finds no change by size."""
    change_json(
        dataset / "manifest.json",
        lambda manifest: manifest["files"].update(
            {name: (dataset / name).stat().st_size for name in manifest["files"]}
        ),
    )


def list_parts(dataset: Path, split: str = "train") -> list[Path]:
    path = dataset / f"{split}_dataset.parquet"
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def make_long_dataset(folder: Path, times: int) -> Path:
    """Copy the labeled pairs, with the first part of train repeated as `times` row groups."""
    dataset = copy_dataset(folder)
    first = list_parts(dataset)[0]
    table = pq.read_table(first)
    shutil.rmtree(dataset / "train_dataset.parquet")
    whole = dataset / "train_dataset.parquet"
    with pq.ParquetWriter(
        whole, table.schema, compression="zstd", write_page_index=False
    ) as writer:
        big = pa.concat_tables([table] * 256)
        for _ in range(times):
            writer.write_table(big, row_group_size=big.num_rows)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"] = {
            name: size
            for name, size in manifest["files"].items()
            if not name.startswith("train_dataset")
        }
        manifest["files"]["train_dataset.parquet"] = whole.stat().st_size
        manifest["counts"]["train"]["groups"] = times * big.num_rows // 7

    change_json(dataset / "manifest.json", change)
    return dataset


ALL_SHAPES = tuple(SHAPES)
