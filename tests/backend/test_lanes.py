"""Scratch space is zero only where a kernel counts on it."""

from __future__ import annotations

from gpu_dcgen.backend.lanes import allocate_lanes
from tests.support.strict_backend import StrictBackend


def test_only_the_named_fields_are_zero():
    backend = StrictBackend(n_lanes=3)
    xp = backend.xp
    fields = allocate_lanes(backend, 9, zeros=("slot",), slot=(4, xp.int32), item=(5, xp.int64))
    slot, item = backend.to_host(fields["slot"]), backend.to_host(fields["item"])
    assert (slot.shape, item.shape) == ((3, 4), (3, 5))
    assert (slot == 0).all() and (item != 0).all()  # `empty` is never zero there


def test_a_lane_is_asked_for_with_all_its_bytes():
    asked = []

    class Counting(StrictBackend):
        def count_lanes(self, lane_bytes, n_rows):
            asked.append((lane_bytes, n_rows))
            return 2

    backend = Counting()
    allocate_lanes(backend, 7, slot=(4, backend.xp.int32), item=(5, backend.xp.int64))
    assert asked == [(4 * 4 + 5 * 8, 7)]
