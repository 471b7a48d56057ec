"""Texts are sorted as Python sorts them, whatever they begin with and however long they are."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback.text_order import sort_texts

# Few characters, so that texts begin alike: of one to four bytes, and the one that is no byte.
TEXTS = st.lists(st.text(st.sampled_from("\0ab\u00e9\u20ac\U0001f600"), max_size=20))


@settings(max_examples=300)
@given(st.text("a\0", max_size=20), TEXTS, st.integers(0, 3))
def test_texts_are_sorted_by_code_point(prefix, endings, n_skipped):
    texts = [prefix + ending for ending in endings]
    array = pa.array([*["skipped"] * n_skipped, *texts], pa.string()).slice(n_skipped)
    order = sort_texts(array).tolist()
    assert sorted(order) == list(range(len(texts)))
    assert [texts[place] for place in order] == sorted(texts)


@pytest.mark.parametrize("n_digits", [3, 9, 17, 40])
def test_numbers_with_leading_zeros_are_sorted(n_digits):
    texts = [f"customer {number:0{n_digits}d}" for number in range(999, -1, -1)]
    assert sort_texts(pa.array(texts)).tolist() == list(range(999, -1, -1))
    pairs = [f"shop {a:0{n_digits}d} customer {b}" for a in range(9, -1, -1) for b in range(9)]
    assert sort_texts(pa.array(pairs)).tolist() == sorted(range(90), key=pairs.__getitem__)
