"""Scratch space of row kernels: a lane for each row that may run at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .protocol import Array, Backend


def allocate_lanes(
    backend: Backend, n_rows: int, zeros: Sequence[str] = (), **fields: tuple[int, Any]
) -> dict[str, Array]:
    """Allocate arrays (lanes, n), for fields of (n, dtype); those named in `zeros` are zero.

    There are as many lanes as the backend runs of `n_rows` rows at a time, with that much scratch
    space each.
    """
    xp = backend.xp
    lane_bytes = sum(n * xp.dtype(dtype).itemsize for n, dtype in fields.values())
    lanes = backend.count_lanes(lane_bytes, n_rows)
    return {
        name: (xp.zeros if name in zeros else xp.empty)(
            (lanes, n), dtype=dtype, order=backend.scratch_order
        )
        for name, (n, dtype) in fields.items()
    }
