"""Decoded groups as records, each in one piece of memory.

Taking the groups of a batch from a large window then costs one memory access per group, not thirty.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from .groups import PARTS, CandidateGroups

_WORD_BYTES = 4
_NUMPY_TYPES = {
    torch.bool: np.dtype(bool),
    torch.int16: np.dtype(np.int16),
    torch.int32: np.dtype(np.int32),
    torch.int64: np.dtype(np.int64),
    torch.float32: np.dtype(np.float32),
}


@dataclass(frozen=True)
class RecordField:
    """Where a tensor of the groups lies in a record."""

    part: str  # of `PARTS`
    name: str
    first: int  # word
    end: int
    dtype: torch.dtype
    is_flat: bool  # one value per group: (n,)


@dataclass(frozen=True)
class Records:
    """n groups, their values side by side as 32-bit words; int64 takes two."""

    words: Tensor  # (n, n_words) int32, on the host or on a device
    fields: tuple[RecordField, ...]

    def __len__(self) -> int:
        return self.words.shape[0]

    @property
    def n_bytes(self) -> int:
        """Size in memory."""
        return self.words.numel() * _WORD_BYTES

    def select(self, rows: np.ndarray | slice) -> Records:
        """Return the groups at `rows`, in that order; a copy unless `rows` is a slice."""
        if isinstance(rows, slice):
            return Records(self.words[rows], self.fields)
        if self.words.device.type == "cpu":
            # NumPy copies in this thread; torch would split the copy among its own threads.
            return Records(torch.from_numpy(self.words.numpy().take(rows, axis=0)), self.fields)
        index = torch.from_numpy(rows).to(self.words.device)
        return Records(self.words.index_select(0, index), self.fields)

    def to(self, device: torch.device | str) -> Records:
        """Return the records on a device."""
        return Records(self.words.to(device), self.fields)

    def to_groups(self) -> CandidateGroups:
        """Return the groups as tensors; some are views of the words."""
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        if self.words.device.type == "cpu":
            words = self.words.numpy()
            for field in self.fields:
                parts[field.part][field.name] = _view_on_host(
                    words[:, field.first : field.end], field
                )
        else:
            for field in self.fields:
                parts[field.part][field.name] = _view_on_device(
                    self.words[:, field.first : field.end], field
                )
        return CandidateGroups(**parts)


def _view_on_host(words: np.ndarray, field: RecordField) -> Tensor:
    """View the words of a field: NumPy's views cost a tenth of torch's, for thirty a batch."""
    dtype = _NUMPY_TYPES[field.dtype]
    if dtype.itemsize > _WORD_BYTES:
        # Also for a single row, which counts as contiguous whatever its stride.
        words = words.copy()
    values = words.astype(dtype) if dtype.itemsize < _WORD_BYTES else words.view(dtype)
    return torch.from_numpy(values[:, 0] if field.is_flat else values)


def _view_on_device(words: Tensor, field: RecordField) -> Tensor:
    if field.dtype.itemsize > _WORD_BYTES:
        words = words.clone(memory_format=torch.contiguous_format)
    is_small = field.dtype.itemsize < _WORD_BYTES
    values = words.to(field.dtype) if is_small else words.view(field.dtype)
    return values[:, 0] if field.is_flat else values


class RecordBuffer:
    """Memory for n groups of equal fields, which several threads fill."""

    def __init__(self, n: int) -> None:
        """Reserve n groups; the first groups written determine the fields."""
        self._n = n
        self._lock = Lock()
        self._records: Records | None = None

    def write(self, groups: CandidateGroups, first: int) -> None:
        """Write groups to records `first` and following, which no other thread may write to."""
        records = self._allocate_once(groups)
        words = records.words[first : first + len(groups)]
        if words.device.type == "cpu":
            _write_on_host(groups, words.numpy(), records.fields)
        else:
            _write_on_device(groups, words, records.fields)

    def get_records(self) -> Records:
        """Return all records, once they are written."""
        assert self._records is not None, "no groups were written"
        return self._records

    def _allocate_once(self, groups: CandidateGroups) -> Records:
        with self._lock:
            if self._records is None:
                fields = _make_fields(groups)
                device = groups.metadata["slot"].device
                self._records = Records(_allocate(self._n, fields[-1].end, device), fields)
            return self._records


def _write_on_host(
    groups: CandidateGroups, words: np.ndarray, fields: tuple[RecordField, ...]
) -> None:
    for field in fields:
        values = getattr(groups, field.part)[field.name].numpy().reshape(len(groups), -1)
        is_small = values.itemsize < _WORD_BYTES
        words[:, field.first : field.end] = values if is_small else values.view(np.int32)


def _write_on_device(
    groups: CandidateGroups, words: Tensor, fields: tuple[RecordField, ...]
) -> None:
    for field in fields:
        values = getattr(groups, field.part)[field.name].reshape(len(groups), -1)
        is_small = values.itemsize < _WORD_BYTES
        words[:, field.first : field.end] = values.int() if is_small else values.view(torch.int32)


def _allocate(n: int, n_words: int, device: torch.device) -> Tensor:
    """Allocate (n, n_words) int32, not initialized."""
    if device.type != "cpu":
        return torch.empty((n, n_words), dtype=torch.int32, device=device)
    # NumPy asks for huge pages, torch does not.
    return torch.from_numpy(np.empty((n, n_words), dtype=np.int32))


def _make_fields(groups: CandidateGroups) -> tuple[RecordField, ...]:
    fields, end = [], 0
    for part in PARTS:
        for name, tensor in getattr(groups, part).items():
            n_words = tensor[0].numel() * max(1, tensor.dtype.itemsize // _WORD_BYTES)
            first, end = end, end + n_words
            fields.append(RecordField(part, name, first, end, tensor.dtype, tensor.dim() == 1))
    return tuple(fields)


def pack(groups: CandidateGroups) -> Records:
    """Pack groups into records."""
    buffer = RecordBuffer(len(groups))
    buffer.write(groups, 0)
    return buffer.get_records()


def concatenate(records: list[Records]) -> Records:
    """Concatenate records of equal fields; a single one is returned as it is."""
    if len(records) == 1:
        return records[0]
    words = [each.words for each in records]
    if words[0].device.type != "cpu":
        return Records(torch.cat(words), records[0].fields)
    joined = np.concatenate([tensor.numpy() for tensor in words])
    return Records(torch.from_numpy(joined), records[0].fields)
