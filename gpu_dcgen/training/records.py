"""Decoded groups in one piece each: what a batch takes at random from a large window costs one access a group, not thirty."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from .row_groups import PARTS, Block

_WORD = 4  # bytes
_NUMPY = {
    torch.bool: np.dtype(bool),
    torch.int16: np.dtype(np.int16),
    torch.int32: np.dtype(np.int32),
    torch.int64: np.dtype(np.int64),
    torch.float32: np.dtype(np.float32),
}


@dataclass(frozen=True)
class Field:
    """Where a tensor of the block lies in a record."""

    part: str  # of `PARTS`
    name: str
    first: int  # word
    end: int
    dtype: torch.dtype
    flat: bool  # one value a group: (n,)


@dataclass(frozen=True)
class Records:
    """n groups, their values as 32-bit words side by side."""

    words: Tensor  # (n, words) int32, on the host or on a device
    fields: tuple[Field, ...]

    def __len__(self) -> int:
        return self.words.shape[0]

    @property
    def n_bytes(self) -> int:
        return self.words.numel() * _WORD

    def rows(self, place: np.ndarray | slice) -> Records:
        """The groups at `place`, in that order. On the host NumPy copies: torch would share a copy between its threads."""
        if isinstance(place, slice):
            return Records(self.words[place], self.fields)
        if self.words.device.type == "cpu":
            return Records(torch.from_numpy(self.words.numpy().take(place, axis=0)), self.fields)
        return Records(
            self.words.index_select(0, torch.from_numpy(place).to(self.words.device)), self.fields
        )

    def to(self, device: torch.device | str) -> Records:
        return Records(self.words.to(device), self.fields)

    def block(self) -> Block:
        """The groups as tensors; some are views of the words."""
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        view = _host_view if self.words.device.type == "cpu" else _device_view
        words = self.words.numpy() if view is _host_view else self.words
        for field in self.fields:
            parts[field.part][field.name] = view(words[:, field.first : field.end], field)
        return Block(**parts)


def _host_view(words: np.ndarray, field: Field) -> Tensor:
    """NumPy views cost a tenth of torch's, and a small batch has thirty."""
    dtype = _NUMPY[field.dtype]
    if dtype.itemsize > _WORD:
        words = words.copy()  # also a single row's: it counts as contiguous, whatever its stride
    values = words.astype(dtype) if dtype.itemsize < _WORD else words.view(dtype)
    return torch.from_numpy(values[:, 0] if field.flat else values)


def _device_view(words: Tensor, field: Field) -> Tensor:
    if field.dtype.itemsize > _WORD:
        words = words.clone(memory_format=torch.contiguous_format)
    values = words.to(field.dtype) if field.dtype.itemsize < _WORD else words.view(field.dtype)
    return values[:, 0] if field.flat else values


class Gathering:
    """Room for n groups of equal fields, which any threads fill; the first block that comes says what the fields are."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._lock = Lock()
        self._records: Records | None = None

    def put(self, block: Block, first: int) -> None:
        """The block's groups become records `first` and following; the rows of several threads do not overlap."""
        with self._lock:
            if self._records is None:
                fields = _fields(block)
                self._records = Records(
                    _room(self._n, fields[-1].end, block.metadata["slot"].device), fields
                )
        put = self._put_on_host if self._records.words.device.type == "cpu" else self._put_on_device
        put(block, self._records.words[first : first + len(block)])

    def _put_on_host(self, block: Block, place: Tensor) -> None:
        words = place.numpy()
        for field in self._records.fields:
            values = getattr(block, field.part)[field.name].numpy().reshape(len(block), -1)
            words[:, field.first : field.end] = (
                values.view(np.int32) if values.itemsize >= _WORD else values
            )

    def _put_on_device(self, block: Block, place: Tensor) -> None:
        for field in self._records.fields:
            values = getattr(block, field.part)[field.name].reshape(len(block), -1)
            place[:, field.first : field.end] = (
                values.view(torch.int32) if values.itemsize >= _WORD else values.int()
            )

    def records(self) -> Records:
        """All of them, once they are there."""
        return self._records


def _room(n: int, words: int, device: torch.device) -> Tensor:
    """(n, words) int32, not yet written. On the host NumPy allocates: it asks for huge pages, torch does not."""
    if device.type != "cpu":
        return torch.empty((n, words), dtype=torch.int32, device=device)
    return torch.from_numpy(np.empty((n, words), dtype=np.int32))


def _fields(block: Block) -> tuple[Field, ...]:
    fields, end = [], 0
    for part in PARTS:
        for name, tensor in getattr(block, part).items():
            first, end = end, end + tensor[0].numel() * max(1, tensor.dtype.itemsize // _WORD)
            fields.append(Field(part, name, first, end, tensor.dtype, tensor.dim() == 1))
    return tuple(fields)


def pack(block: Block) -> Records:
    """The block's groups as records."""
    gathering = Gathering(len(block))
    gathering.put(block, 0)
    return gathering.records()


def join(several: list[Records]) -> Records:
    """The groups of several records with equal fields, one after the other; a single one is handed back."""
    if len(several) == 1:
        return several[0]
    words = [records.words for records in several]
    if words[0].device.type != "cpu":
        return Records(torch.cat(words), several[0].fields)
    return Records(
        torch.from_numpy(np.concatenate([tensor.numpy() for tensor in words])), several[0].fields
    )
