"""Store results of a build in files, for another process to load.

A checkpoint is a pair of files: NAME.bin with the bytes of all arrays, each where a page begins if
it is as large as that, a huge one if it is as large as several of those, and NAME.json, written
last, with the value's structure and the SHA-256 of both. Arrays are mapped, not read, so several
processes share them; where memory is short, the arrays that were saved are mapped too.

All checkpoints of a folder belong to one key: the content of the inputs, the settings that change
results, the code, the backend. Nothing in them is executed (D28): a value consists of JSON, paths,
arrays, Arrow arrays, and dataclasses and NamedTuples of this package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..backend.protocol import Backend
from ..errors import spell_option

HostArray = npt.NDArray[Any]

KEY_FILE = "key.json"
# An array of at least so many bytes begins at a multiple of the second number: pages of a file are
# mapped as huge pages only where address and place agree.
_ALIGNMENTS = ((1 << 24, 1 << 21), (1 << 12, 1 << 12), (0, 1 << 6))
# Smaller arrays of counts are stored in the narrowest type that holds them. Larger ones are stored
# as they are, so that they can be mapped.
_MAX_NARROWED = 1 << 20
_CHUNK_BYTES = 1 << 24  # hashed at a time
_PACKAGE = __name__.partition(".")[0]


class Checkpoints:
    """Values by name in a folder, all of one key.

    Checkpoints are optional: a write that fails does not fail the build. The first failure is
    reported to `on_warning`, and nothing is saved after it.

    Attributes:
        is_reused: Whether `open` has found checkpoints of the same key.
        started_ns: When the build that began these checkpoints started, ns since 1970.
        folder: Where they are.
    """

    def __init__(
        self, folder: Path, backend: Backend, on_warning: Callable[[str], None] | None = None
    ) -> None:
        self.is_reused, self.started_ns = False, 0
        self.folder, self._backend, self._on_warning = folder, backend, on_warning
        self._disabled = False
        self._writer = ThreadPoolExecutor(1, "checkpoints")  # hashing and writing release the GIL
        self._pending: list[Future[None]] = []

    def open(self, key: dict[str, Any], on_discard: Callable[[], None] | None = None) -> list[str]:
        """Use the folder's checkpoints if they are of this key, else remove them.

        `on_discard` removes what belongs to them, before anything of the new key is written.
        Returns the names of the parts of the key that differ; [] also where there was nothing.
        """
        try:
            content = read_key(self.folder)
            old_key, self.started_ns = content["key"], content["began"]
            differing = [name for name in key if old_key.get(name) != key[name]]
        # There are none, or none that can be read.
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            old_key, differing = None, []
        self.is_reused = old_key is not None and not differing
        if not self.is_reused:
            shutil.rmtree(self.folder, ignore_errors=True)
            if on_discard is not None:
                on_discard()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.started_ns = time.time_ns()
            new_content = json.dumps({"key": key, "began": self.started_ns})
            _write_file(self.folder / KEY_FILE, new_content.encode())
        return differing

    def names(self) -> list[str]:
        """List the checkpoints."""
        return sorted(file.stem for file in self.folder.glob("*.json") if file.name != KEY_FILE)

    def load(self, name: str) -> Any | None:
        """Load a value; None where there is none, or its files differ from what was written."""
        try:
            index = json.loads((self.folder / f"{name}.json").read_text())
            sha256, n_bytes, tree = index["sha256"], index["bytes"], index["value"]
            file = self.folder / f"{name}.bin"
            if file.stat().st_size != n_bytes:
                return None
            data: HostArray = (
                np.memmap(file, np.uint8, "c") if n_bytes else np.empty(0, dtype=np.uint8)
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        digest = hashlib.sha256()
        for chunk in _chunks(data):
            digest.update(chunk)
        digest.update(_dump_tree(tree))
        return _Reader(data, self._backend).value(tree) if digest.hexdigest() == sha256 else None

    def save(self, name: str, value: Any) -> None:
        """Save a value in the background; TypeError for a value of an unknown kind."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        if not self._disabled:
            writer = _Writer(self._backend)
            tree = writer.tree(value)
            self._pending.append(self._writer.submit(self._try_write, name, tree, writer.arrays))

    def import_file(self, name: str, file: Path) -> None:
        """Move `file` (.bin, .json), written by another process on this disk, here as `name`."""
        for suffix in (".bin", ".json"):  # .json last: it makes the checkpoint
            file.with_suffix(suffix).replace(self.folder / f"{name}{suffix}")

    def flush(self) -> None:
        """Wait until everything is written."""
        while self._pending:
            self._pending.pop(0).result()

    def close(self, *, save_pending: bool) -> None:
        """Stop the background thread, after writing what is pending or without."""
        self._writer.shutdown(cancel_futures=not save_pending)

    def _try_write(self, name: str, tree: Any, arrays: list[_PlacedArray]) -> None:
        if self._disabled:
            return
        try:
            self._write(name, tree, arrays)
        except OSError as error:
            self._disabled = True
            for part in (f"{name}.bin", f"{name}.new"):
                (self.folder / part).unlink(missing_ok=True)  # it may be what fills the disk
            if self._on_warning is not None:
                self._on_warning(
                    f"{self.folder}: {name} cannot be saved ({error}): {spell_option('resume')} "
                    "would recompute it and what follows"
                )

    def _write(self, name: str, tree: Any, arrays: list[_PlacedArray]) -> None:
        digest, n_bytes, path = hashlib.sha256(), 0, self.folder / f"{name}.bin"
        path.unlink(missing_ok=True)  # one of that name may be mapped
        with open(path, "w+b") as file:

            def append(chunk: bytes | memoryview) -> None:
                nonlocal n_bytes
                digest.update(chunk)
                file.write(chunk)
                n_bytes += len(chunk)

            for array, offset in arrays:
                append(bytes(offset - n_bytes))
                for chunk in _chunks(array):
                    append(chunk)
            file.flush()
            self._backend.map_saved(arrays, file.fileno())
        digest.update(_dump_tree(tree))
        index = {"sha256": digest.hexdigest(), "bytes": n_bytes, "value": tree}
        _write_file(self.folder / f"{name}.json", json.dumps(index).encode())


def read_key(folder: Path) -> dict[str, Any]:
    """Return the `key` of a folder's checkpoints, and when their build `began`, ns since 1970.

    Raises OSError, and ValueError or TypeError where the file is damaged.
    """
    content = json.loads((folder / KEY_FILE).read_text())
    if not isinstance(content, dict):
        raise TypeError(f"{folder / KEY_FILE}: expected an object, found {type(content).__name__}")
    return content


def _dump_tree(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _write_file(file: Path, content: bytes) -> None:
    """Write a file that appears with all of its content."""
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


def _chunks(array: HostArray) -> Iterator[memoryview]:
    """Yield the bytes of a contiguous array, in its order in memory."""
    data = array.reshape(-1, order="A").view(np.uint8).data
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


class _PlacedArray(NamedTuple):
    """An array, and where its bytes begin in the file."""

    array: HostArray
    offset: int


class _Writer:
    """Turns a value into a tree for JSON and the arrays it refers to."""

    def __init__(self, backend: Backend) -> None:
        self.arrays: list[_PlacedArray] = []
        self._backend, self._end = backend, 0

    def tree(self, value: Any) -> Any:
        """Return the tree of a value; its arrays are appended to `arrays`."""
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [self.tree(element) for element in value]
            case tuple() if not hasattr(value, "_fields"):
                return {"tuple": [self.tree(element) for element in value]}
            case dict():
                pairs = [[self.tree(key), self.tree(element)] for key, element in value.items()]
                return {"dict": pairs}
            case Path():
                return {"path": str(value)}
            case pa.Array():
                return {"strings": self._add_array(_encode_strings(value))}
            case np.ndarray():
                return {"host": self._add_array(value)}
        kind = type(value)
        names = _field_names(kind)
        if names is not None and kind.__module__.partition(".")[0] == _PACKAGE:
            fields = {name: self.tree(getattr(value, name)) for name in names}
            return {"of": [kind.__module__, kind.__qualname__], "fields": fields}
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return {"array": self._add_array(self._backend.to_host(value))}
        raise TypeError(f"a checkpoint cannot hold {type(value)}")

    def _add_array(self, array: HostArray) -> list[Any]:
        """Append an array; returns its dtype, its dtype in the file, shape, order and offset."""
        dtype = array.dtype.str
        if array.dtype == np.int64 and 0 < array.size <= _MAX_NARROWED and array.min() >= 0:
            array = array.astype(np.min_scalar_type(array.max()))
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        array = array if is_fortran else np.ascontiguousarray(array)
        alignment = next(size for least, size in _ALIGNMENTS if array.nbytes >= least)
        offset = self._end + -self._end % alignment
        self.arrays.append(_PlacedArray(array, offset))
        self._end = offset + array.nbytes
        order = "F" if is_fortran else "C"
        return [dtype, array.dtype.str, list(array.shape), order, offset]


class _Reader:
    """Turns a tree back into its value, with arrays that are parts of `data`."""

    def __init__(self, data: HostArray, backend: Backend) -> None:
        self._data, self._backend = data, backend

    def value(self, tree: Any) -> Any:
        """Return the value of a tree."""
        match tree:
            case list():
                return [self.value(element) for element in tree]
            case {"tuple": elements}:
                return tuple(self.value(element) for element in elements)
            case {"dict": pairs}:
                return {self.value(key): self.value(element) for key, element in pairs}
            case {"path": text}:
                return Path(text)
            case {"strings": entry}:
                with pa.ipc.open_stream(pa.py_buffer(self._array(entry))) as stream:
                    return stream.read_all().column(0).combine_chunks()
            case {"array": entry}:
                return self._backend.from_host(self._array(entry))
            case {"host": entry}:
                return self._array(entry)
            case {"of": [module, name], "fields": fields}:
                kind = _find_record_type(module, name)
                return kind(**{field: self.value(element) for field, element in fields.items()})
        return tree

    def _array(self, entry: list[Any]) -> HostArray:
        dtype, stored_dtype, shape, order, offset = entry
        n_bytes = np.dtype(stored_dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        data: HostArray = np.asarray(self._data[offset : offset + n_bytes])
        array: HostArray = data.view(stored_dtype).reshape(shape, order=order)
        return array.astype(dtype, copy=False)


def _encode_strings(strings: pa.Array) -> HostArray:
    sink = pa.BufferOutputStream()
    table = pa.table({"strings": strings})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


def _field_names(kind: type) -> tuple[str, ...] | None:
    """Return the fields of a dataclass or NamedTuple, None for other types."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return getattr(kind, "_fields", None) if issubclass(kind, tuple) else None


def _find_record_type(module: str, name: str) -> type:
    """Return a dataclass or NamedTuple of this package; ValueError for anything else."""
    if module.partition(".")[0] != _PACKAGE:
        raise ValueError(f"a checkpoint names {module}.{name}, which is not in {_PACKAGE}.")
    kind = getattr(importlib.import_module(module), name)
    if not isinstance(kind, type) or _field_names(kind) is None:
        raise ValueError(
            f"a checkpoint names {module}.{name}, which is not a dataclass or NamedTuple."
        )
    return kind
