"""Row kernel over pairs of items: the exact similarity of an item and a candidate (D10)."""

from __future__ import annotations

import numpy as np

from . import row_kernel
from .draws import gallop


@row_kernel
def score_pairs(
    pair,
    items,
    candidates,
    item_offsets,
    item_user,
    item_weight,
    roots,
    min_common,
    similarity,
    common_users,
):
    """Similarity and common users of items[pair // width] and its candidate pair % width, both (items, width).

    candidates int32, -1 for none. `item_offsets`, `item_user`, `item_weight`: the weighted matrix by item; `roots` float64 of
    its norms. Writes similarity float32, 0 where the two are not neighbors, and common_users int32. The item with fewer
    buyers is walked, and each buyer looked for among those of the other.
    """
    width = candidates.shape[1]
    row, column = pair // width, pair % width
    i, j = items[row], candidates[row, column]
    similarity[row, column] = 0.0
    common_users[row, column] = 0
    if j < 0 or i == j:
        return
    if item_offsets[i + 1] - item_offsets[i] > item_offsets[j + 1] - item_offsets[j]:
        i, j = j, i
    at, stop = item_offsets[j], item_offsets[j + 1]
    dot, common = np.int64(0), 0
    for position in range(item_offsets[i], item_offsets[i + 1]):
        at = gallop(item_user, at, stop, item_user[position])
        if at == stop:
            break
        if item_user[at] == item_user[position]:
            dot += np.int64(item_weight[position]) * item_weight[at]
            common += 1
    if common >= min_common and dot > 0:
        similarity[row, column] = np.float32(min(1.0, np.float64(dot) / (roots[i] * roots[j])))
        common_users[row, column] = common
