"""Blocks shrink to fit a memory limit, but not to single entries."""

from __future__ import annotations

from cpu_fallback import NumpyBackend


def test_blocks_fit_half_of_what_a_limit_leaves():
    assert NumpyBackend(1).choose_block_size(10_000, 1 << 40) == 10_000
    backend = NumpyBackend(1)
    backend._memory_limit = backend._memory.measure() + (64 << 20)
    assert 500 < backend.choose_block_size(10_000, 1 << 15) <= 1024


def test_a_limit_that_is_exceeded_leaves_blocks_that_are_worth_their_calls():
    backend = NumpyBackend(1, memory_limit=1)
    assert backend.choose_block_size(10_000, 1 << 20) == 256
    assert backend.choose_block_size(10, 1 << 20) == 10
