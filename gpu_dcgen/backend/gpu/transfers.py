"""Copy arrays between host and device and count the bytes, which the manifest shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocol import Array


class Transfers:
    """Copies arrays to and from the device of `xp` (CuPy, or NumPy where there is no device).

    `to_device` and `to_host` count bytes. Parquet files count as the compressed bytes that were
    read or written.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.to_device = 0
        self.to_host = 0

    def upload(self, values: Any) -> Array:
        """Copy a NumPy array (or list of numbers) to the device."""
        values = np.asarray(values)
        self.to_device += values.nbytes
        return self.xp.asarray(values)

    def download(self, array: Array) -> np.ndarray:
        """Copy an array of the device to the host; waits for the work that computes it."""
        self.to_host += array.nbytes
        return array if isinstance(array, np.ndarray) else array.get()
