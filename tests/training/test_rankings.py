"""A ranking counts what it claims to count, and nothing from after the positive."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training import rankings
from gpu_dcgen.training.groups import SEQUENCE
from gpu_dcgen.training.history import compute_in_history
from gpu_dcgen.training.probe import _load
from gpu_dcgen.training.rankings import (
    compute_values,
    list_positives,
    make_item_cf_scorer,
    make_model_scorer,
    make_popularity_scorer,
    make_recent_popularity_scorer,
    make_repurchase_scorer,
    rank,
    rank_positives,
)
from gpu_dcgen.training.two_tower import ITEM_NUMBERS, TwoTower
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.training_datasets import (
    get_dataset,
    read_item_index,
    read_rows,
    read_user_index,
)


@pytest.fixture(scope="module")
def loaded():
    return _load(get_dataset(), load_vocabularies(get_dataset()), n_positives=10**6, seed=0)


def test_the_rank_counts_what_is_better_and_of_equals_what_comes_first():
    scores = torch.tensor([[9.0, 0.5, 0.7, 0.5, 0.5], [9.0, 0.0, 0.0, 0.0, 1.0]])
    history = torch.tensor([[2, 0, 0], [3, 1, 0]])
    places = rank(scores, torch.tensor([3, 2]), history)  # item 0 is padding
    assert places.among_all.tolist() == [3, 3]
    assert places.among_new.tolist() == [2, 2]


def test_the_metrics_are_those_of_the_place():
    values = compute_values(torch.tensor([1, 10, 11, 50, 51]))
    assert values["recall@10"].tolist() == [1, 1, 0, 0, 0]
    assert values["recall@50"].tolist() == [1, 1, 1, 1, 0]
    assert values["ndcg@10"].tolist() == pytest.approx([1, 1 / math.log2(11), 0, 0, 0])


def test_baskets_are_the_positives_of_a_user_and_time(loaded):
    items, users = read_item_index(get_dataset()), read_user_index(get_dataset())
    expected, before = defaultdict(list), {}
    for row in read_rows(get_dataset(), "val"):
        if row["label"] == 1:
            key = (users[row["user_id"]], tuple(row[SEQUENCE]))
            expected[key].append(items[row["item_id"]])
            before[key, items[row["item_id"]]] = row["is_repurchase"]
    baskets = loaded[1]["val"].baskets
    ranks = defaultdict(list)
    for k in range(len(baskets)):
        key = (
            int(baskets.user[k]),
            tuple(x for x in baskets.user_features[SEQUENCE][k].tolist() if x),
        )
        positives, place = baskets.find_positives(torch.tensor([k]))
        assert (place == 0).all()
        ranks[key] += baskets.item[positives].tolist()
        for item, is_again in zip(
            baskets.item[positives].tolist(), baskets.is_repurchase[positives].tolist(), strict=True
        ):
            assert is_again == before[key, item]
    assert {key: sorted(values) for key, values in ranks.items()} == {
        key: sorted(values) for key, values in expected.items()
    }


def test_the_catalog_has_for_each_snapshot_what_the_rows_of_all_splits_say(loaded):
    items, catalog = read_item_index(get_dataset()), loaded[0].catalog
    stored = set()
    for split in ("train", "val", "test"):
        for row in read_rows(get_dataset(), split):
            snapshot = int(catalog.grid.find(torch.tensor(row["timestamp"].value)))
            item = items[row["item_id"]]
            numbers = dict(zip(ITEM_NUMBERS, catalog.numbers[snapshot, item].tolist(), strict=True))
            assert numbers["item_popularity_score"] == row["item_popularity_score"]
            assert numbers["item_price_normalized"] == (row["item_price_normalized"] or 0)
            stored.add((snapshot, item))
    on_sale = {tuple(place) for place in torch.nonzero(catalog.is_on_sale).tolist()}
    assert on_sale == stored


def test_all_positives_of_the_split_are_ranked_by_what_is_on_sale(loaded):
    evaluation = loaded[1]["test"]
    catalog = evaluation.catalog
    scores = torch.rand(catalog.n_items + 1, generator=torch.Generator().manual_seed(0))
    places = rank_positives(
        lambda features, _: scores.repeat(len(features[SEQUENCE]), 1), evaluation
    )
    positives = list_positives(evaluation).tolist()
    baskets = evaluation.baskets
    assert sorted(positives) == list(range(len(baskets.item)))
    for at, positive in enumerate(positives):
        basket = int(torch.searchsorted(baskets.offsets, positive, right=True)) - 1
        on_sale = torch.nonzero(catalog.is_on_sale[baskets.snapshot[basket]])[:, 0].tolist()
        history = set(baskets.user_features[SEQUENCE][basket].tolist())
        target = int(baskets.item[positive])
        better = [item for item in on_sale if scores[item] > scores[target]]
        assert places.among_all[at] == 1 + len(better)
        assert places.among_new[at] == 1 + len(set(better) - history)


def test_popularity_counts_the_positives_of_training(loaded):
    items = read_item_index(get_dataset())
    counts = Counter(items[row["item_id"]] for row in read_rows(get_dataset()) if row["label"] == 1)
    data = loaded[0]
    scores = make_popularity_scorer(data.baskets, data.catalog)({SEQUENCE: torch.zeros(2, 3)}, 0)
    assert scores.tolist() == [[counts.get(item, 0) for item in range(len(items) + 1)]] * 2


def test_recent_popularity_is_that_of_the_snapshot(loaded):
    catalog = loaded[0].catalog
    scores = make_recent_popularity_scorer(catalog)({SEQUENCE: torch.zeros(1, 3)}, 20)
    column = ITEM_NUMBERS.index("item_popularity_score")
    assert torch.equal(scores[0], catalog.numbers[20, :, column]) and scores.any()


def test_repurchase_ranks_the_history_backwards_and_then_the_others():
    features = {SEQUENCE: torch.tensor([[3, 1, 3, 2, 0]])}
    fallback = torch.tensor([[0.0, 0.1, 9.0, 0.0, 5.0, 7.0]])
    scores = make_repurchase_scorer(lambda *_: fallback)(features, 0)
    scores[:, 0] = -1
    assert scores.argsort(descending=True)[0].tolist() == [2, 3, 1, 5, 4, 0]


def test_item_cf_adds_up_the_similarities_to_the_history(loaded):
    items = read_item_index(get_dataset())
    matrix = pq.read_table(get_dataset() / "item_similarity_matrix.parquet").to_pylist()
    similarity = {
        (items[row["item_id"]], items[row["similar_item_id"]]): row["similarity"] for row in matrix
    }
    features = loaded[1]["val"].baskets.user_features
    scorer = make_item_cf_scorer(get_dataset(), load_vocabularies(get_dataset()).items)
    all_scores = scorer(features, 0)
    for scores, history in zip(all_scores, features[SEQUENCE].tolist(), strict=True):
        for item in range(1, len(items) + 1):
            expected = sum(similarity.get((bought, item), 0) for bought in set(history) - {0})
            assert scores[item].item() == pytest.approx(expected, abs=1e-5)
    assert (all_scores > 0).any()


@pytest.mark.parametrize("has_history", [True, False])
def test_a_model_scores_an_item_as_its_vectors_and_its_place_in_the_history_say(
    loaded, has_history
):
    data, evaluation = loaded[0], loaded[1]["val"]
    torch.manual_seed(0)
    model, catalog = TwoTower(data.sizes, d=4).eval(), data.catalog
    features = {name: tensor[:9] for name, tensor in evaluation.baskets.user_features.items()}
    with torch.no_grad():
        scores = make_model_scorer(model, catalog, has_history=has_history)(features, 25)
        everything = torch.arange(catalog.n_items + 1)
        users = model.encode_users(features)
        expected = users @ model.encode_items(catalog.select(everything, 25)).T
        if has_history:
            in_history = compute_in_history(features[SEQUENCE], everything)
            expected = expected + model.score_history(in_history)
    assert torch.allclose(scores[:, 1:], expected[:, 1:], atol=1e-5)
    assert rankings.METRICS == ("recall@10", "recall@50", "ndcg@10")
