"""Every call of libcudf (through pylibcudf): reading pieces of Parquet files, strings on the device, writing row groups.

libcudf and CuPy both run on the legacy default stream, so they see each other's arrays in order. Columns are views of arrays
and the other way round: no call here copies but where it says so.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pylibcudf as plc
from pylibcudf.io import parquet, types

from ..protocol import Array
from . import layout
from .transfers import Transfers

_CODECS = {"zstd": types.CompressionType.ZSTD, "snappy": types.CompressionType.SNAPPY}
_NO_LIMIT = (
    2**31 - 1
)  # rows a row group, bytes a dictionary: what is written is cut before, and the codec has its own limit


def read_pieces(
    file: Path, names: Sequence[str], piece_bytes: int
) -> Iterator[dict[str, plc.Column]]:
    """Named columns of a Parquet file in pieces, by their stored types; RuntimeError where the file cannot be decoded."""
    options = (
        parquet.ParquetReaderOptions.builder(types.SourceInfo([str(file)]))
        .column_names(list(names))
        .ignore_missing_columns(False)
        .use_arrow_schema(False)
        .use_pandas_metadata(False)
        .build()
    )
    with _reading(file):
        reader = parquet.ChunkedParquetReader(
            options, chunk_read_limit=piece_bytes, pass_read_limit=piece_bytes
        )
    while True:
        with _reading(file):
            if not reader.has_next():
                return
            columns = _by_name(reader.read_chunk())
        yield columns
        del columns  # before the next piece is decoded


def read_row_group(file: Path, number: int, names: Sequence[str]) -> dict[str, plc.Column]:
    """Named columns of one row group of a Parquet file, by their stored types; OSError where it cannot be decoded."""
    options = (
        parquet.ParquetReaderOptions.builder(types.SourceInfo([str(file)]))
        .column_names(list(names))
        .ignore_missing_columns(False)
        .use_arrow_schema(False)
        .use_pandas_metadata(False)
        .build()
    )
    options.set_row_groups([[number]])
    with _reading(file):
        return _by_name(parquet.read_parquet(options))


def list_parts(column: plc.Column) -> tuple[plc.Column, plc.Column]:
    """The offsets (n + 1,) int32 and the elements of a column of lists; views."""
    lists = column.list_view()
    return lists.offsets(), lists.child()


def _by_name(piece: Any) -> dict[str, plc.Column]:
    return dict(zip(piece.column_names(), piece.columns, strict=True))


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What libcudf says of a file's content becomes an OSError; errors of the device and full memory stay what they are."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, OverflowError) as error:
        if "CUDA error" in str(error) or "cudaError" in str(error):
            raise
        raise OSError(f"{file}: libcudf cannot read it: {error}") from error


def type_of(type_: pa.DataType) -> plc.DataType:
    """The libcudf type that holds values of an Arrow type."""
    return plc.DataType.from_arrow(type_)


def arrays(column: plc.Column, dtype: Any, xp: Any) -> tuple[Array, Array | None]:
    """The values (n,) of a column of fixed width as `dtype`, and which are valid (n,) bool, None if all; the mask is copied."""
    n = column.size()
    values = xp.asarray(column.data())[: n * dtype.itemsize].view(dtype)
    if not column.null_count():
        return values, None
    mask = xp.asarray(column.null_mask())[: -(-n // 8)]
    return values, xp.unpackbits(mask, bitorder="little")[:n].view(bool)


def encode_strings(column: plc.Column, xp: Any) -> tuple[Array, "Strings"]:
    """Codes (n,) int32 of a column of strings, -1 for null, and its distinct strings, sorted by their bytes."""
    keys, places = plc.transform.encode(plc.Table([column]))
    [values] = keys.columns()
    codes, _ = arrays(places, xp.dtype(xp.int32), xp)
    if not column.null_count():
        return codes, Strings(values)
    n_values = values.size() - 1  # null counts as a key, and sorts last
    return xp.where(codes == n_values, xp.int32(-1), codes), Strings(
        plc.copying.slice(values, [0, n_values])[0]
    )


class Strings:
    """Distinct strings on the device, sorted by their bytes, which is the order of code points."""

    def __init__(self, column: plc.Column) -> None:
        self._column = column

    def to_host(self, transfers: Transfers) -> pa.Array:
        """The strings (v,) as a host pyarrow string array, copied."""
        strings = self._column.to_arrow().cast(pa.string())
        transfers.to_host += strings.nbytes
        return strings

    def __len__(self) -> int:
        return self._column.size()

    def merged(self, others: Sequence["Strings"], xp: Any) -> tuple["Strings", Array]:
        """These strings and all others, and the place of each among them: (v + v1 + ...,) int32, these first."""
        places, merged = encode_strings(
            plc.concatenate.concatenate([part._column for part in (self, *others)]), xp
        )
        return merged, places


class Vocabularies:
    """Vocabularies as columns of strings on the device: each is uploaded once and kept as long as it is in use."""

    def __init__(self) -> None:
        self._columns: dict[int, plc.Column] = {}

    def column(self, vocabulary: Any, transfers: Transfers) -> plc.Column:
        """The strings of a `blocks.Vocabulary` (v,), and a null behind them, to which code v leads."""
        key = id(vocabulary)
        if key not in self._columns:
            strings = pa.concat_arrays(
                [vocabulary.strings.cast(pa.string()), pa.nulls(1, pa.string())]
            )
            transfers.to_device += strings.nbytes
            self._columns[key] = plc.Column.from_arrow(strings)
            weakref.finalize(vocabulary, self._columns.pop, key).atexit = False
        return self._columns[key]


StringsOf = Callable[[Any], plc.Column]  # `Vocabularies.column` of a vocabulary


class RowGroupWriter:
    """Writes laid out columns to one Parquet file, each `write` a row group, under the schema that is handed in.

    libcudf has no dictionary and no fixed-size list columns, so strings and lists are written in their place: Parquet stores all
    of them alike, and `metadata` holds the Arrow schema that tells readers what they are. Timestamps are marked as UTC: the
    writer of several row groups has no other way (`footer.mark_timestamps_local`). ZSTD has no levels here.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        settings: Any,
        metadata: Mapping[str, str],
        strings_of: StringsOf,
    ) -> None:
        self._path, self._schema, self._settings = path, schema, settings
        self._metadata, self._strings_of = metadata, strings_of
        self._writer: parquet.ChunkedParquetWriter | None = None

    def write(self, columns: Sequence[layout.Layout]) -> None:
        table = plc.Table([self._column(column) for column in columns])
        if self._writer is None:
            self._writer = parquet.ChunkedParquetWriter.from_options(self.options(table))
        self._writer.write(table)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close([])
        self._writer = None  # with its file handle

    def options(self, table: plc.Table) -> parquet.ChunkedParquetWriterOptions:
        """How all row groups are written; `table` is one of them."""
        settings = self._settings
        # Minima and maxima of all columns, in a page index as well, or none.
        level = types.StatisticsFreq[
            "STATISTICS_COLUMN" if settings.statistics else "STATISTICS_NONE"
        ]
        options = (
            parquet.ChunkedParquetWriterOptions.builder(types.SinkInfo([str(self._path)]))
            .metadata(self._named(table))
            .key_value_metadata([dict(self._metadata)])
            .compression(_CODECS[settings.compression])
            .stats_level(level)
            .row_group_size_rows(_NO_LIMIT)
            .max_dictionary_size(_NO_LIMIT)
            .write_arrow_schema(False)
            .build()
        )
        options.set_dictionary_policy(types.DictionaryPolicy.ADAPTIVE)
        return options

    def _named(self, table: plc.Table) -> types.TableInputMetadata:
        metadata = types.TableInputMetadata(table)
        for field, column in zip(self._schema, metadata.column_metadata, strict=True):
            column.set_name(field.name).set_nullability(field.nullable)
            if layout.is_list(field.type):
                column = column.child(1)  # child 0 holds the offsets
                column.set_name("element").set_nullability(field.type.value_field.nullable)
            if field.name in self._settings.encodings:
                column.set_encoding(types.ColumnEncoding[self._settings.encodings[field.name]])
        return metadata

    def _column(self, column: layout.Layout) -> plc.Column:
        match column:
            case layout.Flat():
                mask = None if column.mask is None else plc.gpumemoryview(column.mask)
                return _column(
                    plc.DataType.from_arrow(column.type), column.values, mask, column.null_count
                )
            case layout.Words():
                strings = self._strings_of(column.vocabulary)
                codes = _column(plc.DataType(plc.TypeId.INT32), column.codes)
                return plc.copying.gather(
                    plc.Table([strings]), codes, plc.copying.OutOfBoundsPolicy.DONT_CHECK
                ).columns()[0]
            case layout.Texts():
                offsets = _column(plc.DataType(plc.TypeId.INT32), column.offsets)
                return plc.Column(
                    plc.DataType(plc.TypeId.STRING),
                    len(column),
                    plc.gpumemoryview(column.text),
                    None,
                    0,
                    0,
                    [offsets],
                )
            case layout.Nested():
                children = [
                    _column(plc.DataType(plc.TypeId.INT32), column.offsets),
                    self._column(column.elements),
                ]
                return plc.Column(
                    plc.DataType(plc.TypeId.LIST), len(column), None, None, 0, 0, children
                )
        raise TypeError(f"no laid out column: {type(column).__name__}")


def _column(type_: plc.DataType, values: Array, mask: Any = None, n_nulls: int = 0) -> plc.Column:
    return plc.Column(type_, values.shape[0], plc.gpumemoryview(values), mask, n_nulls, 0, [])
