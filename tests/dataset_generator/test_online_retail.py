"""A whole build of a real shop at the defaults, checked from the raw rows with polars and NumPy,
not by our own code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cpu_fallback import NumpyBackend
from cpu_fallback.large_arrays import find_large_arrays
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.digest import digest_file

SPLITS = ("train", "val", "test")
WIDTH = 16  # a positive, 5 hard and 10 random negatives
USER, ITEM, TIME = "user_id", "item_id", "timestamp"


@dataclass
class RetailBuild:
    """The dataset, its manifest, and what the raw rows say."""

    folder: Path
    manifest: dict[str, Any]
    raw: pl.DataFrame  # user_id, item_id, timestamp, price, channel: every line
    filtered: pl.DataFrame  # the same columns: interactions of the k-core, by user, time and item

    def end(self, split: str) -> int:
        """The first nanosecond after the split's window."""
        windows = self.manifest["split"]["windows_ns"]
        return {"train": windows["cut1"], "val": windows["cut2"], "test": windows["last"] + 1}[
            split
        ]

    def rows(self, split: str, *columns: str) -> pl.DataFrame:
        return pl.read_parquet(self.folder / f"{split}_dataset.parquet", columns=list(columns))


def before(end: int) -> pl.Expr:
    return pl.col(TIME).cast(pl.Int64) < end


def k_core(log: pl.DataFrame) -> pl.DataFrame:
    """Users of 5 and items of 10 interactions, to the fixed point."""
    while True:
        n = log.height
        for key, least in ((USER, 5), (ITEM, 10)):
            log = log.filter(pl.len().over(key) >= least)
        if log.height == n:
            return log.sort(USER, TIME, ITEM)


@pytest.fixture(scope="module")
def retail(online_retail, tmp_path_factory) -> RetailBuild:
    result = build(online_retail, tmp_path_factory.mktemp("retail") / "output", backend="cpu")
    names = {"customer_id": USER, "article_id": ITEM, "t_dat": TIME, "sales_channel_id": "channel"}
    raw = (
        pl.read_parquet(online_retail / "transactions.parquet")
        .rename(names)
        .with_columns(pl.col("price").cast(pl.Float64))
    )
    collapsed = raw.group_by(USER, ITEM, TIME).agg(pl.col("price").max(), pl.col("channel").min())
    return RetailBuild(result.output, result.manifest.to_dict(), raw, k_core(collapsed))


def test_the_filter_keeps_what_the_raw_rows_say(retail):
    assert retail.manifest["vocabulary"] == {
        "users": retail.filtered[USER].n_unique(),
        "items": retail.filtered[ITEM].n_unique(),
    }
    n_distinct = retail.raw.select(USER, ITEM, TIME).unique().height
    ledger = retail.manifest["ledger"]
    assert ledger["collapsed"] == retail.raw.height - n_distinct
    assert ledger["cold_user"] + ledger["cold_item"] == n_distinct - retail.filtered.height


def test_every_raw_row_is_in_one_place(retail):
    ledger = dict(retail.manifest["ledger"])
    emitted = ledger.pop("emitted")
    assert sum(emitted.values()) + sum(ledger.values()) == retail.raw.height == 396_337
    assert {split: count["groups"] for split, count in retail.manifest["counts"].items()} == emitted


def test_shares_are_within_two_points(retail):
    counts = {split: retail.manifest["counts"][split]["groups"] for split in SPLITS}
    for split, wanted in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(counts[split] / sum(counts.values()) - wanted) < 0.02
    assert retail.manifest["negatives"]["violations"] == 0


@pytest.mark.parametrize("split", SPLITS)
def test_groups_are_one_purchase_and_fifteen_others(split, retail):
    rows = retail.rows(split, USER, ITEM, TIME, "label", "sample_id", "negative_source")
    n = rows.height // WIDTH
    assert rows.height == n * WIDTH == retail.manifest["counts"][split]["rows"]
    assert (rows["label"].to_numpy().reshape(n, WIDTH) == [1] + [0] * 15).all()
    assert (
        rows["negative_source"].cast(pl.String).to_list()[:WIDTH]
        == [None] + ["hard"] * 5 + ["random"] * 10
    )
    assert rows["sample_id"].to_list()[-1] == f"{split}-{n - 1:010d}-15"
    assert rows["sample_id"].n_unique() == rows.height
    group = pl.Series("group", np.repeat(np.arange(n), WIDTH))
    assert rows.select(ITEM).with_columns(group).unique().height == rows.height, (
        "an item is twice in a group"
    )
    positives = rows.filter(pl.col("label") == 1)
    assert positives[TIME].is_sorted()
    bought = positives.join(
        retail.filtered.filter(before(retail.end(split))), on=[USER, ITEM, TIME], how="semi"
    )
    assert bought.height == n


@pytest.mark.parametrize("split", SPLITS)
def test_no_negative_was_bought_before_the_window_ends(split, retail):
    negatives = retail.rows(split, USER, ITEM, "label").filter(pl.col("label") == 0).unique()
    bought = retail.raw.filter(before(retail.end(split))).select(USER, ITEM).unique()
    assert negatives.join(bought, on=[USER, ITEM], how="semi").height == 0
    later = negatives.join(retail.raw, on=[USER, ITEM], how="semi").height
    assert (later > 0) == (split != "test"), (
        "some are bought later: else the join would find nothing at all"
    )


def test_users_are_in_one_split(retail):
    users = [set(retail.rows(split, USER)[USER].unique()) for split in SPLITS]
    assert sum(map(len, users)) == len(set().union(*users))
    sequences = pl.read_parquet(retail.folder / "user_sequences.parquet", columns=[USER, "split"])
    in_split = {
        split: set(sequences.filter(pl.col("split").cast(pl.String) == split)[USER])
        for split in SPLITS
    }
    assert all(mine <= in_split[split] for mine, split in zip(users, SPLITS, strict=True))


@pytest.mark.parametrize("split", SPLITS)
def test_histories_hold_what_was_bought_strictly_before(split, retail):
    """Counts for every positive, the sequences themselves for 300 seeded ones."""
    columns = (
        USER,
        TIME,
        "label",
        "user_total_purchases",
        "user_sequence_lengths",
        "user_interaction_sequence",
    )
    positives = retail.rows(split, *columns).filter(pl.col("label") == 1)
    baskets = retail.filtered.group_by(USER, TIME, maintain_order=True).len()
    baskets = baskets.with_columns(
        (pl.col("len").cum_sum().over(USER) - pl.col("len")).alias("n_before")
    )
    known = positives.join(baskets, on=[USER, TIME], how="left", maintain_order="left")
    assert (known["user_total_purchases"] == known["n_before"]).all()
    assert (known["user_sequence_lengths"] == known["n_before"].clip(upper_bound=50)).all()
    index = dict(
        pl.read_parquet(retail.folder / "item_vocabulary.parquet").select(ITEM, "item_index").rows()
    )
    by_user = {
        user: list(zip(log[TIME], log[ITEM], strict=True))
        for (user,), log in retail.filtered.group_by(USER, maintain_order=True)
    }
    for user, time, sequence in (
        positives.sample(300, seed=7).select(USER, TIME, "user_interaction_sequence").iter_rows()
    ):
        assert sequence == [index[item] for bought, item in by_user[user] if bought < time][-50:]


@pytest.mark.parametrize("split", SPLITS)
def test_sampled_rows_were_on_sale_at_their_snapshot(split, retail):
    """Sold in the 90 days before the latest snapshot that is not after the purchase: weekly, from
    the first day's midnight.
    """
    first = retail.raw[TIME].min().replace(hour=0, minute=0)
    rows = retail.rows(split, ITEM, TIME).sample(2000, seed=11).with_row_index("row")
    weeks = (pl.col(TIME) - first).dt.total_days() // 7
    rows = rows.with_columns((pl.lit(first) + pl.duration(days=7 * weeks)).alias("snapshot")).drop(
        TIME
    )
    sales = rows.join(retail.filtered.select(ITEM, TIME), on=ITEM).filter(
        (pl.col(TIME) < pl.col("snapshot"))
        & (pl.col(TIME) >= pl.col("snapshot") - timedelta(days=90))
    )
    assert sales["row"].n_unique() == 2000


def test_similarities_are_those_of_the_raw_log(retail):
    """200 seeded pairs: weights channel x log(1 + price) x user IDF, rounded to the manifest's
    scale; and unrounded, nearby.
    """
    log = retail.filtered.filter(before(retail.end("train"))).filter(
        pl.len().over(USER) - pl.int_range(pl.len()).over(USER) <= 1000
    )
    channel = pl.when(pl.col("channel") == 2).then(1.2).otherwise(1.0)
    cells = (
        log.with_columns((channel * pl.col("price").log1p()).alias("weight"))
        .group_by(USER, ITEM)
        .agg(pl.col("weight").max())
    )
    idf = (cells[ITEM].n_unique() / pl.len().over(USER)).log()
    cells = cells.with_columns((pl.col("weight") * idf).alias("exact"))
    scale = 2.0 ** retail.manifest["similarity"]["scale_bits"]
    assert retail.manifest["similarity"]["nonzeros"] == cells.height
    cells = cells.with_columns((pl.col("exact") * scale).round().alias("rounded"))
    columns = {item: of_item for (item,), of_item in cells.group_by(ITEM)}
    pairs = pl.read_parquet(retail.folder / "item_similarity_matrix.parquet")
    for item, other, similarity, common in (
        pairs.sample(200, seed=3).select(pairs.columns[:4]).iter_rows()
    ):
        both = columns[item].join(columns[other], on=USER)
        assert both.height == common >= 5
        for weight, tolerance in (("rounded", 1e-6), ("exact", 1e-4)):
            norms = [np.sqrt((columns[i][weight].to_numpy() ** 2).sum()) for i in (item, other)]
            assert (
                abs(
                    (both[weight] * both[f"{weight}_right"]).sum() / (norms[0] * norms[1])
                    - similarity
                )
                < tolerance
            )


def test_files_on_disk_have_the_manifests_digests(retail):
    backend = NumpyBackend()
    for name, digests in retail.manifest["digests"].items():
        assert digest_file(retail.folder / f"{name}.parquet", backend) == digests


@pytest.mark.skipif(find_large_arrays() is None, reason="large arrays are in files on Linux alone")
def test_with_too_little_memory_arrays_are_in_files_and_the_content_is_the_same(
    retail, online_retail, tmp_path, monkeypatch
):
    saved, map_saved = [], NumpyBackend.map_saved

    def map_and_keep(backend, arrays, file):
        saved.extend((array, hashlib.sha256(array.data).digest()) for array, _ in arrays)
        map_saved(backend, arrays, file)

    monkeypatch.setattr(NumpyBackend, "map_saved", map_and_keep)
    config = DatasetConfig(resources={"memory_limit": "256MiB"})
    manifest = build(online_retail, tmp_path / "output", config, backend="cpu").manifest
    assert find_large_arrays().file_bytes > 10 << 20
    assert find_large_arrays().n_mapped > 10  # results, once they were checkpoints
    assert all(hashlib.sha256(array.data).digest() == digest for array, digest in saved)
    assert manifest.content_digest == retail.manifest["content_digest"]
