"""Defects seen in other tools, each a test of ours: false negatives, baskets that see themselves,
unseeded draws, hangs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.kernels import rng
from gpu_dcgen.kernels.arguments import Corpus, DrawTables, Ownership, PositiveRows
from gpu_dcgen.kernels.draws import MAX_TRIES, N_PLACES, N_STATES, ItemFilter, draw_random
from tests.dataset_generator.test_against_reference import read
from tests.support.shops import (
    DAY,
    TINY_SETTINGS,
    random_shop,
    set_options,
    tiny_config,
    write_shop,
)

N_ITEMS, N_OWNED, N_ROWS, N_DRAWN = 100, 90, 4000, 3


def drawn_for_a_heavy_owner() -> np.ndarray:
    """Random negatives (rows, 3) of a user who owns all of 100 items but those that end in 7."""
    owned = np.array([j for j in range(N_ITEMS) if j % 10 != 7], np.int32)
    assert len(owned) == N_OWNED
    negatives = np.full((N_ROWS, N_DRAWN), -1, np.int32)
    same = np.zeros(N_ROWS, np.int32)
    items = ItemFilter(np.zeros((1, N_PLACES), np.uint8), np.zeros((1, N_STATES), np.int32))
    draw_random.loop(
        0,
        N_ROWS,
        0,
        rng.purpose_key(1, rng.RANDOM_NEGATIVE),
        0,
        PositiveRows(
            user=same,
            item=same,
            time=np.arange(N_ROWS, dtype=np.int64),
            copy=same,
            snapshot=same.astype(np.int64),
            user_key=same.astype(np.uint64),
            item_key=same.astype(np.uint64),
            window_end=10,
        ),
        DrawTables(
            Corpus(
                offsets=np.array([0, N_ITEMS]),
                item=np.arange(N_ITEMS, dtype=np.int32),
                cell_item=np.empty(0, np.int32),
                cell_offsets=np.empty((0, 0), np.int32),
                n_groups=0,
            ),
            Ownership(np.array([0, N_OWNED]), owned, np.zeros(N_OWNED, np.int64)),
            product_code=np.full(N_ITEMS, -1, np.int32),
        ),
        items,
        negatives,
    )
    return negatives


def test_an_owner_of_ninety_of_a_hundred_items_gets_no_false_negative():
    negatives = drawn_for_a_heavy_owner()
    assert set(np.unique(negatives).tolist()) == {j for j in range(N_ITEMS) if j % 10 == 7}
    assert all(len(set(row)) == N_DRAWN for row in negatives.tolist())
    gives_up = (N_OWNED / N_ITEMS) ** MAX_TRIES
    assert N_ROWS * gives_up > 100, "the draw by rank is not exercised"


def test_draws_are_uniform_over_what_is_left():
    negatives = drawn_for_a_heavy_owner()
    for slot in range(N_DRAWN):
        counts = np.array(list(Counter(negatives[:, slot].tolist()).values()))
        expected = N_ROWS / 10
        assert len(counts) == 10
        assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square of 9 degrees: 0.1 %


@pytest.fixture(scope="module")
def dates_only(tmp_path_factory) -> tuple[dict, dict[str, dict[str, list]]]:
    """A shop with dates and large baskets, nothing filtered, and its dataset's columns by split."""
    folder = tmp_path_factory.mktemp("dates")
    tables = random_shop(7, n_users=16, n_items=24, n_rows=300, dates=(9, 40))
    config = tiny_config(filtering={"min_user_interactions": 1, "min_item_interactions": 1})
    write_shop(tables, folder / "input", unit="date")
    output = build(folder / "input", folder / "output", config, backend="cpu").output
    return tables, {
        name: read(output / f"{name}_dataset.parquet") for name in ("train", "val", "test")
    }


def test_history_never_sees_its_own_basket(dates_only):
    tables, splits = dates_only
    baskets = defaultdict(set)
    for line in tables["transactions"]:
        baskets[line["customer_id"], line["t_dat"] // DAY * DAY].add(line["article_id"])
    assert max(map(len, baskets.values())) > 2
    for columns in splits.values():
        for user, time, total in zip(
            columns["user_id"], columns["timestamp"], columns["user_total_purchases"], strict=True
        ):
            assert total == sum(
                len(items)
                for (owner, day), items in baskets.items()
                if owner == user and day < time
            )


def test_no_item_is_twice_in_a_group(dates_only):
    for columns in dates_only[1].values():
        groups = defaultdict(list)
        for item, sample in zip(columns["item_id"], columns["sample_id"], strict=True):
            groups[sample[:-3]].append(item)
        assert all(len(set(items)) == len(items) == 6 for items in groups.values())


def test_a_positive_is_described_as_a_negative_is(dates_only):
    """The same item at the same snapshot has the same popularity and price, whatever its label."""
    for columns in dates_only[1].values():
        seen = {}
        names = (
            "item_id",
            "timestamp",
            "item_popularity_score",
            "item_price_normalized",
            "item_price_category",
        )
        for item, time, *features in zip(*(columns[name] for name in names), strict=True):
            assert seen.setdefault((item, time), features) == features


def test_two_processes_draw_the_same_and_end(tmp_path):
    write_shop(random_shop(3, n_users=16, n_items=24, n_rows=260), tmp_path / "input")
    sets = set_options(TINY_SETTINGS)
    digests = set()
    for hash_seed in ("1", "2"):
        output = tmp_path / f"output{hash_seed}"
        command = [
            sys.executable,
            "-m",
            "gpu_dcgen",
            "build",
            str(tmp_path / "input"),
            str(output),
            "--quiet",
            *sets,
        ]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run(
            command, check=True, timeout=120, env=environment, cwd=Path(__file__).parents[2]
        )
        digests.add(json.loads((output / "manifest.json").read_text())["content_digest"])
    assert len(digests) == 1
