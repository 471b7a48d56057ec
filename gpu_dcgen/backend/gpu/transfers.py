"""Copy arrays between host and device and count the bytes, which the manifest shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from ..protocol import Array


class Transfers:
    """Copies arrays to and from the device of `xp` (CuPy, or NumPy where there is no device).

    `to_device` and `to_host` count bytes, of several threads. Parquet files count as the compressed
    bytes that were read or written.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.to_device = 0
        self.to_host = 0
        self._counting = Lock()

    def count_upload(self, n_bytes: int) -> None:
        """Count bytes that reach the device in another way."""
        with self._counting:
            self.to_device += n_bytes

    def count_download(self, n_bytes: int) -> None:
        """Count bytes that leave the device in another way."""
        with self._counting:
            self.to_host += n_bytes

    def upload(self, values: Any) -> Array:
        """Copy a NumPy array (or list of numbers) to the device."""
        values = np.asarray(values)
        self.count_upload(values.nbytes)
        return self.xp.asarray(values)

    def download(self, array: Array) -> np.ndarray:
        """Copy an array of the device to the host; waits for the work that computes it."""
        self.count_download(array.nbytes)
        return array if isinstance(array, np.ndarray) else array.get()

    def download_integers(self, scalars: Sequence[Array]) -> list[int]:
        """Copy integers, arrays of shape (), to the host: one wait for all of them.

        Those of a type are stacked by one kernel; to stack several types CuPy runs one for each.
        """
        places: dict[Any, list[int]] = {}  # in `scalars`, by type
        for place, scalar in enumerate(scalars):
            places.setdefault(scalar.dtype, []).append(place)
        stacks = [
            self.xp.stack([scalars[place] for place in of_type]).astype(self.xp.int64, copy=False)
            for of_type in places.values()
        ]
        integers = [0] * len(scalars)
        if stacks:
            values = self.download(self.xp.concatenate(stacks)).tolist()
            for place, value in zip(itertools.chain(*places.values()), values, strict=True):
                integers[place] = value
        return integers
