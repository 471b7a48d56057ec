"""InfoNCE with the logQ correction, over the candidates of `InBatch` (D14)."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import Batch


def candidate_logits(
    users: Tensor, items: Tensor, batch: Batch, *, temperature: float = 1.0, correct: bool = True
) -> Tensor:
    """Compute the logits of each row's candidates, the positive first.

    A logit is the product of the two vectors, divided by `temperature`. From that of each negative
    its log-probability to be a candidate is subtracted: items that are drawn often would otherwise
    be pushed down for being popular. The positive is not sampled, so that its logit stays.

    Args:
        users: (n, d) float, the model's vectors of the users.
        items: (n, width, d) float, its vectors of the candidates.
        batch: The batch of these vectors, made by `InBatch`.
        temperature: Divides the products; above 0.
        correct: Whether to subtract the log-probabilities.

    Returns:
        (n, width) float or, if the batch has in-batch negatives, (n, width + n). Candidates that
        are not allowed have -inf.
    """
    logits = torch.einsum("nd,nwd->nw", users, items) / temperature
    if correct:
        logits = logits - batch["log_q"]
    if "in_batch" not in batch:
        return logits
    in_batch = batch["in_batch"]
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
) -> Tensor:
    """Compute the InfoNCE loss: a sampled softmax that estimates the one over all items.

    The loss of a row is -log of the positive's share of the softmax over `candidate_logits`.

    Args:
        users: (n, d) float, the model's vectors of the users.
        items: (n, width, d) float, its vectors of the candidates.
        batch: The batch of these vectors, made by `InBatch`.
        temperature: Divides the products; above 0.
        correct: Whether to correct for how likely each candidate was (logQ).
        weighted: Whether to weigh rows by `sample_weight` (D18).

    Returns:
        A scalar, the (weighted) mean over rows.

    Example:
        >>> users = model.encode_users(batch["user_features"])
        >>> items = model.encode_items(batch["item_features"])
        >>> info_nce(users, items, batch, temperature=0.1).backward()
    """
    logits = candidate_logits(users, items, batch, temperature=temperature, correct=correct)
    losses = torch.logsumexp(logits, dim=1) - logits[:, 0]
    if not weighted:
        return losses.mean()
    weights = batch["metadata"]["sample_weight"]
    return (losses * weights).sum() / weights.sum()
