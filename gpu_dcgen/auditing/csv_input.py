"""Read CSV files of the input tables: every column as text, one at a time (D1)."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from ..config import CsvConfig

_CSV_NAME = re.compile(r"\.(csv|tsv)(\.(gz|zst|bz2|lz4|br))?$", re.IGNORECASE)
_NUMBERS = ("price", "age", "sales_channel_id")
_BLOCK_BYTES = 16 << 20  # at least as long as the longest line


def is_csv(file: Path) -> bool:
    """Whether the name of a file is that of a CSV file."""
    return _CSV_NAME.search(file.name) is not None


def read_csv_names(file: Path, config: CsvConfig) -> list[str]:
    """Return the names in the first line. ArrowInvalid, OSError."""
    options = pa_csv.ConvertOptions()
    with _open(file, config, options) as reader:
        return list(reader.schema.names)


def read_csv_column(file: Path, name: str, config: CsvConfig) -> pa.ChunkedArray:
    """Return a column as dictionaries of texts. ArrowInvalid, OSError."""
    options = pa_csv.ConvertOptions(
        include_columns=[name],
        column_types={name: pa.dictionary(pa.int32(), pa.string())},
        null_values=list(config.null_values),
        strings_can_be_null=True,
    )
    with _open(file, config, options) as reader:
        return reader.read_all().column(0)


def replace_decimal_comma(column: str, chunk: pa.Array, config: CsvConfig) -> pa.Array:
    """Return a chunk of texts with points in its numbers, where the files have commas."""
    if config.decimal_point == "." or column not in _NUMBERS:
        return chunk
    texts = [text and text.replace(",", ".") for text in chunk.to_pylist()]
    return pa.array(texts, pa.string()).dictionary_encode()


def _open(
    file: Path, config: CsvConfig, options: pa_csv.ConvertOptions
) -> pa_csv.CSVStreamingReader:
    delimiter = config.delimiter
    if delimiter == "auto":
        with pa.input_stream(str(file)) as stream:
            text = stream.read(1 << 20).decode(config.encoding, "replace").lstrip("\ufeff\r\n")
        first = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
        counts = {mark: first.count(mark) for mark in (",", ";", "\t", "|")}
        is_tabbed = re.search(r"\.tsv(\.|$)", file.name, re.IGNORECASE) is not None
        delimiter = "\t" if is_tabbed else max(counts, key=lambda mark: counts[mark])
    return pa_csv.open_csv(
        pa.input_stream(str(file)),
        read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, encoding=config.encoding),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter,
            quote_char=config.quote or False,
            escape_char=config.escape or False,
            newlines_in_values=True,
        ),
        convert_options=options,
    )
