"""Losses: InfoNCE over the candidates of `InBatch` (D14), BCE and BPR over labeled rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigError
from .groups import Batch

ScoreHistory = Callable[[Tensor], Tensor]


def candidate_logits(
    users: Tensor,
    items: Tensor,
    batch: Batch,
    *,
    temperature: float = 1.0,
    correct: bool = True,
    score_history: ScoreHistory | None = None,
) -> Tensor:
    """Compute the logits of each row's candidates, the positive first.

    A logit is the product of the two vectors, plus the score of the item's place in the user's
    history, divided by `temperature`. From that of each in-batch and hard negative its
    log-probability to be a candidate is subtracted: items that are drawn often would otherwise be
    pushed down for being popular. Stored random negatives are uniform, and need no correction; the
    positive is not sampled. What the sum of the exponentials estimates is said in `in_batch`.

    Args:
        users: (n, d) float, the model's vectors of the users.
        items: (n, width, d) float, its vectors of the candidates.
        batch: The batch of these vectors: of `InBatch`, or of the layout "groups", in which stored
            candidates then have no correction.
        temperature: Divides the scores; above 0.
        correct: Whether to subtract the log-probabilities.
        score_history: Scores of `in_history` features, (..., 3) -> (...), 0 for items that are not
            in the history, as `TwoTower.score_history`; None for none.

    Returns:
        (n, width) float or, if the batch has in-batch negatives, (n, width + n). Candidates that
        are not allowed have -inf.
    """
    logits = torch.einsum("nd,nwd->nw", users, items)
    if score_history is not None:
        logits = logits + score_history(batch["item_features"]["in_history"])
    logits = logits / temperature
    if correct and "log_q" in batch:
        logits = logits - batch["log_q"]
    if "in_batch" not in batch:
        return logits
    in_batch = batch["in_batch"]
    # Without a score of the history: an allowed one is not in it, and the score of that is 0.
    in_batch_logits = users @ items[:, 0].T / temperature
    if correct:
        in_batch_logits = in_batch_logits - in_batch["log_q"]
    in_batch_logits = in_batch_logits.masked_fill(~in_batch["allowed"], -torch.inf)
    return torch.cat([logits, in_batch_logits], dim=1)


def info_nce(
    users: Tensor,
    items: Tensor,
    batch: Batch,
    *,
    temperature: float = 1.0,
    correct: bool = True,
    weighted: bool = False,
    score_history: ScoreHistory | None = None,
) -> Tensor:
    """Compute the InfoNCE loss: a sampled softmax that estimates the one over all items.

    The loss of a row is -log of the positive's share of the softmax over `candidate_logits`.

    Args:
        users: (n, d) float, the model's vectors of the users.
        items: (n, width, d) float, its vectors of the candidates.
        batch: The batch of these vectors, made by `InBatch`.
        temperature: Divides the scores; above 0.
        correct: Whether to correct for how likely each candidate was (logQ).
        weighted: Whether to weigh rows by `sample_weight` (D18).
        score_history: Scores of `in_history` features, as `TwoTower.score_history`.

    Returns:
        A scalar, the (weighted) mean over rows.

    Example:
        >>> users = model.encode_users(batch["user_features"])
        >>> items = model.encode_items(batch["item_features"])
        >>> info_nce(users, items, batch, score_history=model.score_history).backward()
    """
    logits = candidate_logits(
        users,
        items,
        batch,
        temperature=temperature,
        correct=correct,
        score_history=score_history,
    )
    losses = torch.logsumexp(logits, dim=1) - logits[:, 0]
    return _average(losses, batch, weighted)


def ranking_loss(
    logits: Tensor,
    batch: Batch,
    *,
    kind: Literal["bce", "bpr"] = "bce",
    weighted: bool = False,
) -> Tensor:
    """Compute a loss of labeled rows, for models that score a user and an item at a time.

    Args:
        logits: The model's scores of the stored rows, of the shape of `batch["label"]`: (n,) or
            (n, width) float.
        batch: The batch of these rows.
        kind: "bce" is the binary cross-entropy of each row's label. "bpr" (Rendle et al. 2009) is
            -log sigmoid(positive - negative), the mean over a positive's negatives; it needs the
            layout "groups".
        weighted: Whether to weigh rows by `sample_weight` (D18).

    Returns:
        A scalar, the (weighted) mean over rows or, for "bpr", over positives.

    Raises:
        ConfigError: The shapes differ, the kind is unknown, or "bpr" gets single rows.

    Example:
        >>> ranking_loss(model(batch), batch, kind="bce").backward()
    """
    label = batch["label"]
    if logits.shape != label.shape:
        raise ConfigError(
            f"ranking_loss: logits of shape {tuple(logits.shape)}, expected that of the labels,"
            f" {tuple(label.shape)}."
        )
    if kind == "bce":
        losses = functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
        return _average(losses.mean(dim=1) if losses.dim() == 2 else losses, batch, weighted)
    if kind != "bpr":
        raise ConfigError(f"kind {kind!r}: expected 'bce' or 'bpr'.")
    if label.dim() == 1:
        raise ConfigError(
            "ranking_loss: 'bpr' compares a positive with its negatives, but this batch has single"
            " rows.\nGive the stream layout='groups'."
        )
    losses = functional.softplus(logits[:, 1:] - logits[:, :1]).mean(dim=1)
    return _average(losses, batch, weighted)


def _average(losses: Tensor, batch: Batch, weighted: bool) -> Tensor:
    if not weighted:
        return losses.mean()
    weights = batch["metadata"]["sample_weight"]
    return (losses * weights).sum() / weights.sum()
