"""Find texts among distinct ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .hashes import hash_texts


def find_positions(values: pa.Array, vocabulary: pa.Array) -> np.ndarray:
    """Find texts in a vocabulary: (n,) int64, -1 for null and for texts that it lacks."""
    positions = pc.index_in(values, value_set=vocabulary).fill_null(-1).to_numpy().astype(np.int64)
    if values.null_count:
        positions[values.is_null().to_numpy(zero_copy_only=False)] = -1
    return positions


class Vocabulary:
    """Distinct texts that are found by their hashes, without a pass over all of them."""

    def __init__(self, texts: pa.Array) -> None:
        self.texts = texts
        hashes = hash_texts(texts)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, texts: pa.Array) -> np.ndarray:
        """Find texts: their positions (n,) int64, -1 for null and for those that are not there."""
        if not len(self.texts):
            return np.full(len(texts), -1)
        hashes = hash_texts(texts)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        positions = self._order[place]
        is_same = pc.equal(self.texts.take(pa.array(positions)), texts.cast(self.texts.type))
        is_found = is_same.fill_null(False).to_numpy(zero_copy_only=False)
        positions = np.where(is_found, positions, -1)
        # Of texts with one hash, only the first has been compared.
        doubtful = np.flatnonzero(~is_found & (self._hashes[place] == hashes))
        if len(doubtful):
            positions[doubtful] = find_positions(texts.take(pa.array(doubtful)), self.texts)
        return positions
