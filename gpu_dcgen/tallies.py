"""Sums of vectors by split and name, to which a block adds in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Tallies:
    """Vectors (m,) int64 on the host by split and name.

    What is counted by item may be added as codes. They wait until they are as many as there are
    items: a block has fewer than a large shop has, and a pass over all counts would take longer.
    """

    vectors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    # By split, name and number of codes: (n,) int32 each.
    waiting: dict[tuple[str, str, int], list[np.ndarray]] = field(default_factory=dict)

    def add(self, split: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Add vectors to those of a split."""
        own = self.vectors.setdefault(split, {})
        for name, vector in vectors.items():
            own[name] = own[name] + vector if name in own else vector

    def add_codes(self, split: str, name: str, codes: np.ndarray, n_codes: int) -> None:
        """Add how often each code 0..n_codes-1 occurs in (n,) of integers."""
        self.vectors.setdefault(split, {})
        waiting = self.waiting.setdefault((split, name, n_codes), [])
        if len(codes):
            waiting.append(codes.astype(np.int32))
        if sum(map(len, waiting)) >= n_codes:
            self._count((split, name, n_codes))

    def merge(self, other: Tallies) -> None:
        """Add the tallies of other blocks."""
        for split, vectors in other.vectors.items():
            self.add(split, vectors)
        for (split, name, n_codes), waiting in other.waiting.items():
            self.add_codes(split, name, _join(waiting), n_codes)

    def get_vectors(self, split: str) -> dict[str, np.ndarray]:
        """Return the vectors of a split by name, {} where nothing was added."""
        for key in [key for key in self.waiting if key[0] == split]:
            self._count(key)
        return self.vectors.get(split, {})

    def _count(self, key: tuple[str, str, int]) -> None:
        split, name, n_codes = key
        codes = _join(self.waiting.pop(key))
        self.add(split, {name: np.bincount(codes, minlength=n_codes).astype(np.int64, copy=False)})


def _join(waiting: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *waiting])
