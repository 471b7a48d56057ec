"""The probe's losses are those of the loader and of `info_nce`."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training import recipes
from gpu_dcgen.training.in_batch import InBatch
from gpu_dcgen.training.losses import info_nce
from gpu_dcgen.training.probe import _load
from gpu_dcgen.training.recipes import Recipe, TrainSettings
from gpu_dcgen.training.stream import ContrastiveStream
from gpu_dcgen.training.two_tower import TwoTower
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.training_datasets import get_dataset
from tests.training.test_in_batch import with_log_q

SETTINGS = TrainSettings(temperature=0.7, d=8)


@pytest.fixture(scope="module")
def data():
    vocabularies = load_vocabularies(get_dataset())
    data, _ = _load(get_dataset(), vocabularies, n_positives=10**6, seed=0)
    baskets = data.baskets
    slot = torch.arange(1, baskets.negatives.shape[1] + 1)
    log_q = torch.where(slot > data.n_hard, -3.0, -1.5 * slot).expand(baskets.negatives.shape)
    return data._replace(baskets=replace(baskets, log_q=log_q))


@pytest.mark.parametrize("n_hard", [0, 2])
@pytest.mark.parametrize(("from_batch", "n_random"), [(True, 0), (True, 4), (False, 4)])
def test_the_loss_on_baskets_is_that_of_the_loader(data, n_hard, n_random, from_batch):
    torch.manual_seed(0)
    model = TwoTower(data.sizes, d=8)
    recipe = Recipe(has_in_batch=from_batch, has_random=n_random > 0, hard=0 if n_hard else None)
    shares = recipes._count_shares(data, recipe)
    collate = with_log_q(InBatch(get_dataset(), from_batch=from_batch), -1.5, -3.0)
    stream = ContrastiveStream(
        get_dataset(),
        batch_size=10**4,
        window=10**4,
        n_hard=n_hard,
        n_random=n_random,
        collate=collate,
    )
    n_batches = 0
    for batch in stream:
        snapshot = data.catalog.grid.find(batch["metadata"]["timestamp"])[0]
        chosen = torch.nonzero(data.baskets.snapshot == snapshot)[:, 0]
        assert int(data.baskets.offsets.diff()[chosen].sum()) == len(batch["label"])
        loss = recipes._compute_loss(model, data, recipe, chosen, shares, SETTINGS)
        expected = info_nce(
            model.encode_users(batch["user_features"]),
            model.encode_items(batch["item_features"]),
            batch,
            temperature=0.7,
            score_history=model.score_history,
        )
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
        n_batches += 1
    assert n_batches > 5


def test_a_source_of_hard_negatives_leaves_the_others_out(data):
    code = int(data.baskets.detail[0, 0])
    positives = torch.arange(len(data.baskets.item))
    correction = recipes._correct_stored(data.baskets, Recipe(hard=code), positives, data.n_hard)
    is_out = data.baskets.detail != code
    assert is_out.any() and (correction.isinf() == is_out).all()


@pytest.mark.parametrize("rule", ["snapshot", "shuffled"])
def test_batches_have_every_basket_once_an_epoch(data, rule):
    baskets, seen = data.baskets, []
    for batch in recipes._list_batches(baskets, rule, 16, seed=1):
        seen += batch.tolist()
        if rule == "snapshot":
            assert len(baskets.snapshot[batch].unique()) == 1
        if len(seen) >= len(baskets):
            break
    assert sorted(seen) == list(range(len(baskets)))


def test_the_same_seed_gives_the_same_model_and_leaves_torchs_alone(data):
    settings = TrainSettings(steps=3, d=4)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    twins = [recipes.train(data, Recipe(), settings, seed) for seed in (5, 5, 6)]
    weights = [model.item.weight for model in twins]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.rand(1), expected)
