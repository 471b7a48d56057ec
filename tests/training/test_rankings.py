"""A ranking counts what it claims to count, and nothing from after the positive."""

from __future__ import annotations

import math

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training import rankings
from gpu_dcgen.training.groups import select_rows
from gpu_dcgen.training.rankings import (
    evaluate,
    load_evaluation,
    make_item_cf_scorer,
    make_popularity_scorer,
    make_recent_popularity_scorer,
    make_repurchase_scorer,
    rank,
)
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.training_datasets import get_dataset, read_item_index, read_rows

WEEK = 2 * 86_400 * 10**9  # the tiny shop's snapshots are 2 days apart


@pytest.fixture(scope="module")
def evaluation():
    return load_evaluation(get_dataset(), "val", n_positives=10**6, seed=0)


def test_the_rank_counts_what_is_better_and_of_equals_what_comes_first():
    scores = torch.tensor([[9.0, 0.5, 0.7, 0.5, 0.5], [9.0, 0.0, 0.0, 0.0, 1.0]])
    assert rank(scores, torch.tensor([3, 1])).tolist() == [3, 2]  # item 0 is padding
    assert rank(scores, torch.tensor([2, 4])).tolist() == [1, 1]


def test_recall_and_ndcg_are_means_over_positives(evaluation, monkeypatch):
    places = torch.tensor([1, 10, 11, 50, 51])
    monkeypatch.setattr(rankings, "rank", lambda scores, target: places)
    few = rankings.Evaluation(
        select_rows(evaluation.positives, slice(0, 5)),
        evaluation.target[:5],
        evaluation.catalog,
    )
    metrics = evaluate(lambda positives, snapshots: torch.zeros((5, 1)), few)
    assert metrics == {
        "recall@50": pytest.approx(4 / 5),
        "ndcg@10": pytest.approx((1 + 1 / math.log2(11)) / 5),
    }


def test_all_positives_of_the_split_are_ranked_or_a_seeded_choice(evaluation):
    items = read_item_index(get_dataset())
    wanted = [items[row["item_id"]] for row in read_rows(get_dataset(), "val") if row["label"] == 1]
    assert evaluation.target.tolist() == wanted
    some, same = (
        load_evaluation(get_dataset(), "val", n_positives=5, seed=1).target.tolist()
        for _ in range(2)
    )
    assert some == same and len(some) == 5


def test_the_catalog_has_for_each_snapshot_what_its_rows_say(evaluation):
    items, catalog = read_item_index(get_dataset()), evaluation.catalog
    stored = set()
    for row in read_rows(get_dataset(), "val"):
        snapshot, item = (row["timestamp"].value - catalog.first_ns) // WEEK, items[row["item_id"]]
        assert (
            catalog.features["item_popularity_score"][snapshot, item].item()
            == row["item_popularity_score"]
        )
        assert catalog.features["item_price_normalized"][snapshot, item].item() == (
            row["item_price_normalized"] or 0
        )
        stored.add((snapshot, item))
    known = {
        tuple(place) for place in torch.nonzero(catalog.features["item_popularity_score"]).tolist()
    }
    assert known <= stored


def test_popularity_counts_the_positives_of_training(evaluation):
    items, counts = read_item_index(get_dataset()), {}
    for row in read_rows(get_dataset()):
        if row["label"] == 1:
            counts[items[row["item_id"]]] = counts.get(items[row["item_id"]], 0) + 1
    scores = make_popularity_scorer(get_dataset())(
        select_rows(evaluation.positives, slice(0, 2)), None
    )
    assert scores.tolist() == [[counts.get(item, 0) for item in range(len(items) + 1)]] * 2


def test_recent_popularity_is_that_of_the_positives_snapshot(evaluation):
    snapshots = torch.tensor([20, 25])
    scores = make_recent_popularity_scorer(evaluation.catalog)(None, snapshots)
    assert torch.equal(scores, evaluation.catalog.features["item_popularity_score"][[20, 25]])


def test_repurchase_ranks_the_history_backwards_and_then_the_others():
    positives = {
        "label": torch.zeros(1, 1),
        "user_features": {"user_interaction_sequence": torch.tensor([[3, 1, 3, 2, 0]])},
    }
    scores = make_repurchase_scorer(lambda *_: torch.tensor([[0.0, 0.1, 9.0, 0.0, 5.0, 7.0]]))(
        positives, None
    )
    scores[:, 0] = -1
    assert scores.argsort(descending=True)[0].tolist() == [2, 3, 1, 5, 4, 0]


def test_item_cf_adds_up_the_similarities_to_the_history(evaluation):
    items = read_item_index(get_dataset())
    matrix = pq.read_table(get_dataset() / "item_similarity_matrix.parquet").to_pylist()
    similarity = {
        (items[row["item_id"]], items[row["similar_item_id"]]): row["similarity"] for row in matrix
    }
    scores_by_row = make_item_cf_scorer(get_dataset(), load_vocabularies(get_dataset()).items)(
        evaluation.positives, None
    )
    for scores, history in zip(
        scores_by_row,
        evaluation.positives["user_features"]["user_interaction_sequence"].tolist(),
        strict=True,
    ):
        for item in range(1, len(items) + 1):
            wanted = sum(similarity.get((bought, item), 0) for bought in set(history) - {0})
            assert scores[item].item() == pytest.approx(wanted, abs=1e-5)
    assert (scores_by_row > 0).any()
