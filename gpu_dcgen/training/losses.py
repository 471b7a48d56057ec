"""InfoNCE over the candidates of `in_batch.InBatch`: a sampled softmax that stands for the one over all items."""

from __future__ import annotations

import torch
from torch import Tensor

from .dataset import Sample


def info_nce(
    users: Tensor, items: Tensor, batch: Sample, *, temperature: float = 1.0, correct: bool = True, weighted: bool = False
) -> Tensor:
    """The mean over rows of -log of the positive's estimated share of the softmax; scalar.

    `users` (n, d) and `items` (n, width, d) are the model's vectors of a batch that `InBatch` made; the score is their
    product / `temperature`. From each negative's score log(pi) is subtracted: what is drawn often would otherwise be
    pushed down for being popular. The positive's stays: it is no sample. `correct` False leaves this out. `weighted`
    weighs rows with `sample_weight` (D18).
    """
    scores = torch.einsum("nd,nwd->nw", users, items) / temperature
    logits = scores - batch["log_q"] if correct else scores
    if "in_batch" in batch:
        others = users @ items[:, 0].T / temperature
        if correct:
            others = others - batch["in_batch"]["log_q"]
        logits = torch.cat([logits, others.masked_fill(~batch["in_batch"]["allowed"], -torch.inf)], dim=1)
    losses = torch.logsumexp(logits, dim=1) - logits[:, 0]
    if not weighted:
        return losses.mean()
    weights = batch["metadata"]["sample_weight"]
    return (losses * weights).sum() / weights.sum()
