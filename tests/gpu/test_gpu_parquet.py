"""The GPU's part writer writes what the CPU's writes: every case of
`tests/cpu_fallback/test_writer.py` that is about content.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.backend.blocks import Block, Codes, Matrix, Values
from gpu_dcgen.backend.gpu import parquet as gpu
from gpu_dcgen.contract import schema as contract
from gpu_dcgen.digest import digest_file, vocabulary
from tests.cpu_fallback import test_writer
from tests.cpu_fallback.test_writer import *  # noqa: F403  all its tests, on the GPU's writer
from tests.cpu_fallback.test_writer import CPU, WIDTH, decoded, sample_block, write, write_column
from tests.gpu.machines import StrictTransfers
from tests.support.backends import open_gpu
from tests.support.strict_backend import StrictBackend

# How the CPU stores things, which is not what they say.
del test_equal_blocks_give_equal_bytes_also_beside_another_writer  # noqa: F821  libcudf fills dictionaries in any order
del test_a_row_group_carries_the_ids_that_occur_in_it_alone  # noqa: F821  likewise
del test_a_category_has_the_same_dictionary_in_every_row_group  # noqa: F821  libcudf writes the strings that occur
del test_columns_that_no_filter_needs_have_no_statistics  # noqa: F821  libcudf gives them to all columns or none


def find_for_each(transfers):
    """Return how kernels run on the arrays of `transfers`."""
    if isinstance(transfers, StrictTransfers):
        return StrictBackend().for_each
    return open_gpu()[0].for_each


class OnDevice:
    """`cpu_fallback.parquet.PartWriter` for the tests: their blocks of NumPy arrays are uploaded
    and written by the device.
    """

    def __init__(self, transfers, vocabularies):
        self.transfers, self.vocabularies = transfers, vocabularies
        self.for_each = find_for_each(transfers)

    def __call__(self, path, schema, settings):
        writer = gpu.PartWriter(
            path,
            schema,
            settings,
            vocabularies=self.vocabularies,
            transfers=self.transfers,
            for_each=self.for_each,
        )
        write = writer.write
        writer.write = lambda block: write(self.upload(block))
        return writer

    def upload(self, block):
        return dataclasses.replace(
            block, columns={name: self.uploaded(column) for name, column in block.columns.items()}
        )

    def uploaded(self, column):
        values = {field.name: getattr(column, field.name) for field in dataclasses.fields(column)}
        moved = {
            name: self.transfers.upload(value)
            for name, value in values.items()
            if isinstance(value, np.ndarray)
        }
        return dataclasses.replace(column, **moved)


@pytest.fixture(autouse=True, scope="module")
def on_device(transfers):
    from gpu_dcgen.backend.gpu import libcudf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_writer, "PartWriter", OnDevice(transfers, libcudf.Vocabularies()))
        yield test_writer.PartWriter


def test_both_backends_write_the_same_table(tmp_path, on_device):
    from cpu_fallback import PartWriter

    blocks = [sample_block(20, first)[0] for first in (0, 20)]
    theirs = write(tmp_path / "gpu.parquet", blocks, rows_per_row_group=24)
    schema, settings = (
        contract.make_arrow_schema("train_dataset"),
        contract.make_writer_settings("train_dataset", rows_per_row_group=24),
    )
    with PartWriter(tmp_path / "cpu.parquet", schema, settings) as writer:
        for block in blocks:
            writer.write(block)
    ours, result = pq.ParquetFile(tmp_path / "cpu.parquet"), pq.ParquetFile(theirs)
    assert result.schema_arrow.equals(ours.schema_arrow, check_metadata=True)
    assert result.metadata.metadata == ours.metadata.metadata
    row_groups = [
        [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        for file in (ours, result)
    ]
    assert row_groups[0] == row_groups[1]
    assert decoded(result.read()) == decoded(ours.read())
    assert digest_file(theirs, CPU) == digest_file(tmp_path / "cpu.parquet", CPU)
    stored = [
        [(leaf.path, leaf.physical_type, leaf.max_definition_level) for leaf in leaves(file)]
        for file in (ours, result)
    ]
    assert stored[0] == stored[1]
    ours.close()
    result.close()


def leaves(file):
    return [file.schema.column(k) for k in range(len(file.schema.names))]


@pytest.mark.parametrize("shape", ["n_tuple", "triplet"])
def test_other_shapes_have_the_same_schema_with_rows_too(tmp_path, shape):
    schema = contract.make_arrow_schema("train_dataset", shape=shape, n_negatives=3)
    words = vocabulary(["a", "b"], CPU)
    block = Block(0, 2, {field.name: column_of(field.type, words, 2) for field in schema})
    path = write(tmp_path / "a.parquet", [block], schema, encodings={})
    result = pq.read_table(path)
    result.validate(full=True)
    assert result.schema.equals(schema, check_metadata=True)
    assert result.num_rows == 2


def column_of(type_, words, n):
    if pa.types.is_fixed_size_list(type_):
        is_words = pa.types.is_string(type_.value_type) or pa.types.is_dictionary(type_.value_type)
        dtype = np.int32 if is_words else type_.value_type.to_pandas_dtype()
        return Matrix(np.ones((n, type_.list_size), dtype), None, words if is_words else None)
    if pa.types.is_list(type_):
        lengths = np.arange(n, dtype=np.int32) % 2 * 2
        return test_writer.Lists(np.ones(2, np.int32), np.zeros(n, np.int64), lengths)
    if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
        return Codes(np.arange(n) % 2, words)
    return Values(np.ones(n, np.int64 if pa.types.is_timestamp(type_) else type_.to_pandas_dtype()))


def test_a_matrix_of_another_width_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="a.parquet: column 'x': rows of 3 elements for fixed_size_list"
    ):
        write_column(
            tmp_path / "a.parquet", pa.list_(pa.int32(), 2), Matrix(np.zeros((2, 3), np.int32)), 2
        )


@pytest.mark.parametrize("n_rows", [1, 7, 8, 9, 511, 512, 513])
def test_nulls_fall_where_they_belong_at_every_length_of_the_mask(tmp_path, n_rows):
    valid = np.arange(n_rows) % 3 > 0
    result = write_column(
        tmp_path / "a.parquet", pa.int16(), Values(np.arange(n_rows, dtype=np.int16), valid), n_rows
    )
    assert result.to_pylist() == [row if row % 3 else None for row in range(n_rows)]


def test_a_file_counts_as_brought_from_the_device(tmp_path, on_device):
    before = on_device.transfers.to_host
    path = write(tmp_path / "a.parquet", [sample_block()[0]])
    n_bytes = on_device.transfers.to_host - before - path.stat().st_size
    assert 0 < n_bytes <= 8 * 4 * len(pq.read_schema(path))  # numbers of its columns


@pytest.mark.parametrize("rows_per_row_group", [8, 48])
@pytest.mark.parametrize("shape", ["labeled_pair", "n_tuple", "triplet"])
def test_a_block_waits_for_the_device_once(tmp_path, on_device, shape, rows_per_row_group):
    """Not once for each column, nor for each row group."""
    if not isinstance(on_device.transfers, StrictTransfers):
        pytest.skip("only strict arrays count waits")
    schema = contract.make_arrow_schema("train_dataset", shape=shape, n_negatives=3)
    if shape == "labeled_pair":
        block, _ = sample_block(12)
    else:
        words = vocabulary(["a", "b"], CPU)
        block = Block(0, 20, {field.name: column_of(field.type, words, 20) for field in schema})
    syncs, encodings = on_device.transfers._syncs, {"sample_id": "DELTA_BYTE_ARRAY"}
    before = syncs.count
    write(
        tmp_path / "a.parquet",
        [block, block],
        schema,
        rows_per_row_group=rows_per_row_group,
        encodings=encodings if shape == "labeled_pair" else {},
    )
    assert syncs.count - before == 2  # blocks


def test_integers_of_any_types_come_to_the_host_at_once(transfers):
    values = [np.int8(-1), np.int32(7), np.int8(3), np.int64(1 << 40), np.int32(-9)]
    scalars = [transfers.upload(np.array([value])).max() for value in values]
    before = transfers.to_host
    assert transfers.download_integers(scalars) == [-1, 7, 3, 1 << 40, -9]
    assert transfers.to_host - before == 8 * len(values)
    assert transfers.download_integers([]) == []


def test_a_failed_row_group_leaves_no_file(tmp_path):
    block = sample_block()[0]
    short = dataclasses.replace(
        block, columns={**block.columns, "label": Values(np.zeros(WIDTH, np.float32))}
    )
    with pytest.raises(ValueError, match="column 'label': 4 rows where the block has 24"):
        write(tmp_path / "a.parquet", [block, short])
    assert not (tmp_path / "a.parquet").exists()


def test_a_folder_that_is_not_there_is_found_before_any_work(tmp_path):
    def blocks():
        raise AssertionError("work was done")
        yield

    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "a.parquet", blocks())
