"""explain(): the candidates of a positive's negatives, and whether the negatives agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from gpu_dcgen.auditing import explain
from gpu_dcgen.errors import InputError
from tests.support import reference
from tests.support.audited_shops import build_shop
from tests.support.command_line import run
from tests.support.forgery import WIDTH, Forgery
from tests.support.reference.draw import inclusion
from tests.support.reference.negatives import Miner
from tests.support.shops import random_shop, tiny_config, write_shop

SHOP = random_shop(3, n_users=20, n_items=26, n_rows=400, minutes=True, views=True)
REFUSALS = {"itself", "not_on_sale", "sibling", "low_score", "owned", None}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    build_shop(SHOP, folder)
    return folder


@pytest.fixture(scope="module")
def world() -> reference.World:
    return reference.build(SHOP, tiny_config())


@pytest.mark.parametrize(("split", "name"), list(enumerate(reference.SPLITS)))
def test_every_group_is_explained_as_it_was_written(split, name, shop, world):
    for group in range(0, len(world.positives[split]), 9):
        explanation = explain(shop / "output", f"{name}-{group:010d}-00", shop / "input")
        positive, *negatives = world.rows[split][group * WIDTH : (group + 1) * WIDTH]
        assert explanation.agrees
        assert explanation.user_id == positive["user_id"]
        assert explanation.positive["item_id"] == positive["item_id"]
        assert explanation.history == positive["user_total_purchases"]
        for explained, row in zip(explanation.negatives, negatives, strict=True):
            assert explained["item_id"] == row["item_id"]
            assert explained["detail"] == row["negative_detail"]
            assert explained["similarity"] == row["similarity_score"]
            assert explained["log_q"] == row["negative_log_q"]


def test_candidates_have_their_sources_scores_and_refusals(shop, world):
    """Sources, scores, ownership and probabilities are those of the reference."""
    log, config = world.snapshots.log, tiny_config()
    miner = Miner(log, config, world.snapshots, world.neighbors, world.positives[0])
    refusals, seen = set(), set()
    for group in range(0, len(world.positives[0]), 9):
        p = world.positives[0][group]
        explanation = explain(shop / "output", f"train-{group:010d}-00", shop / "input")
        together = miner.candidates.together(p.item, p.snapshot)
        viewed = miner.candidates.viewed(p.item, p.snapshot)
        offers = {
            "item_cf": set(miner.candidates.item_cf(p.item)),
            "collaborative": set(together),
            "viewed": set(viewed),
            "category_crossing": miner.candidates.crossing(p.item, p.snapshot),
        }
        listed = {c.item for c in miner.candidates.listed(p.item, p.snapshot)}
        allowed = miner.hard.allowed(p)
        weights, probabilities = {}, {}
        for part in miner.hard.parts(p, allowed)[0]:
            weights |= part.weights
            probabilities |= inclusion(part)
        offered = {world.items[j] for j in set().union(*offers.values())}
        assert {candidate["item_id"] for candidate in explanation.candidates} == offered
        for candidate in explanation.candidates:
            j, refused = world.items.index(candidate["item_id"]), candidate["refused"]
            sources = [source for source, items in offers.items() if j in items]
            assert candidate["sources"] == sources
            seen |= set(sources)
            n_buyers = together.get(j, 0) + viewed.get(j, 0)
            assert candidate["buyers"] == n_buyers
            score = miner.candidates.score(p.item, p.snapshot, j, n_buyers)
            assert candidate["score"] * 2**14 == score
            total = sum(candidate["parts"].values())
            assert candidate["score"] == pytest.approx(total, abs=2**-15)
            assert (refused == "itself") == (j == p.item)
            assert (refused in ("owned", None)) == (j in listed)
            assert (refused is None) == (j in weights)
            if refused is None:
                a, b = probabilities[j]
                assert candidate["weight"] * 256 == weights[j]
                assert candidate["probability"] == a / b
            refusals.add(refused)
        drawn = [candidate for candidate in explanation.candidates if candidate["slot"]]
        drawn.sort(key=lambda candidate: candidate["slot"])
        negatives = explanation.negatives[: len(drawn)]
        assert [c["item_id"] for c in drawn] == [negative["item_id"] for negative in negatives]
    assert refusals <= REFUSALS and {"owned", None} < refusals
    assert seen == {"item_cf", "collaborative", "viewed", "category_crossing"}


def test_candidates_beyond_the_limit_of_a_list_are_refused_for_their_score(tmp_path):
    config = tiny_config(negative_sampling={"candidates": 2})
    build_shop(SHOP, tmp_path, config)
    explanation = explain(tmp_path / "output", "train-0000000030-00", tmp_path / "input")
    refusals = [candidate["refused"] for candidate in explanation.candidates]
    assert explanation.agrees and "low_score" in refusals
    assert sum(refusal in ("owned", None) for refusal in refusals) == 2


def test_a_greedy_choice_is_explained_without_weights(tmp_path):
    config = tiny_config(negative_sampling={"selection": "greedy"})
    build_shop(SHOP, tmp_path, config)
    world = reference.build(SHOP, config)
    explanation = explain(tmp_path / "output", "train-0000000030-00", tmp_path / "input")
    rows = world.rows[0][30 * WIDTH + 1 : 31 * WIDTH]
    assert explanation.agrees
    assert [n["item_id"] for n in explanation.negatives] == [row["item_id"] for row in rows]
    assert {candidate["weight"] for candidate in explanation.candidates} == {None}


def test_an_n_tuple_is_explained_too(tmp_path):
    build_shop(SHOP, tmp_path, tiny_config(output={"shape": "n_tuple"}))
    assert explain(tmp_path / "output", "val-0000000001-00", tmp_path / "input").agrees
    with pytest.raises(InputError, match="last number of at most 0"):
        explain(tmp_path / "output", "val-0000000001-01", tmp_path / "input")


def test_a_replaced_negative_does_not_agree(tmp_path, world):
    build_shop(SHOP, tmp_path, tiny_config(output={"groups_per_part": 10_000}))
    Forgery(tmp_path / "output", world, WIDTH).set(
        "train_dataset", "item_id", 3, world.rows[0][0]["item_id"]
    )
    explanation = explain(tmp_path / "output", "train-0000000000-00", tmp_path / "input")
    assert not explanation.agrees
    assert [negative["slot"] for negative in explanation.negatives if not negative["agrees"]] == [3]
    result = run(
        "explain", tmp_path / "output", "train-0000000000-03", "--inputs", tmp_path / "input"
    )
    assert (
        result.exit_code == 3
        and "differs: " in result.stdout
        and "differ from those of the dataset" in result.stdout
    )


def test_another_log_q_does_not_agree(tmp_path, world):
    build_shop(SHOP, tmp_path, tiny_config(output={"groups_per_part": 10_000}))
    Forgery(tmp_path / "output", world, WIDTH).set("train_dataset", "negative_log_q", 1, -0.125)
    explanation = explain(tmp_path / "output", "train-0000000000-00", tmp_path / "input")
    assert [negative["slot"] for negative in explanation.negatives if not negative["agrees"]] == [1]
    result = run(
        "explain", tmp_path / "output", "train-0000000000-00", "--inputs", tmp_path / "input"
    )
    assert result.exit_code == 3 and "differs" in result.stdout


def test_a_dataset_without_mining_weights_is_refused_with_a_way_out(tmp_path, world):
    build_shop(SHOP, tmp_path)
    forgery = Forgery(tmp_path / "output", world, WIDTH)
    table = forgery.table("item_vocabulary")
    forgery.write("item_vocabulary", table.drop_columns("mining_weight"))
    with pytest.raises(InputError, match=r"has no column mining_weight; expected one\.\nBuild"):
        explain(tmp_path / "output", "train-0000000000-00", tmp_path / "input")


@pytest.mark.parametrize(
    "sample_id",
    ["train-12-03", "later-0000000000-00", "train-0000000000-06", "", "train-0000000000-00 "],
)
def test_a_text_that_is_no_sample_id_is_refused(sample_id, shop):
    with pytest.raises(
        InputError,
        match="is no sample_id of this dataset; expected one such as train-0000000012-03",
    ):
        explain(shop / "output", sample_id, shop / "input")


def test_a_group_beyond_the_last_is_refused(shop, world):
    with pytest.raises(
        InputError, match=rf"train has {len(world.positives[0])} groups, numbered from 0"
    ):
        explain(shop / "output", f"train-{len(world.positives[0]):010d}-00", shop / "input")


def test_other_inputs_are_refused(shop, tmp_path):
    write_shop(random_shop(4, n_users=20, n_items=26, n_rows=400, minutes=True), tmp_path / "input")
    with pytest.raises(InputError, match="the positive of this group is not the one that"):
        explain(shop / "output", "train-0000000000-00", tmp_path / "input")


def test_the_command_shows_the_candidates_and_the_negatives(shop, world):
    result = run("explain", shop / "output", "train-0000000004-02", "--inputs", shop / "input")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("How train-0000000004-02 came about")
    agrees = "The derived negatives are those of the dataset."
    for fact in ("by " + world.rows[0][24]["user_id"], "collaborative", "random", agrees):
        assert fact in result.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_the_command_fits_the_terminal(columns, shop, world):
    arguments = ("explain", shop / "output", "train-0000000004-02", "--inputs", shop / "input")
    result = run(*arguments, columns=columns)
    assert max(map(len, result.stdout.splitlines())) <= columns
    for row in world.rows[0][4 * WIDTH + 1 : 5 * WIDTH]:
        assert row["item_id"] in result.stdout


def test_the_command_says_the_same_as_json(shop):
    result = run(
        "explain", shop / "output", "train-0000000004-02", "--inputs", shop / "input", "--json"
    )
    explanation = json.loads(result.stdout)
    assert explanation == json.loads(
        json.dumps(
            dataclasses.asdict(explain(shop / "output", "train-0000000004-02", shop / "input"))
        )
    )
    assert (explanation["group"], explanation["slot"], len(explanation["negatives"])) == (4, 2, 5)
