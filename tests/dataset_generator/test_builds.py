"""Whole builds: one seed gives one result, nothing later touches an earlier split, and every row is
accounted for (D8, D22).
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cpu_fallback import sorting
from gpu_dcgen.backend import runs
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import GateError
from gpu_dcgen.negative_sampler import candidates
from gpu_dcgen.negative_sampler.views import find_recent_views
from gpu_dcgen.outputs import part_writer
from gpu_dcgen.outputs import tables as table_blocks
from gpu_dcgen.samples import gather_groups
from tests.dataset_generator.test_against_reference import read
from tests.support.shops import DAY, Tables, random_shop, tiny_config, write_shop
from tests.support.strict_backend import StrictBackend

GOLDEN = "5617b6c1ef541e72c42d0fb56fd8b45c4c1491a7d0e03ddf03b8471830da9756"


def shop(seed: int = 4) -> Tables:
    return random_shop(seed, n_users=30, n_items=30, n_rows=700, minutes=True, views=True)


def built(tables: Tables, folder: Path, config: DatasetConfig | None = None, backend="cpu") -> dict:
    write_shop(tables, folder / "input")
    return build(
        folder / "input",
        folder / "output",
        config or tiny_config(),
        backend=backend,
        overwrite=True,
    ).manifest.to_dict()


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> dict:
    return built(shop(), tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("section", ["resources", "output"])
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_block_sizes_do_not_change_the_content(section, size, usual, tmp_path):
    sizes = {
        "resources": {"batch_size": size, "chunk_size": size},
        "output": {"groups_per_part": max(3, size), "groups_per_row_group": size},
    }
    assert (
        built(shop(), tmp_path, tiny_config(**{section: sizes[section]}))["digests"]
        == usual["digests"]
    )


def test_neither_chunks_nor_the_width_of_positions_change_the_content(usual, tmp_path, monkeypatch):
    """As of a log with more rows than 32 bits hold."""
    monkeypatch.setattr(runs, "CHUNK_ROWS", 7)
    monkeypatch.setattr(runs, "MAX_NARROW", 0)
    monkeypatch.setattr(sorting, "MAX_NARROW", 0)
    assert built(shop(), tmp_path)["digests"] == usual["digests"]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_threads_do_not_change_the_content(n_threads, usual, tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetConfig, "n_threads", property(lambda self: n_threads))
    manifest = built(shop(), tmp_path)
    assert manifest["backend"]["threads"] == n_threads
    assert manifest["digests"] == usual["digests"]


def test_order_of_input_rows_does_not_change_the_content(usual, tmp_path):
    tables = shop()
    for rows in tables.values():
        random.Random(1).shuffle(rows)
    assert built(tables, tmp_path)["digests"] == usual["digests"]


def test_a_machine_with_the_habits_of_a_gpu_gives_the_same_content(tmp_path):
    tables = random_shop(4, n_users=16, n_items=24, n_rows=300, minutes=True, views=True)
    config = tiny_config(output={"hard_candidates": True})
    strict = built(tables, tmp_path / "strict", config, backend=StrictBackend())
    assert "hard_candidates" in strict["digests"]
    assert strict["digests"] == built(tables, tmp_path / "usual", config)["digests"]


def test_lists_of_candidates_are_written_on_request_and_change_no_other_file(usual, tmp_path):
    assert "hard_candidates.parquet" not in usual["files"]
    manifest = built(shop(), tmp_path, tiny_config(output={"hard_candidates": True}))
    assert manifest["files"].keys() - usual["files"].keys() == {"hard_candidates.parquet"}
    del manifest["digests"]["hard_candidates"]
    assert manifest["digests"] == usual["digests"]


def test_lists_are_written_in_blocks_of_any_size(tmp_path, monkeypatch):
    config = tiny_config(output={"hard_candidates": True})
    whole = built(shop(), tmp_path / "whole", config)["digests"]["hard_candidates"]
    monkeypatch.setattr(table_blocks, "_CANDIDATE_ROWS", 7)
    assert built(shop(), tmp_path / "cut", config)["digests"]["hard_candidates"] == whole


def test_another_seed_is_another_data_set(usual, tmp_path):
    reseeded = built(shop(), tmp_path, tiny_config(seed=43))
    assert (
        reseeded["digests"]["train_dataset"]["item_id"]
        != usual["digests"]["train_dataset"]["item_id"]
    )
    assert (
        reseeded["digests"]["item_similarity_matrix"] == usual["digests"]["item_similarity_matrix"]
    )


def test_golden_digest(usual):
    """A change of these bytes breaks every user's dataset: say so in the CHANGELOG."""
    assert usual["content_digest"] == GOLDEN


def with_another_future(tables: Tables, cut: int, seed: int = 5) -> Tables:
    """The same log, but after `cut` other users bought what was bought, at other prices and in
    other channels.

    Rows per user, per item, per window and per time stay, and no two lines become one.
    """
    chance = random.Random(seed)
    lines = [dict(line) for line in tables["transactions"]]
    later = [line for line in lines if line["t_dat"] >= cut]
    for _ in range(20 * len(later)):
        a, b = chance.sample(later, 2)
        bought = {
            (line["customer_id"], line["t_dat"], line["article_id"])
            for line in later
            if line is not a and line is not b
        }
        swapped = {
            (a["customer_id"], a["t_dat"], b["article_id"]),
            (b["customer_id"], b["t_dat"], a["article_id"]),
        }
        if len(swapped) == 2 and not swapped & bought:
            a["article_id"], b["article_id"] = b["article_id"], a["article_id"]
    for line in later:
        line["price"] *= chance.choice((0.5, 1, 3))
        line["sales_channel_id"] = chance.choice((1, 2))
    views = [view for view in tables.get("views", []) if view["t_dat"] < cut]
    return {**tables, "transactions": lines, "views": views}


def what_train_knows(folder: Path, manifest: dict) -> dict:
    """Everything in a dataset that must depend on the train window alone."""
    sequences = read(folder / "output" / "user_sequences.parquet")
    train = [row for row, split in enumerate(sequences["split"]) if split == "train"]
    return {
        "train": manifest["digests"]["train_dataset"],
        "similarity": manifest["digests"]["item_similarity_matrix"],
        "sequences": {name: [values[row] for row in train] for name, values in sequences.items()},
        "balancing": manifest["balancing"],
        "prices": manifest["prices"],
    }


def distinct_shop() -> Tables:
    """A shop without duplicate lines, so that swapping items keeps the number of interactions."""
    tables, seen = shop(), set()
    lines = []
    for line in tables["transactions"]:
        key = (line["customer_id"], line["t_dat"], line["article_id"])
        if key not in seen:
            seen.add(key)
            lines.append(line)
    return {**tables, "transactions": lines}


def knowledge_in_two_futures(tmp_path: Path) -> tuple[dict, dict]:
    tables = distinct_shop()
    first = built(tables, tmp_path / "one")
    cut = first["split"]["windows_ns"]["cut1"]
    second = built(with_another_future(tables, cut), tmp_path / "two")
    assert second["digests"]["val_dataset"] != first["digests"]["val_dataset"], (
        "the future did not change"
    )
    return what_train_knows(tmp_path / "one", first), what_train_knows(tmp_path / "two", second)


def test_another_future_changes_nothing_in_train(tmp_path):
    first_future, second_future = knowledge_in_two_futures(tmp_path)
    for name in first_future:
        assert first_future[name] == second_future[name], name


def leak_similarity(log, cut1, *rest):
    return similarity(log, log.last_time + 1, *rest)


def leak_prices(log, cut1, *rest):
    return features(log, log.last_time + 1, *rest)


def leak_ownership(log, known, windows, *rest):
    plan = splits(log, known, windows, *rest)
    for positives in plan.positives:
        object.__setattr__(positives, "window_end", windows.last + 1)
    return plan


similarity, features, splits = (
    pipeline.compute_neighbors,
    pipeline.compute_features,
    pipeline.plan_splits,
)
LEAKS = {
    "compute_neighbors": leak_similarity,
    "compute_features": leak_prices,
    "plan_splits": leak_ownership,
}
SOURCES = {"compute_neighbors": similarity, "compute_features": features}


@pytest.mark.parametrize("stage", LEAKS)
def test_a_planted_leak_is_seen_by_another_future(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, stage, LEAKS[stage])
    monkeypatch.setattr("gpu_dcgen.quality_validator.report.require", lambda *_: None)
    first_future, second_future = knowledge_in_two_futures(tmp_path)
    assert first_future != second_future


@pytest.mark.parametrize("stage", LEAKS)
def test_a_planted_leak_stops_the_build(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, stage, LEAKS[stage])
    with pytest.raises(GateError, match="no_future_knowledge"):
        built(distinct_shop(), tmp_path)


@pytest.mark.parametrize("stage", SOURCES)
def test_a_leak_of_a_single_purchase_stops_the_build(stage, tmp_path, monkeypatch):
    tables, minute = distinct_shop(), 60_000_000_000
    cut = built(tables, tmp_path)["split"]["windows_ns"]["cut1"]
    tables["transactions"].append({**tables["transactions"][0], "t_dat": cut + minute})

    def one_more(log, cut1, *rest):
        assert cut1 == cut and ((log.time >= cut) & (log.time <= cut + minute)).sum() == 1
        return SOURCES[stage](log, cut + minute + 1, *rest)

    assert built(tables, tmp_path)["quality"]["verdict"] != "failed"
    monkeypatch.setattr(pipeline, stage, one_more)
    with pytest.raises(GateError, match="no_future_knowledge: .* is 1, expected <= 0"):
        built(tables, tmp_path)


def see_the_own_basket(group):
    group.history_start[0] += 1


def take_another_purchase(group):
    group.row[0] += 1


def draw_twice(group):
    group.item[0, 2] = group.item[0, 1]


@pytest.mark.parametrize(
    ("gate", "leak"),
    [
        ("no_future_history", see_the_own_basket),
        ("temporal_order", take_another_purchase),
        ("no_duplicates", draw_twice),
    ],
)
def test_a_defect_in_a_single_group_stops_the_build(gate, leak, tmp_path, monkeypatch):
    def faulty(positives, rows, *rest):
        group = gather_groups(positives, rows, *rest)
        if positives.split == "val" and rows.start == 0:
            leak(group)
        return group

    monkeypatch.setattr(part_writer, "gather_groups", faulty)
    with pytest.raises(GateError, match=rf"{gate}: .* is 1, expected <= 0"):
        built(shop(), tmp_path)


@pytest.mark.parametrize("has_leak", [False, True], ids=["as of", "leak"])
def test_later_views_change_no_earlier_split(has_leak, tmp_path, monkeypatch):
    """Views of val and test are all others. One of the day after a snapshot is a leak."""

    def find_too_late(views, period, *rest):
        return find_recent_views(views, (period[0], period[1] + 2 * DAY), *rest)

    tables, chance = shop(), random.Random(3)
    if has_leak:
        monkeypatch.setattr(candidates, "find_recent_views", find_too_late)
    first = built(tables, tmp_path / "one")
    cuts = first["split"]["windows_ns"]
    for view in tables["views"]:
        if view["t_dat"] >= cuts["cut1"]:
            view["article_id"] = chance.choice(tables["articles"])["article_id"]
    second = built(tables, tmp_path / "two")
    is_same = {
        name: first["digests"][name] == second["digests"][name]
        for name in ("train_dataset", "item_similarity_matrix", "val_dataset", "test_dataset")
    }
    assert is_same == {
        "train_dataset": not has_leak,
        "item_similarity_matrix": True,
        "val_dataset": False,
        "test_dataset": False,
    }


def test_every_accepted_row_is_in_one_place(usual):
    ledger = dict(usual["ledger"])
    assert (
        sum(ledger.pop("emitted").values()) + sum(ledger.values())
        == usual["inputs"]["accepted_transactions"]
    )


def test_users_are_in_one_split_and_negatives_in_nobodys_past(tmp_path):
    manifest = built(shop(), tmp_path)
    windows, users = manifest["split"]["windows_ns"], {}
    for name, end in (
        ("train", windows["cut1"]),
        ("val", windows["cut2"]),
        ("test", windows["last"] + 1),
    ):
        columns = read(tmp_path / "output" / f"{name}_dataset.parquet")
        users[name] = set(columns["user_id"])
        bought = {
            (line["customer_id"], line["article_id"])
            for line in shop()["transactions"]
            if line["t_dat"] < end
        }
        rows = list(
            zip(
                columns["user_id"],
                columns["item_id"],
                columns["label"],
                columns["sample_id"],
                strict=True,
            )
        )
        assert not {(user, item) for user, item, label, _ in rows if label == 0} & bought
        assert {label for *_, label, sample in rows if sample.endswith("-00")} == {1}
        assert (
            sum(label for *_, label, _ in rows) * 6 == len(rows) == manifest["counts"][name]["rows"]
        )
    assert (
        not users["train"] & users["val"]
        | users["train"] & users["test"]
        | users["val"] & users["test"]
    )


def test_rows_are_in_the_order_of_time(tmp_path):
    built(shop(), tmp_path)
    for name in ("train", "val", "test"):
        time = read(tmp_path / "output" / f"{name}_dataset.parquet")["timestamp"]
        assert time == sorted(time)


def test_parts_are_read_as_one_table(tmp_path):
    manifest = built(shop(), tmp_path)
    folder = tmp_path / "output" / "train_dataset.parquet"
    assert folder.is_dir()
    assert pq.read_table(folder).num_rows == manifest["counts"]["train"]["rows"]


@pytest.mark.parametrize("mode", ["weights", "resample"])
def test_shares_are_those_of_the_rows_written(mode, tmp_path):
    manifest = built(shop(), tmp_path, tiny_config(category_balancing={"mode": mode}))
    groups = {name: split["groups"] for name, split in manifest["counts"].items()}
    shares = manifest["split"]["shares"]
    assert {name: share["positives"] for name, share in shares.items()} == groups
    assert sum(share["share"] for share in shares.values()) == pytest.approx(1)
