"""Row groups that libcudf decodes equal those of Arrow.

A stand-in on the host does the work of libcudf.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.backend.gpu.transfers import Transfers
from gpu_dcgen.errors import BackendError, ConfigError, InputError
from gpu_dcgen.training import gpu_row_groups as on_device
from gpu_dcgen.training.files import open_split
from gpu_dcgen.training.row_groups import RowGroupReader
from gpu_dcgen.training.stream import ContrastiveStream
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.libcudf_stand_in import Column, DistinctStrings, as_stored
from tests.support.training_datasets import ALL_SHAPES, get_dataset


class OnHost:
    """The part of `gpu_dcgen.backend.gpu.libcudf` that the reader calls, with NumPy's arrays.

    Lists have offsets, strings no codes.
    """

    def read_row_group(self, file, number, names):
        with pq.ParquetFile(file) as parquet:
            table = parquet.read_row_group(number, columns=list(names))
        return {
            name: Column(as_stored(table[name].combine_chunks())) for name in table.column_names
        }

    def split_lists(self, column):
        array = column.held
        if pa.types.is_fixed_size_list(array.type):
            return None, Column(as_stored(array.flatten()))
        return Column(array.offsets), Column(array.flatten())

    def to_arrays(self, column, dtype, xp):
        array = column.held
        is_valid = np.array(array.is_valid()) if array.null_count else None
        if pa.types.is_boolean(array.type):
            return np.array(array.to_numpy(zero_copy_only=False)), is_valid
        values = np.frombuffer(array.buffers()[1], dtype)[
            array.offset : array.offset + len(array)
        ].copy()
        if is_valid is not None:
            values[~is_valid] = 77  # what lies under a null is anything
        return values, is_valid

    def encode_strings(self, column, xp):
        values = column.held.drop_null().unique().sort()
        codes = pa.compute.index_in(column.held, value_set=values).fill_null(-1)
        return np.array(codes), DistinctStrings(values)


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setattr(
        on_device, "_open", lambda device: (OnHost(), Transfers(np), torch.device("cpu"))
    )


@pytest.mark.parametrize("shape", ALL_SHAPES)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_groups_are_equal(shape, split):
    files = open_split(get_dataset(shape), split)
    vocabularies = load_vocabularies(files.folder)
    theirs = RowGroupReader(files, vocabularies)
    ours = on_device.DeviceRowGroupReader(files, vocabularies, None, "cuda")
    for row_group in files.row_groups:
        expected, decoded = theirs.read(row_group), ours.read(row_group)
        for part in ("user_features", "item_features", "metadata"):
            assert getattr(decoded, part).keys() == getattr(expected, part).keys()
            for name, tensor in getattr(expected, part).items():
                assert getattr(decoded, part)[name].dtype == tensor.dtype, name
                assert torch.equal(getattr(decoded, part)[name], tensor), name


@pytest.mark.parametrize("settings", [{}, {"n_hard": 1, "n_random": 2}, {"distinct_items": True}])
def test_a_stream_of_either_reader_is_the_same(settings):
    readers = [
        ContrastiveStream(
            get_dataset(), reader=reader, device="cpu", batch_size=5, window=3, **settings
        )
        for reader in READERS
    ]
    for expected, decoded in zip(*readers, strict=True):
        assert torch.equal(
            expected["metadata"]["group_number"], decoded["metadata"]["group_number"]
        )
        assert torch.equal(
            expected["item_features"]["item_index"], decoded["item_features"]["item_index"]
        )


READERS = ("arrow", "cudf")


def test_what_no_vocabulary_knows_and_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    files = open_split(get_dataset())
    vocabularies = load_vocabularies(files.folder)
    reader = on_device.DeviceRowGroupReader(files, vocabularies, None, "cuda")
    vocabularies.categories["season"].clear()
    with pytest.raises(InputError, match="row group 0: column 'season' has"):
        reader.read(files.row_groups[0])
    monkeypatch.setattr(OnHost, "read_row_group", damaged)
    with pytest.raises(InputError, match="row group 0 cannot be read"):
        reader.read(files.row_groups[0])


def damaged(*_):
    raise OSError("libcudf cannot read it")


def test_a_reader_without_its_device_is_refused(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="reader 'cudf' with device None: expected device 'cuda'"):
        ContrastiveStream(get_dataset(), reader="cudf")
    with pytest.raises(ConfigError, match="reader 'dask': expected 'arrow' or 'cudf'"):
        ContrastiveStream(get_dataset(), reader="dask")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError):
            ContrastiveStream(get_dataset(), reader="cudf", device="cuda")
