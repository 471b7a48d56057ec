"""Finished work of a build in files, for another process to go on from: the results of stages, the records of parts.

A checkpoint is a pair of files: NAME.bin, the bytes of all arrays, each at a multiple of 64, and NAME.json, written last: what
they are, and the SHA-256 of both. Arrays are mapped, not read, so several processes share them. All checkpoints are of one
`key`: the content of the inputs, the settings that change results, the code, the machine. No byte of them is ever executed:
a value is made of JSON, arrays, Arrow strings and the dataclasses of this package.
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
from typing import Any

import numpy as np
import pyarrow as pa

from ..backend.protocol import Backend

_ALIGNMENT = 64
_FEW = 1 << 20  # counts are stored as narrow as they are, larger arrays as they are, to be mapped
_CHUNK = 1 << 24  # bytes hashed at a time
KEY_FILE = "key.json"
_PACKAGE = __package__.partition(".")[0]


class Checkpoints:
    """Results by name in a folder; what a build that died has kept under another key is forgotten.

    A copy for safety never fails a build: where one cannot be written, `tell` hears of it, and no more are.
    """

    def __init__(
        self, folder: Path, backend: Backend, on_warning: Callable[[str], None] | None = None
    ) -> None:
        self._folder, self._backend, self._on_warning, self._disabled = (
            folder,
            backend,
            on_warning,
            False,
        )
        self.found, self.started_ns = False, 0
        self._writer = ThreadPoolExecutor(1, "checkpoints")  # hashing and writing hold no GIL
        self._written: list[Future] = []

    def open(self, key: dict[str, Any], forget: Callable[[], None] | None = None) -> list[str]:
        """Take what is here if it is of this key (`found`, and when it `began`, ns since 1970); returns where the keys differ.

        Else it is removed; `forget` removes what goes with it, before there is anything of the new key.
        """
        try:
            earlier = read_key(self._folder)
            key_then, self.started_ns = earlier["key"], earlier["began"]
            differs = [name for name in key if key_then.get(name) != key[name]]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # nothing, or nothing that can be read
            key_then, differs = None, []
        self.found = key_then is not None and not differs
        if not self.found:
            shutil.rmtree(self._folder, ignore_errors=True)
            if forget is not None:
                forget()
            self._folder.mkdir(parents=True, exist_ok=True)
            self.started_ns = time.time_ns()
            _write(
                self._folder / KEY_FILE, json.dumps({"key": key, "began": self.started_ns}).encode()
            )
        return differs

    def names(self) -> list[str]:
        """What is kept."""
        return sorted(file.stem for file in self._folder.glob("*.json") if file.name != KEY_FILE)

    def load(self, name: str) -> Any | None:
        """What is kept under `name`; None where nothing is, or where it is not, to the bit, what was written."""
        try:
            index = json.loads((self._folder / f"{name}.json").read_text())
            sha256, size, tree = index["sha256"], index["bytes"], index["value"]
            if (self._folder / f"{name}.bin").stat().st_size != size:
                return None
            data = (
                np.memmap(self._folder / f"{name}.bin", np.uint8, "c")
                if size
                else np.empty(0, np.uint8)
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        digest = hashlib.sha256()
        for chunk in (*_chunks(data), _text(tree)):
            digest.update(chunk)
        return _Reader(data, self._backend).value(tree) if digest.hexdigest() == sha256 else None

    def save(self, name: str, value: Any) -> Any:
        """Keep a value, written while the build goes on; returns it. TypeError for a value of a kind that is not known."""
        while self._written and self._written[0].done():
            self._written.pop(0).result()
        if not self._disabled:
            writer = _Writer(self._backend)
            tree = writer.tree(value)
            self._written.append(self._writer.submit(self._keep, name, tree, writer.arrays))
        return value

    def import_file(self, name: str, file: Path) -> None:
        """Keep under `name` what another process has put in a folder of its own, as `file` (.bin, .json), on this file system."""
        for suffix in (".bin", ".json"):  # the .json last: it makes the checkpoint
            file.with_suffix(suffix).replace(self._folder / f"{name}{suffix}")

    def flush(self) -> None:
        """Wait until all is written."""
        while self._written:
            self._written.pop(0).result()

    def close(self, *, save_pending: bool) -> None:
        """End: with what is still to be written, where somebody will want it."""
        self._writer.shutdown(cancel_futures=not save_pending)

    def _keep(self, name: str, tree: Any, arrays: list[np.ndarray]) -> None:
        if self._disabled:
            return
        try:
            self._write(name, tree, arrays)
        except OSError as error:
            self._disabled = True
            for half in (f"{name}.bin", f"{name}.new"):
                (self._folder / half).unlink(missing_ok=True)  # it may be what fills the disk
            if self._on_warning is not None:
                self._on_warning(
                    f"{self._folder}: {name} cannot be kept ({error}): --resume would make anew what comes from here on"
                )

    def _write(self, name: str, tree: Any, arrays: list[np.ndarray]) -> None:
        digest, at = hashlib.sha256(), 0
        with open(self._folder / f"{name}.bin", "wb") as file:
            for array in arrays:
                for chunk in (bytes(-at % _ALIGNMENT), *_chunks(array)):
                    digest.update(chunk)
                    file.write(chunk)
                    at += len(chunk)
        digest.update(_text(tree))
        index = {"sha256": digest.hexdigest(), "bytes": at, "value": tree}
        _write(self._folder / f"{name}.json", json.dumps(index).encode())


def read_key(folder: Path) -> Any:
    """The `key` of the checkpoints in a folder, and when the build `began`, ns since 1970."""
    return json.loads((folder / KEY_FILE).read_text())


def _text(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _write(file: Path, content: bytes) -> None:
    """A file that is whole, or not there."""
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    data = memoryview(array.reshape(-1, order="A").view(np.uint8))
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


class _Writer:
    """A value as a tree for JSON, and the arrays in it."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self.arrays, self._at = backend, [], 0

    def tree(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [self.tree(one) for one in value]
            case tuple() if not hasattr(value, "_fields"):
                return {"tuple": [self.tree(one) for one in value]}
            case dict():
                return {"dict": [[self.tree(key), self.tree(one)] for key, one in value.items()]}
            case pa.Array():
                return {"strings": self._array(_ipc(value))}
            case np.ndarray():
                return {"host": self._array(value)}
        kind = type(value)
        names = _field_names(kind)
        if names and kind.__module__.partition(".")[0] == _PACKAGE:
            fields = {name: self.tree(getattr(value, name)) for name in names}
            return {"of": [kind.__module__, kind.__qualname__], "fields": fields}
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return {"array": self._array(self._backend.to_host(value))}
        raise TypeError(f"a checkpoint cannot hold {type(value)}")

    def _array(self, array: np.ndarray) -> list[Any]:
        as_read = array.dtype.str
        if array.dtype == np.int64 and 0 < array.size <= _FEW and array.min() >= 0:
            array = array.astype(np.min_scalar_type(array.max()))
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        array = array if fortran else np.ascontiguousarray(array)
        self._at += -self._at % _ALIGNMENT
        place = [as_read, array.dtype.str, list(array.shape), "F" if fortran else "C", self._at]
        self.arrays.append(array)
        self._at += array.nbytes
        return place


class _Reader:
    """The value of a tree, its arrays being parts of `data`."""

    def __init__(self, data: np.ndarray, backend: Backend) -> None:
        self._data, self._backend = data, backend

    def value(self, tree: Any) -> Any:
        match tree:
            case list():
                return [self.value(one) for one in tree]
            case {"tuple": items}:
                return tuple(self.value(one) for one in items)
            case {"dict": items}:
                return {self.value(key): self.value(one) for key, one in items}
            case {"strings": place}:
                with pa.ipc.open_stream(pa.py_buffer(self._array(place))) as stream:
                    return stream.read_all().column(0).combine_chunks()
            case {"array": place}:
                return self._backend.from_host(self._array(place))
            case {"host": place}:
                return self._array(place)
            case {"of": [module, name], "fields": fields}:
                return _dataclass(module, name)(
                    **{field: self.value(one) for field, one in fields.items()}
                )
        return tree

    def _array(self, place: list[Any]) -> np.ndarray:
        as_read, dtype, shape, order, at = place
        n_bytes = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        array = np.asarray(self._data[at : at + n_bytes]).view(dtype).reshape(shape, order=order)
        return array.astype(as_read, copy=False)


def _ipc(strings: pa.Array) -> np.ndarray:
    sink = pa.BufferOutputStream()
    table = pa.table({"strings": strings})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


def _field_names(kind: Any) -> tuple[str, ...]:
    """The fields of a dataclass or NamedTuple; () of other types."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return getattr(kind, "_fields", ())


def _dataclass(module: str, name: str) -> type:
    if module.partition(".")[0] != _PACKAGE:
        raise ValueError(f"a checkpoint names {module}.{name}, which is not of {_PACKAGE}.")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and _field_names(kind)):
        raise ValueError(f"a checkpoint names {module}.{name}, which has no fields.")
    return kind
