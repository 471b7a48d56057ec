"""In-batch negatives are never owned, and the probability of each candidate is right."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from functools import cache

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.errors import ConfigError
from gpu_dcgen.training.frequencies import PositiveShares
from gpu_dcgen.training.in_batch import InBatch
from gpu_dcgen.training.losses import candidate_logits, info_nce
from gpu_dcgen.training.snapshots import make_snapshot_grid
from gpu_dcgen.training.stream import ContrastiveStream
from tests.support.training_datasets import (
    ALL_SHAPES,
    get_dataset,
    read_item_index,
    read_rows,
    read_user_index,
)
from tests.training.test_history import describe


def batches(shape="labeled_pair", split="train", batch_size=9, from_batch=True, **settings):
    dataset = get_dataset(shape)
    collate = InBatch(
        dataset, split, from_batch=from_batch, batches=settings.pop("batches", "shuffled")
    )
    settings = {"n_hard": 0, **settings}
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
            refused = own[users[i]] | set(histories[i]) | {positives[i]} | set(positives[:j])
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
def test_log_q_of_shuffled_batches_is_that_of_the_whole_split(shape):
    dataset = get_dataset(shape)
    items = read_item_index(dataset)
    bought = [items[row["item_id"]] for row in read_rows(dataset) if row.get("label", 1) == 1]
    share = {item: n / len(bought) for item, n in Counter(bought).items()}
    for batch in batches(shape):
        assert (batch["log_q"] == 0).all()
        n = len(batch["label"])
        for i, j in torch.nonzero(batch["in_batch"]["allowed"]).tolist():
            item = batch["item_features"]["item_index"][j, 0].item()
            pi = 1 - (1 - share[item]) ** (n - 1)
            assert batch["in_batch"]["log_q"][i, j].item() == pytest.approx(math.log(pi), abs=1e-5)
        assert (batch["in_batch"]["log_q"][~batch["in_batch"]["allowed"]] == 0).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_log_q_of_a_week_counts_three_snapshots_and_the_split(split):
    dataset, smoothing = get_dataset(), 7.0
    collate = InBatch(dataset, split, smoothing=smoothing)
    grid, items = make_snapshot_grid(collate._files.manifest), read_item_index(dataset)
    bought = [
        (grid.find(row["timestamp"].value), items[row["item_id"]])
        for row in read_rows(dataset, split)
        if row["label"] == 1
    ]
    share = {item: n / len(bought) for item, n in Counter(item for _, item in bought).items()}
    n_checked = 0
    for batch in ContrastiveStream(
        dataset, split, batch_size=9, window=99, n_hard=0, collate=collate
    ):
        (k,) = set(grid.find(batch["metadata"]["timestamp"]).tolist())
        near = [item for snapshot, item in bought if abs(snapshot - k) <= 1]
        n = len(batch["label"])
        for i, j in torch.nonzero(batch["in_batch"]["allowed"]).tolist():
            item = batch["item_features"]["item_index"][j, 0].item()
            q = (near.count(item) + smoothing * share[item]) / (len(near) + smoothing)
            expected = math.log(1 - (1 - q) ** (n - 1))
            assert batch["in_batch"]["log_q"][i, j].item() == pytest.approx(expected, abs=1e-5)
            n_checked += 1
    assert n_checked > 20


def test_features_of_in_batch_candidates_are_as_of_the_rows_own_snapshot():
    """What the files say of an item at the row's snapshot is what its column in the batch has."""
    rows = read_rows(get_dataset())
    manifest = InBatch(get_dataset())._files.manifest
    grid, items = make_snapshot_grid(manifest), read_item_index(get_dataset())
    known = {
        (grid.find(row["timestamp"].value), items[row["item_id"]]): row["item_popularity_score"]
        for row in rows
    }
    stale = {}
    for rule in ("snapshot", "shuffled"):
        differing = 0
        for batch in batches(batches=rule, batch_size=20):
            item = batch["item_features"]["item_index"][:, 0].tolist()
            popularity = batch["item_features"]["item_popularity_score"][:, 0].tolist()
            snapshots = grid.find(batch["metadata"]["timestamp"]).tolist()
            for i, j in torch.nonzero(batch["in_batch"]["allowed"]).tolist():
                expected = known.get((snapshots[i], item[j]), popularity[j])
                differing += expected != popularity[j]
        stale[rule] = differing
    assert stale["snapshot"] == 0 < stale["shuffled"]


def test_a_batch_of_many_snapshots_is_refused_by_default():
    dataset = get_dataset()
    source = ContrastiveStream(dataset, batch_size=64, n_hard=0, layout="groups")
    source._collate = InBatch(dataset)
    with pytest.raises(ConfigError, match="positives of the item snapshots . to"):
        list(source)


def with_log_q(collate, hard, uniform):
    """A collate whose groups have a column negative_log_q, as newer datasets store it."""

    def add(groups):
        slot = groups.metadata["slot"]
        n_hard = collate._files.n_hard
        log_q = torch.where(slot > n_hard, uniform, hard * slot.float())
        groups.metadata["negative_log_q"] = torch.where(slot == 0, 0.0, log_q).float()
        return collate(groups)

    add.batches = collate.batches
    return add


@pytest.mark.parametrize("from_batch", [True, False])
@pytest.mark.parametrize(("n_hard", "n_random"), [(2, 4), (1, 4), (2, 2), (2, 0)])
def test_hard_negatives_have_their_own_log_q_and_random_ones_none(from_batch, n_hard, n_random):
    """Alone, all weights are R / C times as large, so that random rows still have the weight 1."""
    collate = with_log_q(InBatch(get_dataset(), from_batch=from_batch), -1.5, -3.0)
    stream = ContrastiveStream(
        get_dataset(), batch_size=9, n_hard=n_hard, n_random=n_random, collate=collate
    )
    for batch in stream:
        slot = batch["metadata"]["slot"]
        is_hard = (slot > 0) & (slot <= 2)
        assert (batch["log_q"][~is_hard] == 0).all()
        scale = 0.0 if from_batch or not n_random else -3.0 + math.log(n_random / 4)
        expected = -1.5 * slot[is_hard] + math.log(n_hard / 2) - scale
        assert batch["log_q"][is_hard].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_hard_negatives_without_a_probability_are_refused():
    with pytest.raises(ConfigError, match="no column negative_log_q.*\n.*n_hard=0"):
        triplets = get_dataset("triplet")
        list(ContrastiveStream(triplets, layout="groups", collate=InBatch(triplets)))
    columns = ["user_id", "item_id", "user_interaction_sequence", "timestamp"]
    with pytest.raises(ConfigError, match="gives hard negatives, but no negative_log_q"):
        stream = ContrastiveStream(get_dataset(), columns=columns, collate=InBatch(get_dataset()))
        list(stream)


def test_hard_negatives_chosen_by_score_are_refused():
    """Of those stored, the best by score are more likely than their share."""
    collate = InBatch(get_dataset())
    with pytest.raises(ConfigError, match="n_hard 1 with fresh_negatives=False"):
        ContrastiveStream(get_dataset(), n_hard=1, fresh_negatives=False, collate=collate)
    for n_hard in (0, 2):
        ContrastiveStream(get_dataset(), n_hard=n_hard, fresh_negatives=False, collate=collate)


def test_without_the_batch_there_are_only_the_stored_negatives():
    for batch in batches(from_batch=False, n_random=3):
        assert "in_batch" not in batch
        assert batch["label"].shape[1] == 4 and (batch["log_q"] == 0).all()


def test_a_batch_of_one_and_an_item_that_is_every_positive_have_finite_probabilities():
    for batch in batches(batch_size=1):
        assert batch["in_batch"]["log_q"].isfinite().all()
    shares = PositiveShares(torch.full((9,), 2), 4, snapshots=None, smoothing=1.0)
    assert shares.compute_log_q(torch.tensor([2]), 0, 5).tolist() == [0.0]


@pytest.mark.parametrize(
    ("wrong", "text"), [({"batches": "x"}, "batches 'x'"), ({"smoothing": 0}, "smoothing 0")]
)
def test_arguments_that_cannot_be_met_are_refused(wrong, text):
    with pytest.raises(ConfigError, match=text):
        InBatch(get_dataset(), **wrong)


def test_a_stream_without_users_is_refused():
    with pytest.raises(ConfigError, match="the stream gives no user_index"):
        list(ContrastiveStream(get_dataset(), columns=["item_id"], collate=InBatch(get_dataset())))


def test_history_features_of_a_batch_are_those_of_each_rows_own_history():
    n_bought_before = 0
    for batch in batches(batches="snapshot"):
        histories = batch["user_features"]["user_interaction_sequence"].tolist()
        items = batch["item_features"]["item_index"].tolist()
        for i, history in enumerate(histories):
            for item, features in zip(
                items[i], batch["item_features"]["in_history"][i].tolist(), strict=True
            ):
                assert features == pytest.approx(describe(history, item))
            for j, features in enumerate(batch["in_batch"]["in_history"][i].tolist()):
                assert features == pytest.approx(describe(history, items[j][0]))
                n_bought_before += features[0]
    assert n_bought_before > 10


def outcomes(share, n_others, n_random, listed, n_hard):
    """Yield (probability, other positives, random, hard) of all outcomes for the positive 0.

    Random and hard negatives are uniform draws without replacement, hard ones from `listed`.
    """
    draws = list(itertools.combinations(range(1, len(share)), n_random))
    hards = list(itertools.combinations(listed, n_hard))
    for batch in itertools.product(range(len(share)), repeat=n_others):
        for draw, hard in itertools.product(draws, hards):
            probability = math.prod(share[item] for item in batch) / len(draws) / len(hards)
            yield probability, batch, draw, hard


def make_logits(scores, share, outcome, n_listed, corrected=True):
    """Compute the logits of positive 0 in an outcome, with what `InBatch` gives for it."""
    _, batch, draw, hard = outcome
    n = 1 + len(batch)
    items = torch.tensor([[0, *hard, *draw], *([item] * (1 + len(hard + draw)) for item in batch)])
    counts = torch.tensor([round(each * 100) for each in share])
    positives = torch.arange(len(share)).repeat_interleave(counts)
    shares = PositiveShares(positives, len(share) - 1, snapshots=None, smoothing=1.0)
    allowed = torch.zeros((n, n), dtype=torch.bool)
    for place, item in enumerate(batch, 1):
        allowed[0, place] = item != 0 and item not in batch[: place - 1]
    log_q = torch.zeros(items.shape)
    if hard:
        log_q[:, 1 : 1 + len(hard)] = math.log(len(hard) / n_listed)
    given = {
        "log_q": log_q,
        "in_batch": {
            "allowed": allowed,
            "log_q": shares.compute_log_q(items[:, 0], 0, n - 1).expand(n, n),
        },
    }
    return candidate_logits(torch.ones((n, 1)), scores[items][..., None], given, correct=corrected)[
        0
    ]


@pytest.mark.parametrize("n_hard", [0, 1])
def test_the_expected_sum_is_that_of_the_softmax_that_in_batch_documents(n_hard):
    """Over all outcomes: weights of 1 + R / C for all items, and 1 more for those on the list."""
    share, listed = [0.4, 0.3, 0.15, 0.1, 0.05], [2, 4]
    scores = torch.tensor([0.3, 1.2, -0.5, 0.8, 2.0])
    weights = torch.full((5,), 1 + 2 / 4)
    weights[0] = 1
    weights[listed] += n_hard
    exact = (weights * scores.exp()).sum().item()
    mean, wrong = 0.0, 0.0
    for outcome in outcomes(share, 3, 2, listed, n_hard):
        logits = make_logits(scores, share, outcome, len(listed))
        mean += outcome[0] * logits.exp().sum().item()
        plain = make_logits(scores, share, outcome, len(listed), corrected=False)
        wrong += outcome[0] * plain.exp().sum().item()
    assert mean == pytest.approx(exact, rel=1e-4)
    assert wrong != pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(("corrected", "is_right"), [(True, True), (False, False)])
def test_the_best_scores_are_those_of_the_full_softmax(corrected, is_right):
    """Scores without features learn the shares of a small catalog from sampled batches."""
    n_items, n = 60, 32
    share = 1 / torch.arange(1.0, n_items + 1)
    share /= share.sum()
    generator = torch.Generator().manual_seed(0)
    positives = torch.multinomial(share, 20_000, replacement=True, generator=generator)
    shares = PositiveShares(positives, n_items - 1, snapshots=None, smoothing=1.0)
    scores, mean = torch.zeros(n_items, requires_grad=True), torch.zeros(n_items)
    optimizer = torch.optim.Adam([scores], lr=0.05)
    for step in range(500):
        item = torch.multinomial(share, n, replacement=True, generator=generator)
        is_same = item[:, None] == item
        is_first = ~(is_same & torch.ones(n, n).tril(-1).bool()).any(dim=1)
        in_batch = {
            "allowed": ~is_same & is_first,
            "log_q": shares.compute_log_q(item, 0, n - 1).expand(n, n),
        }
        batch = {"log_q": torch.zeros(n, 1), "in_batch": in_batch}
        vectors = scores[item][:, None, None]
        optimizer.zero_grad()
        info_nce(torch.ones(n, 1), vectors, batch, correct=corrected).backward()
        optimizer.step()
        mean += scores.detach() * (step >= 250)
    distance = ((mean / 250).softmax(0) - share).abs().sum().item() / 2
    assert (distance < 0.1) == is_right, distance


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
