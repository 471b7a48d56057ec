"""Fixtures of the similarity tests."""

from __future__ import annotations

import pytest

from gpu_dcgen.similarity_computer import approximate

# Searching is no work: all items are searched for.
NO_WORK = {"STEP_PRODUCTS": 0, "VECTOR_PRODUCTS": 0, "CELL_PRODUCTS": 0}


@pytest.fixture
def search_all_items(monkeypatch) -> None:
    """Have the approximate engine search for all items; in small shops counting is less work."""
    for name, products in NO_WORK.items():
        monkeypatch.setattr(approximate, name, products)
