"""Texts have places in the order in which they first appear, as Arrow's dictionaries have."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_fallback import tables, text_table
from cpu_fallback.text_table import TextTable, look_up, mark_occurring

# Lengths about a word of 8 bytes, and texts that differ in one byte anywhere.
TEXTS = st.text(st.sampled_from("ab\0é"), max_size=19)


def all_of(texts: pa.Array) -> np.ndarray:
    return np.ones(len(texts), dtype=bool)


@given(st.lists(st.lists(st.none() | TEXTS)), st.integers(0, 3))
def test_places_are_those_of_a_dictionary(chunks, start):
    chunks = [pa.array(chunk, pa.string())[start:] for chunk in chunks]
    table = TextTable()
    places = [table.add(chunk, all_of(chunk)) for chunk in chunks]
    expected = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    if isinstance(expected, pa.ChunkedArray):
        expected = expected.combine_chunks()
    assert table.to_arrow().equals(expected.dictionary)
    indices = expected.indices.fill_null(-1).to_pylist()
    assert [place for part in places for place in part.tolist()] == indices


def test_the_table_grows_and_finds_all_that_it_holds():
    texts = pa.array([f"customer-{number * 7919:x}" for number in range(20_000)])
    table = TextTable()
    for start in range(0, len(texts), 900):
        part = texts[start : start + 900]
        assert table.add(part, all_of(part)).tolist() == [*range(start, start + len(part))]
    table.to_arrow().validate(full=True)
    assert table.to_arrow().equals(texts)
    assert table.add(texts[::-1], all_of(texts)).tolist() == [*range(len(texts))][::-1]
    assert len(table.to_arrow()) == len(texts)


def test_an_empty_text_behind_full_memory_is_found():
    texts = pa.array([f"{number:0600d}" for number in range(60)] + [""])
    table = TextTable()
    table.add(texts, all_of(texts))
    assert len(table._text) > len("0") * 600 * 60
    assert table.add(texts[60:], all_of(texts[60:])).tolist() == [60]


def test_texts_that_are_not_wanted_are_left_out():
    table, texts = TextTable(), pa.array(["a", "b", None, "c", "a"])
    wanted = np.array([False, True, True, True, True])
    assert table.add(texts, wanted).tolist() == [-1, 0, -1, 1, 2]
    assert table.to_arrow().to_pylist() == ["b", "c", "a"]


def test_texts_of_one_hash_are_told_apart():
    held = np.frombuffer(b"abcdefgh-1abc", np.uint8)
    offsets, h = np.array([0, 10, 13]), np.uint64(0x123456789ABCDEF2)
    slots = np.full(4, text_table._FREE, np.int64)
    slots[2] = text_table._make_slot(h, 0)  # where a search for this hash begins
    for text, slot in ((b"abcdefgh-1", 2), (b"abcdefgh-2", 3), (b"abcdefgi-1", 3), (b"abc", 3)):
        characters = np.frombuffer(text, np.uint8)
        found = text_table._find_slot(h, characters, 0, len(text), slots, offsets, held)
        assert found == slot


def test_more_bytes_than_arrow_holds_are_an_error(monkeypatch):
    monkeypatch.setattr(text_table, "_MAX_TEXT", 5)
    table, texts = TextTable(), pa.array(["abc", "de", "f"])
    table.add(texts[:2], all_of(texts[:2]))
    assert table.to_arrow().to_pylist() == ["abc", "de"]
    table.add(texts, all_of(texts))
    with pytest.raises(pa.ArrowCapacityError, match="3 distinct texts have 6 bytes, at most 5"):
        table.to_arrow()


def test_rows_mark_and_look_up_entries():
    indices = np.array([2, -1, 0, 2], np.int32)
    assert mark_occurring(indices, 4).tolist() == [True, False, True, False]
    look_up(np.array([5, 6, 7], np.int32), indices, indices)
    assert indices.tolist() == [7, -1, 5, 7]


def test_text_and_numbers_in_one_column_are_an_error():
    for chunks in (["a"], [1]), ([1], ["a"]):
        with pytest.raises((pa.ArrowInvalid, TypeError)):
            tables.encode([pa.array(chunk) for chunk in chunks])
    codes, values = tables.encode([pa.nulls(2), pa.array([3, 1]), pa.nulls(1)])
    assert codes.tolist() == [-1, -1, 1, 0, -1] and values.to_pylist() == [1, 3]
