"""Datasets for the tests of `gpu_dcgen.training`: a little shop in all three shapes, and what its files say."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_dcgen import build
from gpu_dcgen.contract.schema import SHAPES
from tests.support.shops import random_shop, tiny_config, write_shop

CHANNELS = {1: "offline", 2: "online", 7: "online"}


@cache
def built(shape: str = "labeled_pair") -> Path:
    """A dataset of many small row groups and parts; not to be written to (see `copied`)."""
    folder = Path(mkdtemp(prefix="gpu-dcgen-training-"))
    tables = write_shop(
        random_shop(3, n_users=24, n_items=30, n_rows=700, dates=(30, 60), minutes=True),
        folder / "in",
    )
    config = tiny_config(
        output={"shape": shape, "groups_per_part": 11, "groups_per_row_group": 4},
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


def copied(folder: Path, shape: str = "labeled_pair") -> Path:
    """A dataset of one's own, to be damaged."""
    return Path(shutil.copytree(built(shape), folder / shape))


def rows(dataset: Path, split: str = "train") -> list[dict[str, Any]]:
    """The split's rows, in file order."""
    return pq.read_table(dataset / f"{split}_dataset.parquet").to_pylist()


def item_index(dataset: Path) -> dict[str, int]:
    table = pq.read_table(dataset / "item_vocabulary.parquet").to_pydict()
    return dict(zip(table["item_id"], table["item_index"], strict=True))


def user_index(dataset: Path) -> dict[str, int]:
    users = pq.read_table(dataset / "user_sequences.parquet", columns=["user_id"])[
        "user_id"
    ].to_pylist()
    return {user: place for place, user in enumerate(users, 1)}


def change_json(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def accept_sizes(dataset: Path) -> None:
    """Let the manifest list the files' sizes as they are now: what was changed is no longer found by its size."""
    change_json(
        dataset / "manifest.json",
        lambda manifest: manifest["files"].update(
            {name: (dataset / name).stat().st_size for name in manifest["files"]}
        ),
    )


def parts(dataset: Path, split: str = "train") -> list[Path]:
    path = dataset / f"{split}_dataset.parquet"
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def lengthened(folder: Path, times: int) -> Path:
    """The labeled pairs with each row of the training split's first part `times` over, as one part of as many row groups."""
    dataset = copied(folder)
    first = parts(dataset)[0]
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
