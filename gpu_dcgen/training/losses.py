"""InfoNCE over the candidates of `in_batch.InBatch`: a sampled softmax that stands for the one over all items."""

from __future__ import annotations

import torch
from torch import Tensor

from .dataset import Sample


def candidate_logits(
    users: Tensor, items: Tensor, batch: Sample, *, temperature: float = 1.0, correct: bool = True
) -> Tensor:
    """(n, width) or, with negatives from the batch, (n, width + n): the logits of each row's candidates, the positive first.

    `users` (n, d) and `items` (n, width, d) are the model's vectors of a batch that `InBatch` made; the score is their
    product / `temperature`. From each negative's score log(pi) is subtracted: what is drawn often would otherwise be
    pushed down for being popular. The positive's stays: it is no sample. `correct` False subtracts nothing. What is not
    allowed is -inf.
    """
    logits = torch.einsum("nd,nwd->nw", users, items) / temperature
    if correct:
        logits = logits - batch["log_q"]
    if "in_batch" not in batch:
        return logits
    others = users @ items[:, 0].T / temperature
    if correct:
        others = others - batch["in_batch"]["log_q"]
    return torch.cat([logits, others.masked_fill(~batch["in_batch"]["allowed"], -torch.inf)], dim=1)


def info_nce(
    users: Tensor,
    items: Tensor,
    batch: Sample,
    *,
    temperature: float = 1.0,
    correct: bool = True,
    weighted: bool = False,
) -> Tensor:
    """The mean over rows of -log of the positive's share of the softmax over `candidate_logits`; scalar.

    `weighted` weighs rows with `sample_weight` (D18).
    """
    logits = candidate_logits(users, items, batch, temperature=temperature, correct=correct)
    losses = torch.logsumexp(logits, dim=1) - logits[:, 0]
    if not weighted:
        return losses.mean()
    weights = batch["metadata"]["sample_weight"]
    return (losses * weights).sum() / weights.sum()
