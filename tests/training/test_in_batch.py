"""In-batch negatives are never owned, and the probability of each candidate is right."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.errors import ConfigError
from gpu_dcgen.training import in_batch
from gpu_dcgen.training.in_batch import InBatch, estimate_corpus_size
from gpu_dcgen.training.losses import candidate_logits, info_nce
from gpu_dcgen.training.stream import ContrastiveStream
from tests.support.training_datasets import (
    ALL_SHAPES,
    get_dataset,
    read_item_index,
    read_rows,
    read_user_index,
)


def batches(shape="labeled_pair", split="train", batch_size=9, from_batch=True, **settings):
    dataset = get_dataset(shape)
    collate = InBatch(dataset, split, from_batch=from_batch)
    return list(
        ContrastiveStream(
            dataset, split, batch_size=batch_size, window=4, collate=collate, **settings
        )
    )


def owned(dataset, split):
    """user_index -> items of the split's positives."""
    items, users, items_by_user = read_item_index(dataset), read_user_index(dataset), {}
    for row in read_rows(dataset, split):
        own = items_by_user.setdefault(users[row["user_id"]], set())
        own |= {items[row["item_id"]]} if row["label"] == 1 else set()
    return items_by_user


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_may_be_a_negative_is_what_sets_and_loops_say(split):
    dataset = get_dataset()
    own = owned(dataset, split)
    for batch in batches(split=split):
        users = batch["user_features"]["user_index"].tolist()
        histories = batch["user_features"]["user_interaction_sequence"].tolist()
        items = batch["item_features"]["item_index"].tolist()
        positives = [row[0] for row in items]
        for i, j in itertools.product(range(len(users)), repeat=2):
            refused = own[users[i]] | set(histories[i]) | set(items[i]) | set(positives[:j])
            allowed = bool(batch["in_batch"]["allowed"][i, j])
            assert not (allowed and positives[j] in refused)
            # user_sequences may know more purchases than these rows do
            assert allowed or positives[j] in refused | latest(dataset)[users[i]]


@cache
def latest(dataset):
    """user_index -> items of user_sequences.parquet."""
    lists = pq.read_table(dataset / "user_sequences.parquet", columns=["item_indices"])[
        "item_indices"
    ].to_pylist()
    return {user: set(items) for user, items in enumerate(lists, 1)}


def test_most_of_a_batch_may_serve():
    """A mask that refuses everything would pass for a safe one."""
    shares = [
        batch["in_batch"]["allowed"].float().mean().item() for batch in batches(batch_size=20)
    ]
    assert 0.1 < max(shares) < 0.9


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_log_q_is_the_log_of_the_probability_to_be_a_candidate(shape):
    dataset = get_dataset(shape)
    positives = [row for row in read_rows(dataset) if row.get("label", 1) == 1]
    items = read_item_index(dataset)
    share = {items[item]: 0.0 for item in items}
    for row in positives:
        share[items[row["item_id"]]] += 1 / len(positives)
    collate = InBatch(dataset)
    n_hard = 1 if shape == "triplet" else 2
    for batch in ContrastiveStream(dataset, batch_size=9, window=4, collate=collate):
        n = len(batch["label"])
        corpus = collate._corpus_sizes[
            torch.bucketize(batch["metadata"]["group_number"], collate._firsts, right=True) - 1
        ]
        for i, candidates in enumerate(batch["item_features"]["item_index"].tolist()):
            n_random = len(candidates) - 1 - n_hard
            for slot, item in enumerate(candidates):
                not_drawn = 1 - n_random / max(int(corpus[i]), n_random + 1)
                pi = 1 - (1 - share[item]) ** (n - 1) * not_drawn if slot > n_hard else 1.0
                assert batch["log_q"][i, slot].item() == pytest.approx(math.log(pi), abs=1e-5)
            for j, item in enumerate(batch["item_features"]["item_index"][:, 0].tolist()):
                if batch["in_batch"]["allowed"][i, j]:
                    pi = 1 - (1 - share[item]) ** (n - 1) * (
                        1 - n_random / max(int(corpus[i]), n_random + 1)
                    )
                    assert batch["in_batch"]["log_q"][i, j].item() == pytest.approx(
                        math.log(pi), abs=1e-5
                    )


def test_without_the_batch_only_the_random_draw_counts():
    for batch in batches(from_batch=False, n_random=3):
        assert "in_batch" not in batch
        assert (batch["log_q"][:, :3] == 0).all()
        assert (batch["log_q"][:, 3:] < 0).all() and len(batch["log_q"][0, 3:].unique()) == 1


def test_a_batch_of_one_has_finite_probabilities_also_of_an_item_that_is_every_positive(
    monkeypatch,
):
    plain = in_batch._scan

    def one_item(*arguments):
        users, items, corpus = plain(*arguments)
        return users, items[:1].expand_as(items), corpus

    monkeypatch.setattr(in_batch, "_scan", one_item)
    for batch in batches(batch_size=1):
        assert batch["log_q"].isfinite().all()


def test_a_stream_without_users_is_refused():
    with pytest.raises(ConfigError, match="the stream gives no user_index"):
        list(ContrastiveStream(get_dataset(), columns=["item_id"], collate=InBatch(get_dataset())))


@pytest.mark.parametrize(("corpus", "n_drawn"), [(50, 400), (1000, 5000), (20_000, 30_000)])
def test_the_size_of_the_corpus_is_found_from_what_was_drawn(corpus, n_drawn):
    drawn = np.random.default_rng(1).integers(0, corpus, n_drawn)
    assert estimate_corpus_size(len(np.unique(drawn)), n_drawn, 10**6) == pytest.approx(
        corpus, rel=0.03
    )


def test_a_corpus_that_nothing_tells_of_is_all_items():
    assert estimate_corpus_size(10, 10, 77) == 77
    assert estimate_corpus_size(0, 0, 5) in range(1, 6)


def outcomes(n_items, positive, share, n_others, n_random):
    """Yield (probability, other positives of the batch, draw) of all outcomes.

    The draw is uniform and without replacement.
    """
    negatives = [item for item in range(n_items) if item != positive]
    draws = list(itertools.combinations(negatives, n_random))
    for batch in itertools.product(range(n_items), repeat=n_others):
        for draw in draws:
            yield math.prod(share[item] for item in batch) / len(draws), batch, draw


def sampled(scores, share, batch, draw, n_others, corpus, sign=1.0):
    """Compute the logits of positive 0 in an outcome, with `log_q` and mask as of `InBatch`."""
    n = 1 + len(batch)
    items = torch.tensor([[0, *draw], *([item] * (1 + len(draw)) for item in batch)])
    log_pi = sign * torch.log(
        -torch.expm1(torch.log1p(-torch.tensor(share)) * n_others + math.log1p(-len(draw) / corpus))
    )
    seen, allowed = {0, *draw}, torch.zeros((n, n), dtype=torch.bool)
    for place, item in enumerate(batch, 1):
        allowed[0, place] = item not in seen
        seen.add(item)
    log_q = log_pi[items]
    log_q[:, 0] = 0
    given = {
        "log_q": log_q,
        "in_batch": {"allowed": allowed, "log_q": log_pi[items[:, 0]].expand(n, n)},
    }
    return candidate_logits(torch.ones((n, 1)), scores[items][..., None], given)[0]


def test_the_corrected_sum_is_that_of_the_exact_softmax_over_a_tiny_catalogue():
    """Over all draws, the mean sum of exp(logits) is that of the softmax over all items."""
    share, n_others, n_random = [0.4, 0.3, 0.15, 0.1, 0.05], 3, 2
    scores = torch.tensor([0.3, 1.2, -0.5, 0.8, 2.0])
    exact = scores.exp().sum().item()
    mean, wrong = 0.0, 0.0
    for probability, batch, draw in outcomes(5, 0, share, n_others, n_random):
        logits = sampled(scores, share, batch, draw, n_others, corpus=4)
        mean += probability * logits.exp().sum().item()
        wrong += (
            probability
            * sampled(scores, share, batch, draw, n_others, corpus=4, sign=-1.0).exp().sum().item()
        )
    assert mean == pytest.approx(exact, rel=1e-5)
    assert wrong != pytest.approx(exact, rel=0.05)


def test_the_loss_is_that_of_these_logits():
    batch = batches(batch_size=12)[0]
    generator = torch.Generator().manual_seed(0)
    n, width = batch["label"].shape
    users, items = (
        torch.randn((n, 3), generator=generator),
        torch.randn((n, width, 3), generator=generator),
    )
    total, weighted = 0.0, 0.0
    for i in range(n):
        logits = [
            (users[i] @ items[i, k] / 0.5 - batch["log_q"][i, k]).item() for k in range(width)
        ]
        columns = torch.nonzero(batch["in_batch"]["allowed"][i])[:, 0].tolist()
        logits += [
            (users[i] @ items[j, 0] / 0.5 - batch["in_batch"]["log_q"][i, j]).item()
            for j in columns
        ]
        loss = math.log(sum(map(math.exp, logits))) - logits[0]
        total, weighted = (
            total + loss,
            weighted + loss * batch["metadata"]["sample_weight"][i].item(),
        )
    assert info_nce(users, items, batch, temperature=0.5).item() == pytest.approx(
        total / n, rel=1e-4
    )
    wanted = weighted / batch["metadata"]["sample_weight"].sum().item()
    assert info_nce(users, items, batch, temperature=0.5, weighted=True).item() == pytest.approx(
        wanted, rel=1e-4
    )
    assert (
        info_nce(users, items, batch, correct=False).item() < info_nce(users, items, batch).item()
    )
