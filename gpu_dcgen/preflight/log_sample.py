"""Write a part of a log to try a build on: all purchases of a share of the customers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract.schema import InputTable
from ..digest import hash_strings
from ..errors import InputError
from ..inputs.origins import InputTables, Origin
from ..inputs.sources import Source, explain_unreadable

_BATCH_ROWS = 1 << 20  # read at a time, whatever the file's row groups hold


@dataclass(frozen=True)
class LogSample:
    """Tables of some customers, beside the whole table of articles."""

    tables: InputTables
    share: float  # of the log's transactions


def write_log_sample(sources: dict[InputTable, Source], folder: Path, share: float) -> LogSample:
    """Write the tables of a share of the customers into `folder`; articles are linked.

    Customers are chosen by a hash of the id, so a smaller share's customers are among a larger
    one's. Rows are read a batch at a time, and each batch becomes a row group: a row costs as much
    to read as in the log. InputError where a file cannot be read.
    """
    n_written, origins = 0, dict[Path, Origin]()
    for source in sources.values():
        for file, origin in zip(source.files, source.origins, strict=True):
            if origin is not None:
                origins[folder / file.relative_to(source.folder)] = origin
        if source.table == "articles":
            folder.mkdir(parents=True)
            (folder / source.path.name).symlink_to(source.path.resolve())
            continue
        for file in source.files:
            target = folder / file.relative_to(source.folder)
            try:
                n_rows = _write_file(file, source, target, share)
            except (OSError, pa.ArrowException) as error:
                raise InputError(explain_unreadable(str(file), error)) from error
            if source.table == "transactions":
                n_written += n_rows
    return LogSample(
        InputTables(folder, folder, str(folder), origins),
        n_written / sources["transactions"].n_rows,
    )


def _write_file(file: Path, source: Source, target: Path, share: float) -> int:
    """Write the sample of one file, and return the number of its rows."""
    columns, key = sorted(set(source.columns.values())), source.names["customer_id"]
    texts = [source.names[name] for name, class_ in source.type_classes.items() if class_ == "text"]
    limit, n_rows = min(share, 1.0) * 2.0**64, 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetFile(
        file, read_dictionary=texts, coerce_int96_timestamp_unit="us", pre_buffer=False
    ) as parquet:
        schema = pa.schema([_plain(parquet.schema_arrow.field(name)) for name in columns])
        with pq.ParquetWriter(target, schema) as writer:
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
                    chosen = batch.filter(pc.less(_positions(batch.column(key)), limit))
                    # Without the texts of rows that were not chosen.
                    plain = [chosen.column(field.name).cast(field.type) for field in schema]
                    writer.write_batch(pa.record_batch(plain, schema=schema))
                    n_rows += chosen.num_rows
    return n_rows


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _positions(ids: pa.Array) -> pa.Array:
    """Hash each id to a position in 0..2^64, float64; null where the id is null."""
    ids = ids if pa.types.is_dictionary(ids.type) else ids.dictionary_encode()
    hashes = pa.array(hash_strings(ids.dictionary.cast(pa.string()))).cast(pa.float64(), safe=False)
    return hashes.take(ids.indices)
