"""Scratch space of row kernels: a lane for each row that may run at the same time."""

from __future__ import annotations

from typing import Any

from .protocol import Array, Backend


def allocate_lanes(backend: Backend, **fields: tuple[int, Any]) -> dict[str, Array]:
    """Allocate arrays of zeros (lanes, n), for fields of (n, dtype).

    There are as many lanes as the backend runs rows at a time with that much scratch space each.
    """
    xp = backend.xp
    lane_bytes = sum(n * xp.dtype(dtype).itemsize for n, dtype in fields.values())
    lanes = backend.count_lanes(lane_bytes)
    return {
        name: xp.zeros((lanes, n), dtype=dtype, order=backend.scratch_order)
        for name, (n, dtype) in fields.items()
    }
