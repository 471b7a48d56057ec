"""Ids are found by their hashes as a search through all of them finds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_dcgen.auditing import texts as texts_module
from gpu_dcgen.auditing.output_columns import NOT_IN_VOCABULARY, NULL, encode_texts
from gpu_dcgen.auditing.texts import Vocabulary, find_positions

TEXTS = st.text(st.sampled_from("aé0"), max_size=3)


@given(st.lists(TEXTS, unique=True), st.lists(st.none() | TEXTS))
def test_texts_are_found_where_they_are(vocabulary, texts):
    vocabulary, texts = pa.array(vocabulary, pa.string()), pa.array(texts, pa.string())
    found = Vocabulary(vocabulary).find(texts)
    assert found.tolist() == find_positions(texts, vocabulary).tolist()
    column = texts.dictionary_encode()
    codes = encode_texts(column, Vocabulary(vocabulary))
    assert codes.tolist() == encode_texts(column, vocabulary).tolist()
    assert (codes == NULL).sum() == texts.null_count
    assert (codes == NOT_IN_VOCABULARY).sum() == (found < 0).sum() - texts.null_count


def test_texts_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(texts_module, "hash_texts", lambda texts: np.full(len(texts), 7, np.uint64))
    vocabulary = Vocabulary(pa.array(["a", "b", "c"]))
    assert vocabulary.find(pa.array(["c", "x", None, "a", "b"])).tolist() == [2, -1, -1, 0, 1]


def test_texts_of_other_hashes_need_no_search(monkeypatch):
    vocabulary = Vocabulary(pa.array([f"{number:04d}" for number in range(1000)]))
    monkeypatch.setattr(texts_module, "find_positions", lambda *_: pytest.fail("searched"))
    assert vocabulary.find(pa.array(["0999", "none", "0000", None])).tolist() == [999, -1, 0, -1]
