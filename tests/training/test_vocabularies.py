"""Ids and categories become the integers that the dataset's vocabularies give them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.errors import InputError
from gpu_dcgen.training import vocabularies
from gpu_dcgen.training.vocabularies import IdIndex, load_vocabularies, map_dictionary
from tests.support.training_datasets import get_dataset

IDS = st.lists(st.text(max_size=12), unique=True, max_size=40)


@settings(deadline=None)
@given(IDS, IDS)
def test_an_id_is_found_where_it_is_and_no_other_one_is(ids, more_ids):
    wanted = [ids.index(value) if value in ids else -1 for value in (*ids, *more_ids)]
    assert (
        IdIndex(pa.array(ids, pa.string())).find(pa.array([*ids, *more_ids], pa.string())).tolist()
        == wanted
    )


def test_ids_that_differ_by_zero_bytes_or_order_are_told_apart():
    ids = ["", "\0", "\0\0", "ab", "ba", "ab\0"]
    assert IdIndex(pa.array(ids)).find(pa.array(ids[::-1])).tolist() == [5, 4, 3, 2, 1, 0]


def test_a_slice_of_a_longer_array_is_looked_up_alone():
    index = IdIndex(pa.array(["x", "a", "bb", "c"]).slice(1))
    assert index.find(pa.array(["zz", "bb", "x", None]).slice(1)).tolist() == [1, -1, -1]


def test_ids_of_several_chunks_of_the_hash_are_found(monkeypatch):
    monkeypatch.setattr(vocabularies, "_CHUNK_IDS", 3)
    ids = [f"{number:03d}" for number in range(10)]
    assert IdIndex(pa.array(ids)).find(pa.array(ids)).tolist() == list(range(10))


def test_hashes_that_agree_are_replaced_by_another_hash(monkeypatch):
    plain = vocabularies._hash
    first = vocabularies._PRIMES[0]
    monkeypatch.setattr(
        vocabularies,
        "_hash",
        lambda ids, p: np.zeros(len(ids), np.uint64) if p == first else plain(ids, p),
    )
    assert IdIndex(pa.array(["a", "b"])).find(pa.array(["b", "c"])).tolist() == [1, -1]


def test_an_id_that_is_there_twice_is_refused():
    with pytest.raises(InputError, match="some occur twice"):
        IdIndex(pa.array(["a", "b", "a"]))


def test_codes_count_from_one_and_null_is_zero():
    array = pa.array(["b", None, "a"]).dictionary_encode()
    assert map_dictionary(array, np.array([7, 9], np.int32)).tolist() == [7, 0, 9]


def test_sizes_are_those_of_embedding_tables():
    dataset = get_dataset()
    known = load_vocabularies(dataset)
    sizes = json.loads((dataset / "vocabulary.json").read_text())["sizes"]
    assert known.sizes()["item_index"] == sizes["items"] + 1
    assert known.sizes()["season"] == 5
    assert known.sizes()["sales_channel"] == 4
