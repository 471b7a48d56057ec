"""A log that grows, for tests of `append`: sixty days of a small shop, up to any day."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import BuildResult, append, build
from tests.support.shops import DAY, FIRST_DAY, Tables, random_shop, tiny_config, write_shop

VAL_FROM, TEST_FROM, TODAY = 30, 40, 52  # days of the shop, which has 60


def growing_config(strategy: str = "temporal", **more: Any) -> DatasetConfig:
    """Return a configuration under which later rows leave train and val alone."""
    split = {
        "strategy": strategy,
        "val_from": "2018-10-20",
        "test_from": "2018-10-30",
        **more.pop("split", {}),
    }
    filtering = {
        "counts": "window",
        "min_user_interactions": 4,
        "min_item_interactions": 4,
        **more.pop("filtering", {}),
    }
    output = {"groups_per_part": 40, **more.pop("output", {})}
    return tiny_config(split=split, filtering=filtering, output=output, **more)


def make_log(seed: int = 1) -> Tables:
    """Return sixty days of a shop; the last week adds a customer and an article.

    They are the first rows of their tables.
    """
    tables = random_shop(
        seed, n_users=18, n_items=24, n_rows=520, dates=(40, 60), minutes=True, views=True
    )
    bought = [row for row in tables["transactions"] if row["t_dat"] >= (FIRST_DAY + TODAY) * DAY]
    assert bought, "the shop has no last week: take another seed"
    someone, something = bought[0]["customer_id"], bought[0]["article_id"]
    for n in range(5):
        row = {**bought[n % len(bought)], "t_dat": (FIRST_DAY + TODAY + 1 + n) * DAY, "price": 7.5}
        tables["transactions"] += [
            {**row, "customer_id": "0 new", "article_id": something},
            {**row, "customer_id": someone, "article_id": "0000000new"},
            {**row, "customer_id": "0 new", "article_id": "0000000new"},
        ]
    tables["customers"].insert(
        0, {"customer_id": "0 new", "age": 33.0, "club_member_status": "ACTIVE"}
    )
    tables["articles"].insert(
        0, {"article_id": "0000000new", "product_group_name": "Shoes", "department_name": "Basics"}
    )
    return tables


def cut_log(tables: Tables, day: int) -> Tables:
    """Return the tables as of a day; new customers and articles come with a purchase."""
    end = (FIRST_DAY + day) * DAY
    then = {
        name: [row for row in tables[name] if row["t_dat"] < end]
        for name in ("transactions", "views")
    }
    for name, key, new in (
        ("customers", "customer_id", "0 new"),
        ("articles", "article_id", "0000000new"),
    ):
        bought = any(row[key] == new for row in then["transactions"])
        then[name] = [row for row in tables[name] if bought or row[key] != new]
    return then


def build_and_append(
    folder: Path, config: DatasetConfig, tables: Tables, before: Tables
) -> tuple[BuildResult, BuildResult, BuildResult]:
    """Return a build of `before`, a build of `tables`, and what append makes of the first."""
    old = build_once(before, folder / "before", folder / "dataset", config)
    whole = build_once(tables, folder / "now", folder / "whole", config)
    return old, whole, append(folder / "now", folder / "dataset", backend="cpu")


_built: dict[str, BuildResult] = {}
_folder = tempfile.TemporaryDirectory(prefix="gpu-dcgen-tests-")


def build_once(tables: Tables, inputs: Path, output: Path, config: DatasetConfig) -> BuildResult:
    """Write the tables to a folder and build a dataset; the same one is built once a process.

    Later ones are copies of the first.
    """
    key = json.dumps([tables, config.model_dump(mode="json")], sort_keys=True)
    write_shop(tables, inputs)
    if key not in _built:
        first = Path(_folder.name) / str(len(_built))
        _built[key] = build(inputs, first, config, backend="cpu")
    shutil.copytree(_built[key].output, output)
    return replace(_built[key], output=output)


def list_inodes(dataset: Path) -> dict[str, int]:
    return {
        file.relative_to(dataset).as_posix(): file.stat().st_ino
        for file in dataset.rglob("*.parquet")
        if file.is_file()
    }


def select_split(inodes: dict[str, int], split: str) -> dict[str, int]:
    return {name: inode for name, inode in inodes.items() if name.startswith(f"{split}_dataset")}


def select_rows(tables: Tables, first: int, last: int) -> list[dict[str, Any]]:
    """Return the purchases between two days."""
    return [row for row in tables["transactions"] if first <= row["t_dat"] / DAY - FIRST_DAY < last]
