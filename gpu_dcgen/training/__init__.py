"""From the files of a dataset to batches of tensors, and to the proof that a model can learn from them.

    files.py         what a split consists of: parts, row groups, manifest; every check before the first read
    vocabularies.py  ids and category values to the integers that models take
    row_groups.py    one row group of any shape (D19) as a `Block` of tensors, one row a positive
    records.py       decoded groups, each in one piece of memory
    order.py         which group comes when: a pure function of (seed, epoch, position)
    dataset.py       `ContrastiveDataset`: sample by sample, with a bounded cache
    stream.py        `ContrastiveStream`: batch by batch, prefetched, resumable, the same for any number of workers and ranks
    negatives.py     this epoch's negatives, out of the stored ones
    in_batch.py      negatives from the batch, what must not be one, and how likely each candidate was (D14)
    losses.py        InfoNCE with that correction
    exporters.py     files for other trainers
    two_tower.py     a small model
    rankings.py      the rankings that it has to beat, and how good a ranking is
    probe.py         what the model learns from each kind of negatives

These modules import torch, NumPy and pyarrow, and nothing of the build but `contract` and `errors`.
"""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import MissingPackageError

if find_spec("torch") is None:
    raise MissingPackageError(
        "PyTorch is not installed: no package torch was found.\nInstall it: pip install 'gpu-dcgen[torch]'"
    )
