"""Builds by many processes and machines, with Dask as the engine; only this package names it.

Reading, features, splits and the finished tables stay with the process that builds. Similarities in blocks of items, and
samples in parts, are tasks for workers: `connection` starts or finds them, `executor` hands tasks out and takes in what comes
back, `attempts` keeps what is out, and gives it to others as well where a worker is silent, `tasks` is what runs on a worker.
Data passes through the checkpoints of the build's staging folder, on a file system that all of them see: a task is a few
names and numbers, and so is its answer.

A worker never writes where another could: each attempt at a task writes a file of its own, in a folder of this build, and
only the building process moves one of them into place and puts it on record. So it does not matter when a worker dies, or
is given up and goes on all the same.
"""

from __future__ import annotations

from .executor import open_workers

__all__ = ["open_workers"]
