"""Encodings of integers, ids and structs, against decoders written from their specifications.

https://parquet.apache.org/docs/file-format/data-pages/encodings/, and Thrift's compact protocol.
"""

from itertools import pairwise
from os.path import commonprefix

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback import thrift
from cpu_fallback.hybrid import encode_delta, encode_hybrid, encode_run
from cpu_fallback.sample_ids import count_group_bytes, encode_sample_ids
from gpu_dcgen.backend.blocks import SampleIds
from gpu_dcgen.thrift import CompactReader

INT32 = np.iinfo(np.int32)


class Bytes:
    """Bytes that are read from front to back."""

    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def take(self, n):
        self.at += n
        assert self.at <= len(self.data), "the encoding breaks off"
        return self.data[self.at - n : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def zigzag(self):
        value = self.varint()
        return value >> 1 if value % 2 == 0 else -(value + 1) // 2

    def unpack(self, n, width):
        bits = int.from_bytes(self.take(n * width // 8), "little")
        return [bits >> k * width & (1 << width) - 1 for k in range(n)]


def decode_hybrid(data, n, width):
    source, values = Bytes(data), []
    while len(values) < n:
        header = source.varint()
        assert header >> 1, "an empty run"
        if header & 1:
            packed = source.unpack((header >> 1) * 8, width)
            assert not any(packed[n - len(values) :]), "bits after the last value"
            values += packed
        else:
            values += [int.from_bytes(source.take((width + 7) // 8), "little")] * (header >> 1)
    assert source.at == len(source.data), "bytes after the last value"
    return values[:n]


def decode_delta(source):
    block, n_mini, n = source.varint(), source.varint(), source.varint()
    values, size = [source.zigzag()], block // n_mini
    while len(values) < n:
        least, widths = source.zigzag(), source.take(n_mini)
        for width in widths:
            if len(values) < n:
                for delta in source.unpack(size, width):
                    values.append(values[-1] + least + delta)
            else:
                assert width == 0
    return values[:n]


def join(buffers):
    return b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers)


@pytest.mark.parametrize("width", range(1, 32))
@pytest.mark.parametrize("repeats", [1, 3, 16])
def test_integers_of_every_width_decode(width, repeats):
    rng = np.random.default_rng([width, repeats])
    for n in (1, 7, 8, 9, 63, 64, 65, 1_000):
        values = rng.integers(0, 1 << width, n).astype(np.int32)
        values[-1] = (1 << width) - 1
        data = join(encode_hybrid(values, repeats, width))
        assert decode_hybrid(data, n * repeats, width) == values.repeat(repeats).tolist()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300)), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_runs_of_any_length_decode(runs):
    values = np.repeat(*np.array(runs).T).astype(np.int32)
    assert decode_hybrid(join(encode_hybrid(values, 1, 3)), len(values), 3) == values.tolist()


def test_runs_are_chosen_where_they_are_shorter():
    by_group = np.arange(1_000, dtype=np.int32)
    assert len(join(encode_hybrid(by_group, 16, 10))) == 1_000 * 3
    assert len(join(encode_hybrid(by_group, 1, 10))) == 2 + 1_000 * 10 // 8
    assert len(join(encode_hybrid(np.zeros(100_000, np.int32), 1, 10))) == 3 + 2


def test_one_run_decodes():
    for width, value in ((1, 1), (8, 200), (9, 300), (31, 2**31 - 1)):
        assert decode_hybrid(encode_run(value, 1_000, width), 1_000, width) == [value] * 1_000


def test_nothing_is_encoded_as_nothing():
    assert join(encode_hybrid(np.zeros(0, np.int32), 16, 3)) == b""


@given(
    st.one_of(
        st.lists(st.integers(INT32.min, INT32.max), min_size=1, max_size=300),
        st.lists(st.integers(0, 30), min_size=1, max_size=300),
    )
)
@settings(max_examples=60, deadline=None)
def test_differences_decode(values):
    source = Bytes(encode_delta(np.array(values, np.int32)))
    assert decode_delta(source) == values
    assert source.at == len(source.data)


@pytest.mark.parametrize("first_group", [0, 8, 95, 999_995, 4_294_967_290])
@pytest.mark.parametrize("n_slots", [1, 16, 101])
def test_sample_ids_decode(first_group, n_slots):
    column = SampleIds("val", first_group, 20, n_slots)
    source = Bytes(join(encode_sample_ids(column, 3, 17)))
    prefixes, suffixes = decode_delta(source), decode_delta(source)
    ids, previous = [], b""
    for prefix, suffix in zip(prefixes, suffixes, strict=True):
        previous = previous[:prefix] + source.take(suffix)
        ids.append(previous.decode())
    assert source.at == len(source.data)
    expected = [
        f"val-{first_group + group:010d}-{slot:02d}"
        for group in range(3, 17)
        for slot in range(n_slots)
    ]
    assert ids == expected
    assert count_group_bytes(column) == sum(map(len, expected)) // 14


def test_an_id_stores_only_what_differs_from_the_one_before():
    *_, text = encode_sample_ids(SampleIds("train", 0, 100, 16), 0, 100)
    ids = [f"train-{group:010d}-{slot:02d}" for group in range(100) for slot in range(16)]
    shared = [len(commonprefix(pair)) for pair in pairwise(ids)]
    assert len(text) == sum(map(len, ids)) - sum(shared)


def test_the_reader_of_structs_reads_what_is_written():
    numbers = [0, -1, 1, 63, -64, 64, 127, 128, -(2**63), 2**63 - 1]
    inner = thrift.StructWriter().add_bool(1, True).add_bool(2, False).finish()
    writer = thrift.StructWriter().add_integer(1, -5).add_integer(2, None)
    writer.add_integer(3, 2**40, thrift.I64).add_integer(4, 3, thrift.I16).add_byte(5, 8)
    writer.add_binary(7, b"\0text").add_binary(8, None).add_struct(9, inner)
    writer.add_list(10, thrift.I64, [thrift.encode_integer(n) for n in numbers])
    writer.add_list(25, thrift.STRUCT, [inner] * 15)
    writer.add_list(26, thrift.TRUE, thrift.encode_booleans([True, False]))
    data = writer.finish()
    reader = CompactReader(data)
    assert reader.read_struct() == {
        1: -5,
        3: 2**40,
        4: 3,
        5: b"\x08",
        7: b"\0text",
        9: {1: True, 2: False},
        10: numbers,
        25: [{1: True, 2: False}] * 15,
        26: [b"\1", b"\2"],
    }
    assert reader.position == len(data)


def test_fields_come_by_rising_number():
    for number in (3, 2, 19):
        with pytest.raises(ValueError, match=f"field {number} after field 3"):
            thrift.StructWriter().add_integer(3, 1).add_integer(number, 1)
