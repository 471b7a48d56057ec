"""Content digest: what a file says, not how it is stored (D22).

A column's digest is the sum mod 2^64, over its rows, of mix(mix(row ^ POSITION) ^ hash of the
value), so that blocks add up in any order, on any backend, and a file can be checked from the
outside (`digest_file`). Hashes: null 0x6E756C6C; integers, bools and timestamps (ns) mix(value mod
2^64); floats mix(their bits); strings and categories FNV-1a 64 of the UTF-8, mixed; lists
h = mix(length ^ LENGTH), then h = mix(h ^ hash) for each element.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values, Vocabulary
from .backend.protocol import Array
from .backend.runs import offsets_from_lengths
from .errors import InputError
from .kernels import rows

NULL_HASH = np.uint64(0x6E756C6C)
# The only value that may differ between two builds of the same inputs and settings.
NOT_DIGESTED = frozenset({"generation_timestamp"})
_MASK = (1 << 64) - 1


@dataclass
class ContentDigest:
    """Digest of each column of one file; its blocks and parts are added in any order."""

    sums: dict[str, int] = field(default_factory=dict)  # by column, below 2^64

    def add(self, block: Block, backend: Any) -> None:
        """Add the rows of a block of the backend's arrays."""
        hashed = {
            name: (_column_hashes(column, backend), _rows_per_hash(column))
            for name, column in block.columns.items()
            if name not in NOT_DIGESTED
        }
        self._add_rows(block.first_row, block.n_rows, hashed, backend)

    def merge(self, other: "ContentDigest") -> None:
        """Add the rows that `other` has seen."""
        for name, total in other.sums.items():
            self.sums[name] = (self.sums.get(name, 0) + total) & _MASK

    def hex(self) -> dict[str, str]:
        """Return the digest of each column as 16 hex digits, by column name."""
        return {name: f"{total:016x}" for name, total in sorted(self.sums.items())}

    def _add_rows(
        self, first_row: int, n_rows: int, hashed: dict[str, tuple[Array, int]], backend: Any
    ) -> None:
        xp = backend.xp
        positions = xp.empty(n_rows, dtype=xp.uint64)
        backend.for_each(rows.mix_positions, n_rows, first_row, positions)
        n_spans = -(-n_rows // rows.SPAN)
        sums = xp.empty((len(hashed), n_spans), dtype=xp.uint64)
        for k, (name, (hashes, repeats)) in enumerate(hashed.items()):
            if hashes.shape[0] * repeats != n_rows:
                raise ValueError(
                    f"column '{name}' has {hashes.shape[0] * repeats} rows in a block of {n_rows}."
                )
            backend.for_each(rows.add_rows, n_spans, positions, hashes, repeats, sums[k])
        for name, total in zip(hashed, backend.to_host(sums.sum(axis=1)).tolist(), strict=True):
            self.sums[name] = (self.sums.get(name, 0) + total) & _MASK


def vocabulary(strings: Any, backend: Any) -> Vocabulary:
    """Make a vocabulary of a pyarrow string array or a sequence of str, hashes on the backend."""
    import pyarrow as pa

    strings = strings if isinstance(strings, pa.Array) else pa.array(strings, pa.string())
    return Vocabulary(strings, backend.from_host(hash_strings(strings)))


def hash_strings(strings: Any) -> np.ndarray:
    """Hash each string of a host pyarrow array: (n,) uint64, null being NULL_HASH."""
    import pyarrow as pa

    strings = strings.cast(pa.large_string())
    _, offsets, text = strings.buffers()
    hashes = np.full(len(strings), NULL_HASH)
    if text is not None:
        offsets = np.frombuffer(offsets, np.int64)[
            strings.offset : strings.offset + len(strings) + 1
        ]
        rows.hash_texts.loop(0, len(strings), offsets, np.frombuffer(text, np.uint8), hashes)
    if strings.null_count:
        hashes[strings.is_null().to_numpy(zero_copy_only=False)] = NULL_HASH
    return hashes


def digest_file(path: Path, backend: Any) -> dict[str, str]:
    """Digest each column of a Parquet file, or of a folder of parts in order of names.

    Holds one row group at a time. Equal to `ContentDigest.hex` of the blocks written. InputError
    names a folder without files, or a column of a type that no output has.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    digest, first_row = ContentDigest(), 0
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not parts:
        raise InputError(
            f"{path}: has no Parquet files.\nName a file or a folder of parts that gpu-dcgen wrote."
        )
    for part in parts:
        with pq.ParquetFile(part) as file:
            columns = [name for name in file.schema_arrow.names if name not in NOT_DIGESTED]
            digest.merge(ContentDigest(dict.fromkeys(columns, 0)))  # also where there is no row
            for index in range(file.num_row_groups):
                table = file.read_row_group(index, columns=columns)
                hashed = {
                    name: (_arrow_hashes(table[name], f"{part}: column '{name}'", backend), 1)
                    for name in columns
                }
                digest._add_rows(first_row, table.num_rows, hashed, backend)
                first_row += table.num_rows
    return digest.hex()


def _rows_per_hash(column: Any) -> int:
    return 1 if isinstance(column, SampleIds) else column.repeats


def _column_hashes(column: Any, backend: Any) -> Array:
    match column:
        case Values():
            return _value_hashes(column.values, column.valid, backend)
        case Codes():
            return _code_hashes(column.codes, column.vocabulary.hashes, backend)
        case Lists():
            return _slice_hashes(column, backend)
        case Matrix():
            return _matrix_hashes(column, backend)
        case SampleIds():
            return _sample_id_hashes(column, backend)
    raise TypeError(f"no column of a block: {type(column).__name__}")


def _value_hashes(values: Array, valid: Array | None, backend: Any) -> Array:
    """Hash values, uint64 in their shape, by a kernel: in one pass instead of ten."""
    flat = _as_integers(values).reshape(values.size)
    hashes = backend.xp.empty(values.size, dtype=backend.xp.uint64)
    if valid is None:
        backend.for_each(rows.mix_values, values.size, flat, hashes)
    else:
        valid = valid.reshape(values.size)
        backend.for_each(rows.mix_nullable, values.size, flat, valid, NULL_HASH, hashes)
    return hashes.reshape(values.shape)


def _as_integers(values: Array) -> Array:
    """Return the bits of floats, and bools as int8: few types, so few compiled kernels."""
    if values.dtype.kind == "f":
        return values.view(f"u{values.dtype.itemsize}")
    return values.view("i1") if values.dtype.kind == "b" else values


def _code_hashes(codes: Array, hashes: Array, backend: Any) -> Array:
    """Run `code_hashes` as a kernel, in one pass."""
    flat = codes.reshape(codes.size)
    out = backend.xp.empty(codes.size, dtype=backend.xp.uint64)
    backend.for_each(rows.hash_codes, codes.size, flat, hashes, NULL_HASH, out)
    return out.reshape(codes.shape)


def code_hashes(codes: Array, hashes: Array, xp: Any) -> Array:
    """Look up the hash of each code, uint64 in the shape of `codes`; negative codes are null."""
    if hashes.shape[0] == 0:
        return xp.full(codes.shape, NULL_HASH, dtype=xp.uint64)
    return xp.where(codes >= 0, hashes[xp.maximum(codes, 0)], NULL_HASH)


def _slice_hashes(column: Lists, backend: Any) -> Array:
    n = int(column.starts.shape[0])
    hashes = backend.xp.empty(n, dtype=backend.xp.uint64)
    values = _as_integers(column.values)
    backend.for_each(rows.hash_slices, -(-n // 4), values, column.starts, column.lengths, hashes)
    return hashes


def _matrix_hashes(column: Matrix, backend: Any) -> Array:
    xp = backend.xp
    n, width = column.values.shape
    if column.vocabulary is None:
        hashes = _value_hashes(column.values, column.valid, backend)
    else:
        hashes = _code_hashes(column.values, column.vocabulary.hashes, backend)
        if column.valid is not None:
            hashes = xp.where(column.valid, hashes, NULL_HASH)
    return _list_hashes(
        xp.arange(n + 1, dtype=xp.int64) * width, hashes.reshape(n * width), backend
    )


def _sample_id_hashes(column: SampleIds, backend: Any) -> Array:
    xp = backend.xp
    endings = [f"-{slot:02d}".encode() for slot in range(column.rows_per_group)]
    suffix = backend.from_host(np.frombuffer(b"".join(endings), np.uint8))
    offsets = backend.from_host(np.cumsum([0, *map(len, endings)]))
    start = int(rows.FNV_OFFSET)
    for byte in f"{column.split}-".encode():
        start = ((start ^ byte) * int(rows.FNV_PRIME)) & _MASK
    hashes = xp.empty((column.n_groups, column.rows_per_group), dtype=xp.uint64)
    backend.for_each(
        rows.hash_sample_ids,
        column.n_groups,
        column.first_group,
        np.uint64(start),
        suffix,
        offsets,
        hashes,
    )
    return hashes.reshape(column.n_groups * column.rows_per_group)


def _list_hashes(offsets: Array, hashes: Array, backend: Any) -> Array:
    out = backend.xp.empty(offsets.shape[0] - 1, dtype=backend.xp.uint64)
    backend.for_each(rows.hash_lists, out.shape[0], offsets, hashes, out)
    return out


def _arrow_hashes(array: Any, where: str, backend: Any) -> Array:
    """Hashes of a host pyarrow array, chunked or not, of any type that our files have."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    xp = backend.xp
    if types.is_dictionary(array.type):
        codes = backend.from_host(array.indices.fill_null(-1).to_numpy(zero_copy_only=False))
        return _code_hashes(codes, backend.from_host(hash_strings(array.dictionary)), backend)
    if types.is_string(array.type) or types.is_large_string(array.type):
        return backend.from_host(hash_strings(array))
    if (
        types.is_list(array.type)
        or types.is_large_list(array.type)
        or types.is_fixed_size_list(array.type)
    ):
        lengths = backend.from_host(pc.list_value_length(array).to_numpy())
        return _list_hashes(
            offsets_from_lengths(xp, lengths),
            _arrow_hashes(array.flatten(), where, backend),
            backend,
        )
    if types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("ns")).view(pa.int64())
    if not (
        types.is_integer(array.type)
        or types.is_floating(array.type)
        or types.is_boolean(array.type)
    ):
        raise InputError(
            f"{where} has type {array.type}, which no output of gpu-dcgen has.\n"
            "Check that this is the right file."
        )
    valid = (
        backend.from_host(array.is_valid().to_numpy(zero_copy_only=False))
        if array.null_count
        else None
    )
    zero = False if types.is_boolean(array.type) else 0
    values = backend.from_host(array.fill_null(zero).to_numpy(zero_copy_only=False))
    return _value_hashes(values, valid, backend)
