"""Build with many processes and machines, using Dask; only this package imports it.

The building process reads the inputs and computes features, splits and the finished tables.
Similarities of blocks of items, and parts of samples, are tasks for workers: `connection` starts or
finds these, `executor` submits tasks and collects their results, `attempts` tracks them and
reassigns those of a worker that does not answer, `tasks` runs on a worker. Data is exchanged
through the checkpoints in the build's staging folder, on a file system that all of them share: a
task and its result are a few names and numbers.

Each attempt at a task writes a file of its own, in a folder of this build, and only the building
process moves one of them into place and records it. So a worker may die, or finish a task that was
reassigned, without harm.
"""

from __future__ import annotations

from .executor import open_workers

__all__ = ["open_workers"]
