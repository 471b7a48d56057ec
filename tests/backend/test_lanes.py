"""Scratch space is zero only where a kernel counts on it."""

from __future__ import annotations

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.lanes import allocate_lanes
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.negative_sampler import candidates, sampling
from tests.support.shops import random_shop, tiny_config, write_shop
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


def test_hardly_any_scratch_of_a_build_is_filled_with_zeros(tmp_path, monkeypatch):
    """All of it, 200 kB a lane, was 28 GB of traffic a part on a GPU. Hash tables must be empty."""
    bytes_by_names = {}

    def allocate(backend, n_rows, zeros=(), **fields):
        bytes_by_names[tuple(zeros)] = sum(
            n * backend.xp.dtype(dtype).itemsize
            for name, (n, dtype) in fields.items()
            if name in zeros
        )
        return allocate_lanes(backend, n_rows, zeros, **fields)

    for stage in (candidates, sampling):
        monkeypatch.setattr(stage, "allocate_lanes", allocate)
    shop = random_shop(1, n_users=16, n_items=24, n_rows=260)
    tables, backend = write_shop(shop, tmp_path / "input"), NumpyBackend(1)
    build(tables, tmp_path / "output", tiny_config(), backend=backend)
    assert set(bytes_by_names) == {("slot",), ("stamps", "state")}
    assert max(bytes_by_names.values()) < 1 << 13
