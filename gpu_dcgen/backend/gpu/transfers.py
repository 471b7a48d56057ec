"""Copies between host and device, each of them counted: the manifest shows what a build moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocol import Array


class Transfers:
    """Moves arrays to and from the device of `xp` (CuPy; NumPy stands in where there is no device).

    `to_device` and `to_host` count bytes. Parquet files count as the compressed bytes that were read or written.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.to_device = 0
        self.to_host = 0

    def upload(self, values: Any) -> Array:
        """A NumPy array (or list of numbers) as an array of the device."""
        values = np.asarray(values)
        self.to_device += values.nbytes
        return self.xp.asarray(values)

    def download(self, array: Array) -> np.ndarray:
        """An array of the device as a NumPy array; waits for the work that makes it."""
        self.to_host += array.nbytes
        return array if isinstance(array, np.ndarray) else array.get()
