"""A stand-in for `gpu_dcgen.backend.gpu.libcudf`: pyarrow behind its functions, strict arrays out.

The code around libcudf is tested with it where there is no GPU. Files are as libcudf writes them:
strings are not dictionaries, lists have no fixed size, timestamps are marked as UTC, and the only
Arrow schema is the given one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cpu_fallback.parquet import is_list
from cpu_fallback.tables import is_text
from gpu_dcgen.backend.gpu import layout
from tests.support.strict_array import StrictArray, Syncs


@dataclass(frozen=True)
class Column:
    held: pa.Array

    def type(self):
        return self.held.type

    def size(self):
        return len(self.held)

    def null_count(self):
        return self.held.null_count


def type_of(type_):
    return type_


def read_pieces(file, names, piece_bytes):
    """A row group a piece, as Parquet itself types it (no Arrow schema), in the file's order of
    columns.
    """
    with pq.ParquetFile(file) as parquet:
        order = [name for name in parquet.schema_arrow.names if name in names]
        for index in range(parquet.num_row_groups):
            table = parquet.read_row_group(index, columns=order)
            yield {name: Column(as_stored(table[name].combine_chunks())) for name in order}


def as_stored(array):
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp(array.type.unit))
    return array.cast(pa.string()) if is_text(array.type) else array


def to_arrays(column, dtype, xp):
    """Values with something in the place of nulls, and a bool per row."""
    array = column.held
    values = np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    return on_device(values, xp), None if valid is None else on_device(valid, xp)


def encode_strings(column, xp):
    values = column.held.drop_null().unique().sort()
    return on_device(
        pc.index_in(column.held, value_set=values).fill_null(-1).to_numpy(), xp
    ), DistinctStrings(values)


def on_device(values, xp):
    return StrictArray(np.array(values), Syncs())


class DistinctStrings:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def to_host(self, transfers):
        transfers.count_download(self.values.nbytes)
        return self.values

    @classmethod
    def merge(cls, parts, xp):
        codes, merged = encode_strings(Column(pa.concat_arrays([p.values for p in parts])), xp)
        return merged, codes


class Vocabularies:
    def column(self, vocabulary, transfers):
        return pa.concat_arrays([vocabulary.strings.cast(pa.string()), pa.nulls(1, pa.string())])


class RowGroupWriter:
    """Writes what libcudf would, by pyarrow."""

    def __init__(self, path, schema, settings, metadata, upload_strings):
        self._upload_strings = upload_strings
        self._schema, self._settings = schema, settings
        fields = [
            pa.field(field.name, libcudf_type(field.type), field.nullable) for field in schema
        ]
        self._stored = pa.schema(fields)
        self._writer = pq.ParquetWriter(
            path,
            self._stored,
            compression=settings.compression,
            write_statistics=bool(settings.statistics),
            write_page_index=bool(settings.statistics),
            dictionary_pagesize_limit=2**30,
            store_schema=False,
        )
        self._writer.add_key_value_metadata(metadata)

    def write(self, columns):
        arrays = [
            self.as_arrow(column).cast(field.type)
            for column, field in zip(columns, self._stored, strict=True)
        ]
        table = pa.Table.from_arrays(arrays, schema=self._stored)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self):
        self._writer.close()

    def as_arrow(self, column):
        match column:
            case layout.Flat():
                values = column.values.host
                values = np.packbits(values, bitorder="little") if values.dtype == bool else values
                mask = None if column.mask is None else pa.py_buffer(column.mask.host)
                array = pa.Array.from_buffers(
                    column.type, len(column), [mask, pa.py_buffer(values)]
                )
                assert array.null_count == column.null_count
                assert mask is None or mask.size % 64 == 0  # libcudf reads whole cache lines
                return array
            case layout.CodedStrings():
                array = self._upload_strings(column.vocabulary).take(pa.array(column.codes.host))
                assert array.null_count == column.null_count
                return array
            case layout.Strings():
                return pa.Array.from_buffers(
                    pa.string(),
                    len(column),
                    [None, pa.py_buffer(column.offsets.host), pa.py_buffer(column.text.host)],
                )
            case layout.NestedLists():
                return pa.ListArray.from_arrays(
                    pa.array(column.offsets.host), self.as_arrow(column.elements)
                )
        raise TypeError(type(column).__name__)


def libcudf_type(type_):
    """The type in which libcudf writes an Arrow type."""
    if is_list(type_):
        element = type_.value_field
        return pa.list_(pa.field("element", libcudf_type(element.type), element.nullable))
    if pa.types.is_dictionary(type_):
        return pa.string()
    return pa.timestamp(type_.unit, "UTC") if pa.types.is_timestamp(type_) else type_
