"""Write a CSV file again as Parquet, block by block, every column as text (D1).

Text then takes the way of every other table: what is no number, no time or no id has one reason and
is counted, and an id keeps its leading zeros. No type is guessed from the first rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..config import DELIMITERS, CsvConfig
from ..contract.schema import InputRole
from ..errors import InputError
from .origins import Origin
from .text_streams import CODECS, TextStream, is_of_the_system, open_text

BLOCK_BYTES = 16 << 20  # of text, parsed at a time; a row group each
_HEADER_BYTES = 1 << 20  # that the names of the columns are read from
_DICTIONARY_BYTES = 1 << 29  # of a column in a block: all its distinct texts, whatever they are
_MARKS = {  # first bytes of what is not text of 8-bit units -> suffix of its files, or encoding
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"BZh": "bz2",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as the next one does
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMATS = {  # first bytes of files that are no text -> what they are, and what to do
    b"PK\x03\x04": ("an archive, or a spreadsheet", "Unpack it, or save it as CSV."),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "Save it as CSV."),
    b"PAR1": ("Parquet", "Give it a name that ends in .parquet."),
}
_CHUNK_BYTES = 1 << 20  # read at a time where a fault is looked for
_MAX_SHOWN = 80  # characters of a line in a message
_OF_NAMES = "_-.'\"()[]/"  # marks in names of columns that separate none
_TEXT = pa.dictionary(pa.int32(), pa.string())
_NUMBER_ROLES: tuple[InputRole, ...] = ("number", "price")
_AMBIGUOUS = r"^\s*[+-]?[1-9]\d{0,2}\.\d{3}\s*$"  # 1.234 beside decimal commas: 1234?
_HOW_TO_SAY = (
    "Fix the file, or say how it is written: inputs.csv.delimiter, inputs.csv.quote, "
    "inputs.csv.escape."
)


class Header(NamedTuple):
    """The first record of a file."""

    names: tuple[str, ...]  # of the columns
    delimiter: str


def convert_csv(
    file: Path,
    target: Path,
    roles: Mapping[str, InputRole],
    config: CsvConfig,
    n_blocks: int | None = None,
) -> Origin:
    """Write the columns of a CSV file that have a role into the Parquet file `target`.

    They are written as text, decimals with a point; all other columns without values, so that
    their names are known. `n_blocks` is the number of blocks to read; None: all. Memory: a few
    blocks. InputError names the line of what cannot be read.
    """
    header = read_header(file, config)
    if not set(header.names) & roles.keys():
        require_several_columns(file, header)
    wanted = [name for name in header.names if name in roles]
    if len(set(wanted)) < len(wanted):
        wanted = []  # a column that is there twice is refused by its name
    schema = pa.schema([(name, _TEXT if name in wanted else pa.null()) for name in header.names])
    target.parent.mkdir(parents=True, exist_ok=True)
    n_rows = 0
    with (
        open_text(file, _find_escapes(header.delimiter, config)) as stream,
        _explain_errors(file, header, config, stream),
        pq.ParquetWriter(
            target,
            schema,
            compression="snappy",
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            write_statistics=False,
            store_schema=False,
        ) as writer,
    ):
        for batch in _read_blocks(stream, wanted, header, config) if wanted else ():
            n_rows += batch.num_rows
            columns = [
                _point_decimals(file, name, batch[name], roles[name], config)
                if name in wanted
                else pa.nulls(batch.num_rows)
                for name in header.names
            ]
            writer.write_table(pa.Table.from_arrays(columns, names=[*header.names]))
            _require_no_escapes(file, stream)
            n_blocks = None if n_blocks is None else n_blocks - 1
            if n_blocks == 0:
                break
        else:
            stream.read_to_end()
        _require_no_escapes(file, stream)
    first_line = 2 if stream.n_lines == n_rows + 1 else None
    return Origin(file.name, stream.n_bytes, stream.sha256, is_csv=True, first_line=first_line)


def read_header(file: Path, config: CsvConfig) -> Header:
    """Read the names of the columns, and find the delimiter. InputError where there are none."""
    with open_text(file) as stream:
        start = stream.read(_HEADER_BYTES)
    _require_text(file, start, config)
    text = start.decode(config.encoding, errors="replace").removeprefix("\ufeff")
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = config.delimiter if config.delimiter != "auto" else _find_delimiter(file, first)
    records = read_records(io.StringIO(text, newline=""), delimiter, config)
    try:
        names: list[str] = next((record for record in records if record), [])
    except csv.Error as error:
        raise InputError(f"{file}: line 1: {error}.\n{_HOW_TO_SAY}") from error
    if not any(names):
        raise InputError(
            f"{file}: found no names of columns in the first line.\n"
            "Write the file with a first line of names."
        )
    if any("\ufffd" in name for name in names):
        with open_text(file) as stream:
            fault = _check_encoding(file, stream, config)
        if fault is not None:
            raise InputError(fault)
    return Header(tuple(names), delimiter)


def require_several_columns(file: Path, header: Header) -> None:
    """InputError for a single column with a mark in its name that may be the delimiter."""
    name = header.names[0]
    bare = "".join(name.split('"')[::2])
    marks = {mark for mark in bare if not (mark.isalnum() or mark in _OF_NAMES)}
    if len(header.names) > 1 or not (marks := marks - {header.delimiter}):
        return
    usual = [mark for mark in (*DELIMITERS, *sorted(marks)) if mark in marks]
    delimiter = max(usual, key=bare.count)
    if not delimiter.isascii():
        return
    raise InputError(
        f"{file}: found one column in the first line, {name!r:.{_MAX_SHOWN}}, with the delimiter "
        f"{header.delimiter!r}; expected several.\nIf {delimiter!r} separates them, state it: "
        f"inputs.csv.delimiter: {json.dumps(delimiter)}"
    )


def _require_text(file: Path, start: bytes, config: CsvConfig) -> None:
    """InputError where the first bytes of a file are not text in the encoding of the settings."""
    for mark, (format_name, remedy) in _OTHER_FORMATS.items():
        if start.startswith(mark):
            raise InputError(f"{file}: found {format_name}; expected text.\n{remedy}")
    kind = next((kind for mark, kind in _MARKS.items() if start.startswith(mark)), None)
    if kind is None:
        return
    if kind in CODECS:
        raise InputError(
            f"{file}: found {kind} data; expected text.\n"
            f"If it is packed CSV, say so by its name: {file.name}.{kind}"
        )
    if kind[-2:] not in config.encoding:
        raise InputError(
            f"{file}: found text in {kind.upper()}; expected {config.encoding}.\n"
            f"Write the file as UTF-8, or state its encoding: inputs.csv.encoding: {kind}"
        )


def _find_delimiter(file: Path, first_line: str) -> str:
    """Return the delimiter of a file, where the settings do not state it."""
    if ".tsv" in file.name.lower():
        return "\t"
    bare = "".join(first_line.split('"')[::2])
    return max(DELIMITERS, key=bare.count)


def read_records(lines: Iterable[str], delimiter: str, config: CsvConfig) -> Any:
    """Return Python's reader of the records in some lines."""
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=config.quote,
        quoting=csv.QUOTE_NONE if config.quote is None else csv.QUOTE_MINIMAL,
        escapechar=config.escape,
    )


def _read_blocks(
    stream: TextStream, columns: list[str], header: Header, config: CsvConfig
) -> Iterator[pa.RecordBatch]:
    blocks: Iterator[pa.RecordBatch] = iter(
        pa_csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=pa_csv.ReadOptions(block_size=BLOCK_BYTES, encoding=config.encoding),
            parse_options=pa_csv.ParseOptions(
                delimiter=header.delimiter,
                quote_char=config.quote or False,
                escape_char=config.escape or False,
                newlines_in_values=True,
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, _TEXT),
                null_values=[*config.null_values],
                strings_can_be_null=True,
            ),
        )
    )
    return blocks


def _find_escapes(delimiter: str, config: CsvConfig) -> re.Pattern[bytes] | None:
    """Return a pattern of escaped quotes, where none are expected.

    By RFC 4180 a backslash has no meaning, so that a quote after it ends the field; then a
    delimiter, or the end of the line, must follow. A quote that is doubled stands for itself.
    """
    if config.escape is not None or config.quote is None or config.quote == "\\":
        return None
    if "a".encode(config.encoding) != b"a":  # of more bytes a character
        return None
    quote = re.escape(config.quote.encode())
    end = re.escape((config.quote + delimiter).encode())
    return re.compile(rb"\\" + quote + rb"[^\r\n" + end + rb"]")


def _require_no_escapes(file: Path, stream: TextStream) -> None:
    """InputError with the line of an escaped quote, where none are expected."""
    if stream.suspect_line is not None:
        raise InputError(
            f"{file}: line {stream.suspect_line}: found a backslash before a quote within a field; "
            "expected doubled quotes.\nIf a backslash takes the meaning of the next character, as "
            'in MySQL\'s exports, say so: inputs.csv.escape: "\\\\"\n'
            "Else double the quote, and put the field in quotes."
        )


def _point_decimals(
    file: Path, name: str, column: pa.DictionaryArray, role: InputRole, config: CsvConfig
) -> pa.Array:
    """Return a column with a point before the decimals of its numbers.

    InputError for a number with a point that may separate thousands; other points are read.
    """
    if config.decimal_point == "." or role not in _NUMBER_ROLES:
        return column
    is_ambiguous = pc.match_substring_regex(column.dictionary, _AMBIGUOUS)
    if pc.any(is_ambiguous).as_py():
        example = column.dictionary.filter(is_ambiguous)[0].as_py()
        raise InputError(
            f"{file}: column {name!r} has the number {example!r}; its point may separate "
            "thousands, and decimals are expected after a comma.\n"
            "Write it without a point, or all numbers with a point and without "
            "inputs.csv.decimal_point."
        )
    texts = pc.if_else(
        pc.match_substring(column.dictionary, "."),  # no number, and named as it is
        column.dictionary,
        pc.replace_substring(column.dictionary, config.decimal_point, "."),
    )
    return pa.DictionaryArray.from_arrays(column.indices, texts)


@contextmanager
def _explain_errors(
    file: Path, header: Header, config: CsvConfig, stream: TextStream
) -> Iterator[None]:
    """Raise the errors of the reader as InputError, with the line where it can be found."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, UnicodeError, OSError) as error:
        if is_of_the_system(error):
            raise
        _require_no_escapes(file, stream)
        reason = " ".join(str(error).split())
        fault = _find_fault(file, header, config)
        if fault is None:
            fault = f"{file}: cannot be read as CSV ({reason:.200}).\n{_HOW_TO_SAY}"
        raise InputError(fault) from error


def _find_fault(file: Path, header: Header, config: CsvConfig) -> str | None:
    """Read the file again, by Python's reader; return what is wrong with the first bad line.

    None where nothing is. InputError where it cannot be unpacked.
    """
    limit = csv.field_size_limit(BLOCK_BYTES)
    try:
        with open_text(file) as stream:
            fault = _check_encoding(file, stream, config)
        if fault is not None:
            return fault
        with open_text(file) as stream:
            lines = io.TextIOWrapper(io.BufferedReader(stream), config.encoding, newline="")
            return _check_records(file, lines, header, config)
    finally:
        csv.field_size_limit(limit)


def _check_encoding(file: Path, stream: TextStream, config: CsvConfig) -> str | None:
    """Return the text of an InputError about the first bytes that are not in the encoding."""
    decoder, n_breaks = codecs.getincrementaldecoder(config.encoding)(), 0
    while data := stream.read(_CHUNK_BYTES):
        try:
            n_breaks += decoder.decode(data).count("\n")
        except UnicodeDecodeError as error:
            line = n_breaks + error.object[: error.start].count(b"\n") + 1
            data = error.object[error.start : error.end]
            return (
                f"{file}: line {line}: found the bytes {data!r}; expected {config.encoding}.\n"
                "Write the file as UTF-8, or state its encoding, for example inputs.csv.encoding: "
                "cp1252"
            )
    return None


def _check_records(
    file: Path, lines: Iterable[str], header: Header, config: CsvConfig
) -> str | None:
    """Return the text of an InputError about the first record with too few or many fields."""
    records = read_records(lines, header.delimiter, config)
    n_lines = 0  # before the record
    try:
        for record in records:
            if record and len(record) != len(header.names):
                return (
                    f"{file}: line {n_lines + 1}: found {len(record)} fields, beginning with "
                    f"{record[0]!r:.{_MAX_SHOWN}}; expected {len(header.names)}, as in the first "
                    f"line ({', '.join(header.names):.{_MAX_SHOWN}}).\n{_HOW_TO_SAY}"
                )
            n_lines = records.line_num
    except csv.Error as error:
        return f"{file}: line {n_lines + 1}: {error}; is a quote not closed?\n{_HOW_TO_SAY}"
    return None
