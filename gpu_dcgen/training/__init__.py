"""Batches of tensors from the files of a dataset, and what a model learns from them.

    files.py           the files of a split, checked before the first read
    vocabularies.py    ids and category values as the integers that models take
    groups.py          groups of candidates as tensors, and the batches made of them
    row_groups.py      decode one row group of any shape (D19)
    gpu_row_groups.py  the same on a CUDA device
    records.py         decoded groups, each in one piece of memory
    order.py           the order of an epoch: a pure function of (seed, epoch, position)
    snapshots.py       the item snapshots (D6), and that of each positive
    snapshot_order.py  the order of an epoch in batches of one snapshot
    ownership.py       the items that each user is known to own
    systematic.py      draws by weights, with known probabilities
    hard_candidates.py hard negatives of an epoch, drawn from the lists of a build
    negatives.py       the negatives of an epoch, chosen from those stored
    windows.py         decode the next part of an epoch in advance
    dataset.py         `ContrastiveDataset`: samples by index, with a bounded cache
    stream.py          `ContrastiveStream`: batches, prefetched and resumable
    history.py         what a user's history says of an item
    frequencies.py     how often each item is a positive, over a split or around a snapshot
    in_batch.py        `InBatch`: negatives from the batch, with their probabilities (D14)
    losses.py          `info_nce`, corrected for these probabilities; `ranking_loss`
    exporters.py       files for other trainers
    two_tower.py       a small model
    rankings.py        rankings to compare it with, and the metrics
    probe.py           what the model learns from each kind of negatives

The modules import torch, NumPy and pyarrow, and of this package only data (`contract`, `errors`,
`storage`), none of the build.
"""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import MissingPackageError

if find_spec("torch") is None:
    raise MissingPackageError(
        "PyTorch is not installed: no package torch was found.\n"
        "Install it: pip install 'gpu-dcgen[torch]'"
    )
