"""Call libcudf (through pylibcudf): read Parquet files, encode strings, write row groups.

libcudf and CuPy both run on the legacy default stream, so each sees the other's work in order.
Columns are views of arrays and the other way round: nothing is copied unless a docstring says so.
Written against the stubs of pylibcudf 26.10, not yet run on a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pylibcudf as plc
from pylibcudf.io import parquet, types

from cpu_fallback.parquet import is_list

from ..blocks import Vocabulary
from ..protocol import Array
from . import layout
from .transfers import Transfers

_CODECS = {"zstd": types.CompressionType.ZSTD, "snappy": types.CompressionType.SNAPPY}
# Of the rows of a row group and the bytes of a dictionary: blocks are cut before they are written,
# and the codec has its own limit.
_NO_LIMIT = 2**31 - 1


def read_pieces(
    file: Path, names: Sequence[str], piece_bytes: int
) -> Iterator[dict[str, plc.Column]]:
    """Yield pieces of named columns of a Parquet file, by their stored types.

    OSError where the file cannot be decoded.
    """
    options = _reader_options(file, names)
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
    """Read named columns of one row group of a Parquet file, by their stored types.

    OSError where it cannot be decoded.
    """
    options = _reader_options(file, names)
    options.set_row_groups([[number]])
    with _reading(file):
        return _by_name(parquet.read_parquet(options))


def split_lists(column: plc.Column) -> tuple[plc.Column, plc.Column]:
    """Return views of the offsets (n + 1,) int32 and the elements of a column of lists."""
    lists = column.list_view()
    return lists.offsets(), lists.child()


def _reader_options(file: Path, names: Sequence[str]) -> Any:
    return (
        parquet.ParquetReaderOptions.builder(types.SourceInfo([str(file)]))
        .column_names(list(names))
        .ignore_missing_columns(False)
        .use_arrow_schema(False)
        .use_pandas_metadata(False)
        .build()
    )


def _by_name(piece: Any) -> dict[str, plc.Column]:
    return dict(zip(piece.column_names(), piece.columns, strict=True))


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raise libcudf's errors about a file's content as OSError; other errors pass unchanged."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, OverflowError) as error:
        if "CUDA error" in str(error) or "cudaError" in str(error):
            raise
        raise OSError(f"{file}: libcudf cannot read it: {error}") from error


def type_of(type_: pa.DataType) -> plc.DataType:
    """Return the libcudf type that holds values of an Arrow type."""
    return plc.DataType.from_arrow(type_)


def to_arrays(column: plc.Column, dtype: Any, xp: Any) -> tuple[Array, Array | None]:
    """Return values (n,) of a fixed-width column as `dtype`, and valid (n,) bool (None: all).

    The mask is copied.
    """
    n = column.size()
    values = xp.asarray(column.data())[: n * dtype.itemsize].view(dtype)
    if not column.null_count():
        return values, None
    mask = xp.asarray(column.null_mask())[: -(-n // 8)]
    return values, xp.unpackbits(mask, bitorder="little")[:n].view(bool)


def encode_strings(column: plc.Column, xp: Any) -> tuple[Array, DistinctStrings]:
    """Return codes (n,) int32 of a column of strings, -1 for null, and its distinct strings.

    The strings are sorted by their bytes.
    """
    keys, places = plc.transform.encode(plc.Table([column]))
    [values] = keys.columns()
    codes, _ = to_arrays(places, xp.dtype(xp.int32), xp)
    if not column.null_count():
        return codes, DistinctStrings(values)
    n_values = values.size() - 1  # null counts as a key, and sorts last
    codes = xp.where(codes == n_values, xp.int32(-1), codes)
    return codes, DistinctStrings(plc.copying.slice(values, [0, n_values])[0])


class DistinctStrings:
    """Distinct strings on the device, sorted by bytes, which is the order of code points."""

    def __init__(self, column: plc.Column) -> None:
        self._column = column

    def to_host(self, transfers: Transfers) -> pa.Array:
        """Copy the strings (v,) to a pyarrow string array on the host."""
        strings = self._column.to_arrow().cast(pa.string())
        transfers.count_download(strings.nbytes)
        return strings

    def __len__(self) -> int:
        return self._column.size()

    @classmethod
    def merge(cls, parts: Sequence[DistinctStrings], xp: Any) -> tuple[DistinctStrings, Array]:
        """Return the distinct strings of all parts, and each part's codes into them, concatenated.

        Codes are (v0 + v1 + ...,) int32.
        """
        columns = [part._column for part in parts]
        codes, merged = encode_strings(plc.concatenate.concatenate(columns), xp)
        return merged, codes


class Vocabularies:
    """Vocabularies as columns of strings on the device, each uploaded once and freed with it."""

    def __init__(self) -> None:
        self._columns: dict[int, plc.Column] = {}
        self._uploading = Lock()

    def column(self, vocabulary: Vocabulary, transfers: Transfers) -> plc.Column:
        """Return the strings of a vocabulary (v,) followed by a null, for code v."""
        key = id(vocabulary)
        with self._uploading:
            if key not in self._columns:
                strings = pa.concat_arrays(
                    [vocabulary.strings.cast(pa.string()), pa.nulls(1, pa.string())]
                )
                transfers.count_upload(strings.nbytes)
                self._columns[key] = plc.Column.from_arrow(strings)
                weakref.finalize(vocabulary, self._columns.pop, key).atexit = False
            return self._columns[key]


UploadStrings = Callable[[Vocabulary], plc.Column]


class RowGroupWriter:
    """Writes laid out columns to one Parquet file, a row group a `write`.

    libcudf has no dictionary and no fixed-size list columns, so strings and lists are written
    instead: Parquet stores them alike, and `metadata` holds the Arrow schema that readers use.
    Timestamps are marked as UTC, which libcudf's writer of several row groups cannot avoid
    (`footer.mark_timestamps_local`). ZSTD has no levels here.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        settings: Any,
        metadata: Mapping[str, str],
        upload_strings: UploadStrings,  # `Vocabularies.column`
    ) -> None:
        self._path, self._schema, self._settings = path, schema, settings
        self._metadata, self._upload_strings = metadata, upload_strings
        self._writer: parquet.ChunkedParquetWriter | None = None

    def write(self, columns: Sequence[layout.Layout]) -> None:
        """Write one row group."""
        table = plc.Table([self._column(column) for column in columns])
        if self._writer is None:
            self._writer = parquet.ChunkedParquetWriter.from_options(self.options(table))
        self._writer.write(table)

    def close(self) -> None:
        """Write the footer and close the file."""
        if self._writer is not None:
            self._writer.close([])
        self._writer = None  # closes the file

    def options(self, table: plc.Table) -> parquet.ChunkedParquetWriterOptions:
        """Return the options of all row groups; `table` is one of them."""
        settings = self._settings
        # Minima and maxima of all columns, in a page index as well, or none.
        statistics = "STATISTICS_COLUMN" if settings.statistics else "STATISTICS_NONE"
        options = (
            parquet.ChunkedParquetWriterOptions.builder(types.SinkInfo([str(self._path)]))
            .metadata(self._table_metadata(table))
            .key_value_metadata([dict(self._metadata)])
            .compression(_CODECS[settings.compression])
            .stats_level(types.StatisticsFreq[statistics])
            .row_group_size_rows(_NO_LIMIT)
            .max_dictionary_size(_NO_LIMIT)
            .write_arrow_schema(False)
            .build()
        )
        options.set_dictionary_policy(types.DictionaryPolicy.ADAPTIVE)
        return options

    def _table_metadata(self, table: plc.Table) -> types.TableInputMetadata:
        metadata = types.TableInputMetadata(table)
        for field, column in zip(self._schema, metadata.column_metadata, strict=True):
            column.set_name(field.name).set_nullability(field.nullable)
            if is_list(field.type):
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
            case layout.CodedStrings():
                strings = self._upload_strings(column.vocabulary)
                codes = _column(plc.DataType(plc.TypeId.INT32), column.codes)
                return plc.copying.gather(
                    plc.Table([strings]), codes, plc.copying.OutOfBoundsPolicy.DONT_CHECK
                ).columns()[0]
            case layout.Strings():
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
            case layout.NestedLists():
                children = [
                    _column(plc.DataType(plc.TypeId.INT32), column.offsets),
                    self._column(column.elements),
                ]
                return plc.Column(
                    plc.DataType(plc.TypeId.LIST), len(column), None, None, 0, 0, children
                )
        raise TypeError(f"{type(column).__name__} is not a laid out column")


def _column(type_: plc.DataType, values: Array, mask: Any = None, n_nulls: int = 0) -> plc.Column:
    return plc.Column(type_, values.shape[0], plc.gpumemoryview(values), mask, n_nulls, 0, [])
