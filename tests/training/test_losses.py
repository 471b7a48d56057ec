"""Losses of labeled rows are those of their formulas."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.errors import ConfigError
from gpu_dcgen.training.losses import candidate_logits, ranking_loss
from gpu_dcgen.training.stream import ContrastiveStream
from tests.support.training_datasets import get_dataset

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]])
BATCH = {
    "label": torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
    "metadata": {"sample_weight": torch.tensor([1.0, 3.0])},
}


def softplus(x):
    return math.log1p(math.exp(x))


BCE = [
    (softplus(-2) + softplus(0.5) + softplus(-1)) / 3,
    (softplus(0) + softplus(1) + softplus(3)) / 3,
]
BPR = [(softplus(-1.5) + softplus(-3)) / 2, (softplus(1) + softplus(3)) / 2]


@pytest.mark.parametrize(("kind", "rows"), [("bce", BCE), ("bpr", BPR)])
def test_the_loss_of_labeled_rows_is_that_of_its_formula(kind, rows):
    assert ranking_loss(LOGITS, BATCH, kind=kind).item() == pytest.approx(sum(rows) / 2)
    weighted = ranking_loss(LOGITS, BATCH, kind=kind, weighted=True)
    assert weighted.item() == pytest.approx((rows[0] + 3 * rows[1]) / 4)


def test_single_rows_have_a_cross_entropy_and_no_pairs():
    stream = ContrastiveStream(get_dataset(), layout="samples")
    batch = next(iter(stream))
    logits = torch.zeros_like(batch["label"])
    assert ranking_loss(logits, batch).item() == pytest.approx(math.log(2))
    with pytest.raises(ConfigError, match="give the stream layout='groups'|Give the stream layout"):
        ranking_loss(logits, batch, kind="bpr")


@pytest.mark.parametrize(
    ("logits", "kind", "text"),
    [(LOGITS[:, :2], "bce", r"shape \(2, 2\), expected .* \(2, 3\)"), (LOGITS, "x", "kind 'x'")],
)
def test_what_cannot_be_a_loss_is_refused(logits, kind, text):
    with pytest.raises(ConfigError, match=text):
        ranking_loss(logits, BATCH, kind=kind)


def test_history_scores_are_added_before_the_temperature():
    users, items = torch.ones(2, 1), torch.arange(6.0).reshape(2, 3, 1)
    in_history = torch.arange(18.0).reshape(2, 3, 3)
    batch = {"item_features": {"in_history": in_history}}
    logits = candidate_logits(
        users, items, batch, temperature=0.5, score_history=lambda features: features[..., 1]
    )
    assert torch.equal(logits, (items[..., 0] + in_history[..., 1]) / 0.5)
