"""explain(): the pool that a positive's negatives came from, and whether they are those that were written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu_dcgen.auditing.explain import explain
from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError
from tests.support import reference
from tests.support.forgery import Forgery
from tests.support.reference.negatives import Miner
from tests.support.shops import random_shop, tiny_config, write_shop

SHOP = random_shop(3, n_users=20, n_items=26, n_rows=400, minutes=True)
REFUSALS = {"itself", "not_on_sale", "owned", "sibling", None}


def built(folder: Path, config) -> Path:
    write_shop(SHOP, folder / "input")
    build(folder / "input", folder / "output", config, backend="cpu", overwrite=True)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("explained"), tiny_config())


@pytest.fixture(scope="module")
def world() -> reference.World:
    return reference.build(SHOP, tiny_config())


@pytest.mark.parametrize(("split", "name"), list(enumerate(reference.SPLITS)))
def test_every_group_is_explained_as_it_was_written(split, name, shop, world):
    for group in range(0, len(world.positives[split]), 9):
        found = explain(shop / "output", f"{name}-{group:010d}-00", shop / "input")
        rows = world.rows[split][group * 6 : (group + 1) * 6]
        assert found.agrees
        assert (found.user_id, found.positive["item_id"]) == (
            rows[0]["user_id"],
            rows[0]["item_id"],
        )
        assert [one["item_id"] for one in found.negatives] == [row["item_id"] for row in rows[1:]]
        assert [one["detail"] for one in found.negatives] == [
            row["negative_detail"] for row in rows[1:]
        ]
        assert [one["similarity"] for one in found.negatives] == [
            row["similarity_score"] for row in rows[1:]
        ]
        assert found.history == rows[0]["user_total_purchases"]


def test_the_pool_says_who_offered_what_and_why_some_were_refused(shop, world):
    """The oracle's sources, ownership and scores, candidate by candidate."""
    miner = Miner(world.snapshots.log, tiny_config(), world.snapshots, world.neighbors)
    refusals = set()
    for group in range(0, len(world.positives[0]), 9):
        p = world.positives[0][group]
        found = explain(shop / "output", f"train-{group:010d}-00", shop / "input")
        together = miner.together(p)
        offers = {
            "item_cf": set(miner.item_cf(p.item)),
            "collaborative": set(together),
            "category_crossing": miner.crossing(p),
        }
        owned = world.snapshots.log.owned(p.user, world.cuts.end(0))
        assert {one["item_id"] for one in found.candidates} == {
            world.items[j] for j in set().union(*offers.values())
        }
        for one in found.candidates:
            j = world.items.index(one["item_id"])
            assert one["sources"] == [source for source, items in offers.items() if j in items]
            assert one["score"] * 2**32 == miner.score(p, j, together.get(j, 0))
            assert one["score"] == pytest.approx(sum(one["parts"].values()))
            assert (one["refused"] == "itself") == (j == p.item)
            assert one["refused"] != "owned" or j in owned
            assert one["refused"] is not None or j not in owned
            refusals.add(one["refused"])
        chosen = sorted(
            (one for one in found.candidates if one["round"]), key=lambda one: one["round"]
        )
        assert [one["item_id"] for one in chosen] == [
            one["item_id"] for one in found.negatives[: len(chosen)]
        ]
    assert refusals <= REFUSALS and {"owned", None} < refusals


def test_an_n_tuple_is_explained_too(tmp_path):
    folder = built(tmp_path, tiny_config(output={"shape": "n_tuple"}))
    assert explain(folder / "output", "val-0000000001-00", folder / "input").agrees
    with pytest.raises(InputError, match="last number of at most 0"):
        explain(folder / "output", "val-0000000001-01", folder / "input")


def test_a_negative_that_was_put_there_by_somebody_does_not_agree(tmp_path, world):
    folder = built(tmp_path, tiny_config(output={"groups_per_part": 10_000}))
    Forgery(folder / "output", world, 6).set(
        "train_dataset", "item_id", 3, world.rows[0][0]["item_id"]
    )
    found = explain(folder / "output", "train-0000000000-00", folder / "input")
    assert not found.agrees
    assert [one["slot"] for one in found.negatives if not one["agrees"]] == [3]
    result = run("explain", folder / "output", "train-0000000000-03", "--inputs", folder / "input")
    assert (
        result.exit_code == 3
        and "differs: " in result.stdout
        and "differ from those of the dataset" in result.stdout
    )


@pytest.mark.parametrize(
    "sample_id",
    ["train-12-03", "later-0000000000-00", "train-0000000000-06", "", "train-0000000000-00 "],
)
def test_what_is_no_sample_id_is_refused(sample_id, shop):
    with pytest.raises(
        InputError,
        match="is no sample_id of this dataset; expected one such as train-0000000012-03",
    ):
        explain(shop / "output", sample_id, shop / "input")


def test_a_group_that_is_not_there_is_refused(shop, world):
    with pytest.raises(
        InputError, match=rf"train has {len(world.positives[0])} groups, numbered from 0"
    ):
        explain(shop / "output", f"train-{len(world.positives[0]):010d}-00", shop / "input")


def test_other_inputs_are_refused(shop, tmp_path):
    write_shop(random_shop(4, n_users=20, n_items=26, n_rows=400, minutes=True), tmp_path / "input")
    with pytest.raises(InputError, match="the positive of this group is not the one that"):
        explain(shop / "output", "train-0000000000-00", tmp_path / "input")


def run(*args):
    return CliRunner().invoke(
        app, [str(arg) for arg in args], env={"COLUMNS": "160", "TERM": "dumb"}
    )


def test_the_command_shows_the_pool_and_the_negatives(shop, world):
    result = run("explain", shop / "output", "train-0000000004-02", "--inputs", shop / "input")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("How train-0000000004-02 came about")
    agrees = "The derived negatives are those of the dataset."
    for fact in ("by " + world.rows[0][24]["user_id"], "collaborative", "random", agrees):
        assert fact in result.stdout


def test_the_command_says_the_same_as_json(shop):
    result = run(
        "explain", shop / "output", "train-0000000004-02", "--inputs", shop / "input", "--json"
    )
    found = json.loads(result.stdout)
    assert found == json.loads(
        json.dumps(
            dataclasses.asdict(explain(shop / "output", "train-0000000004-02", shop / "input"))
        )
    )
    assert (found["group"], found["slot"], len(found["negatives"])) == (4, 2, 5)
