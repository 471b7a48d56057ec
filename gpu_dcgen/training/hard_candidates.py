"""Draw other hard negatives in each epoch, from the lists of candidates of a build (D13).

The law is that of a build with `selection: sampled`: of the candidates that the user does not own,
each has a probability proportional to its weight, with the same limit on the positive's own product
group. A draw is a pure function of (seed, epoch, number of the group within its split).

Owned is what the files name: positives of the split, items of user_sequences.parquet and the row's
own history. What a user of val or test bought more than `max_sequence_length` purchases before the
window, and never again, is in no file: the build left it out, and here it may be drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..contract.json_files import REBUILD
from ..contract.schema import HARD_CANDIDATES
from ..errors import ConfigError, InputError
from .files import SplitFiles, require_file
from .groups import SEQUENCE, CandidateGroups
from .order import HARD_NEGATIVES, make_key, mix
from .ownership import list_owned, scan_positives
from .snapshots import SnapshotGrid, make_snapshot_grid
from .systematic import DrawLimits, plan_draws
from .vocabularies import ITEM_CATEGORIES, DatasetVocabularies, map_dictionary, read_values

_FILE = f"{HARD_CANDIDATES}.parquet"
_NEEDED = ("user_id", "item_id", SEQUENCE, "timestamp")
_BLOCK = 1024  # groups that are drawn for at a time: bounds the memory
_SCORE_ONE = 1 << 14  # scores are whole multiples of its inverse
_NO_SCORE = 1 << 20  # above every score


@dataclass(frozen=True)
class CandidateLists:
    """The lists of a split's snapshots, their C candidates end to end."""

    key: np.ndarray  # (L,) int64  rising: snapshot * (n_items + 1) + item_index
    first: np.ndarray  # (L,) int64  each list's run of candidates
    stop: np.ndarray  # (L,) int64
    columns: CandidateColumns


class CandidateColumns(NamedTuple):
    """Columns of candidates; 23 bytes each."""

    item: np.ndarray  # (C,) int32 item_index
    detail: np.ndarray  # (C,) int8 code of negative_detail
    score: np.ndarray  # (C,) int16 in units of 1 / _SCORE_ONE
    weight: np.ndarray  # (C,) int32
    is_own: np.ndarray  # (C,) bool
    similarity: np.ndarray  # (C,) float32, 0 for none
    popularity: np.ndarray  # (C,) float32
    price: np.ndarray  # (C,) float32, 0 unknown
    price_category: np.ndarray  # (C,) int8 code


_TYPES = ("i4", "i1", "i2", "i4", "?", "f4", "f4", "f4", "i1")  # of `CandidateColumns`


class HardNegativeDrawer:
    """Replaces the stored hard negatives of groups by drawn ones; any number of threads may.

    Where fewer candidates than hard negatives may be drawn, a group keeps those that are stored.
    Memory: 23 bytes per candidate of the split's snapshots, and 8 per user and owned item.
    """

    def __init__(
        self, files: SplitFiles, vocabularies: DatasetVocabularies, columns: list[str]
    ) -> None:
        """Read the lists, and what each user owns.

        Args:
            files: The split.
            vocabularies: Those of its dataset.
            columns: Those that the stream reads.

        Raises:
            InputError: A file cannot be used.
            ConfigError: The dataset has no lists, or its rows are triplets, or a column is missing.
        """
        path = _require_usable(files, columns)
        sampling = files.manifest.config["negative_sampling"]
        share = Fraction(str(sampling["diversity_threshold"]))
        self._limits = DrawLimits(files.n_hard, math.floor(share * files.n_hard))
        self._vocabularies, self._n_keys = vocabularies, vocabularies.n_items + 1
        self._grid = make_snapshot_grid(files.manifest)
        users, items, times = scan_positives(files, vocabularies)
        offsets, owned = list_owned(files, vocabularies, users, items)
        user = torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff())
        self._owned = (user * self._n_keys + owned).numpy()  # rising
        snapshots = np.unique(self._grid.find(times).numpy())
        self._lists = _read_lists(path, vocabularies, self._grid, snapshots)

    def replace(self, groups: CandidateGroups, *, seed: int, epoch: int) -> CandidateGroups:
        """Return the groups with the hard negatives of an epoch, by falling score."""
        user, item, time, sequence, number = (
            tensor.cpu().numpy().astype(np.int64)
            for tensor in (
                groups.user_features["user_index"],
                groups.item_features["item_index"][:, 0],
                groups.metadata["timestamp"],
                groups.user_features[SEQUENCE],
                groups.metadata["group_number"],
            )
        )
        snapshot = (time - self._grid.first_ns) // self._grid.step_ns
        lists = self._find_lists(snapshot * self._n_keys + item)
        keys = mix(make_key(seed, HARD_NEGATIVES, epoch) ^ mix(number.astype(np.uint64)))
        n, n_hard = len(groups), self._limits.n
        place = np.full((n, n_hard), -1, dtype=np.int64)
        log_q = np.zeros((n, n_hard), dtype=np.float32)
        for start in range(0, n, _BLOCK):
            rows = slice(start, start + _BLOCK)
            at, candidate = self._list_candidates(*(bound[rows] for bound in lists))
            may_be_drawn = (at >= 0) & ~self._find_owned(user[rows], sequence[rows], candidate)
            self._draw(at, may_be_drawn, keys[rows], place[rows], log_q[rows])
        return self._write(groups, place, log_q)

    def _find_lists(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first and last candidate + 1 of each key's list; none where it has no list."""
        lists = self._lists
        number, is_listed = _find(lists.key, key)
        return (
            np.where(is_listed, lists.first[number], 0),
            np.where(is_listed, lists.stop[number], 0),
        )

    def _list_candidates(
        self, first: np.ndarray, stop: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of lists' candidates, -1 behind the end, and their items, 0 there."""
        width = max(self._limits.n, int((stop - first).max()))
        at = first[:, None] + np.arange(width)
        at = np.where(at < stop[:, None], at, -1)
        return at, np.where(at >= 0, self._lists.columns.item[at], 0)

    def _find_owned(
        self, user: np.ndarray, sequence: np.ndarray, candidate: np.ndarray
    ) -> np.ndarray:
        """Find the candidates (n, width) that the user of each row owns."""
        row = np.arange(len(user))[:, None] * self._n_keys
        history = np.sort((row + sequence).reshape(-1))
        is_owned = _find(self._owned, user[:, None] * self._n_keys + candidate)[1]
        return is_owned | _find(history, row + candidate)[1]

    def _draw(
        self,
        at: np.ndarray,
        may_be_drawn: np.ndarray,
        keys: np.ndarray,
        place: np.ndarray,
        log_q: np.ndarray,
    ) -> None:
        """Write the places (n, n_hard) of what is drawn, and its log-probabilities."""
        n_hard, columns = self._limits.n, self._lists.columns
        rows = np.flatnonzero(may_be_drawn.sum(axis=1) >= n_hard)
        at, may_be_drawn = at[rows], may_be_drawn[rows]
        weight = np.where(may_be_drawn, columns.weight[at].astype(np.int64), 0)
        plan = plan_draws(weight, columns.is_own[at] & may_be_drawn, self._limits)
        is_drawn = plan.draw(keys[rows])
        rank = np.where(is_drawn, -columns.score[at].astype(np.int64), _NO_SCORE)
        chosen = np.argsort(rank, axis=1, kind="stable")[:, :n_hard]
        place[rows] = np.take_along_axis(at, chosen, axis=1)
        log_q[rows] = np.take_along_axis(plan.compute_log_q(), chosen, axis=1)

    def _write(
        self, groups: CandidateGroups, place: np.ndarray, log_q: np.ndarray
    ) -> CandidateGroups:
        """Return the groups with the candidates at these places; -1 keeps what is stored."""
        columns, categories = self._lists.columns, self._vocabularies.item_categories
        item = columns.item[place]
        values: dict[str, np.ndarray] = {
            "item_index": item,
            **{name: categories[name][item] for name in ITEM_CATEGORIES},
            "item_popularity_score": columns.popularity[place],
            "item_price_category": columns.price_category[place],
            "item_price_normalized": columns.price[place],
            "negative_detail": columns.detail[place],
            "similarity_score": columns.similarity[place],
            "negative_log_q": log_q,
        }
        is_drawn = torch.from_numpy(place >= 0)

        def replace(name: str, stored: Tensor) -> Tensor:
            if name not in values:
                return stored
            hard = slice(1, 1 + self._limits.n)
            drawn = torch.from_numpy(values[name]).to(stored.device, stored.dtype)
            result = stored.clone()
            result[:, hard] = torch.where(is_drawn.to(stored.device), drawn, stored[:, hard])
            return result

        return CandidateGroups(
            groups.user_features,
            {name: replace(name, tensor) for name, tensor in groups.item_features.items()},
            {name: replace(name, tensor) for name, tensor in groups.metadata.items()},
        )


def _find(known: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each value is among the rising `known`, which has some, and whether it is."""
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return place, known[place] == values


def _require_usable(files: SplitFiles, columns: list[str]) -> Path:
    """Return the path of the lists, unless the dataset or the columns do not allow a draw."""
    leave_out = "or leave out hard_negatives."
    if files.shape == "triplet":
        raise ConfigError(
            "hard_negatives 'drawn': a triplet stores one of several hard negatives; expected the"
            f" shape labeled_pair or n_tuple.\nBuild with --set output.shape=n_tuple, {leave_out}"
        )
    if _FILE not in files.manifest.files:
        raise ConfigError(
            f"hard_negatives 'drawn': {files.folder} has no {_FILE}.\n"
            f"Build it again with --set output.hard_candidates=true, {leave_out}"
        )
    if missing := [name for name in _NEEDED if name not in columns]:
        raise ConfigError(
            f"hard_negatives 'drawn': the columns lack {', '.join(missing)}; without them nobody"
            f" knows what a user owns.\nAdd them to columns, {leave_out}"
        )
    return require_file(files.folder, _FILE, files.manifest)


def _read_lists(
    path: Path, vocabularies: DatasetVocabularies, grid: SnapshotGrid, snapshots: np.ndarray
) -> CandidateLists:
    """Read the lists of some snapshots, one row group at a time."""
    n = 0
    try:
        with pq.ParquetFile(path, read_dictionary=["item_id", "candidate_id"]) as file:
            # Memory that is not written to is not used.
            n_rows = file.metadata.num_rows
            key = np.empty(n_rows, dtype=np.int64)
            columns = CandidateColumns(*(np.empty(n_rows, dtype) for dtype in _TYPES))
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, use_threads=False)
                time = table["snapshot"].cast(pa.int64()).to_numpy()
                snapshot = (time - grid.first_ns) // grid.step_ns
                rows = np.flatnonzero(np.isin(snapshot, snapshots))
                where = f"{path}: row group {number}"
                keys, piece = _decode(table, snapshot, rows, vocabularies, where)
                end = n + len(rows)
                key[n:end] = keys
                for column, values in zip(columns, piece, strict=True):
                    column[n:end] = values
                n = end
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}).\n{REBUILD}") from error
    if not n:
        raise ConfigError(
            f"hard_negatives 'drawn': {path} has no candidate at the times of this split.\n"
            "Leave out hard_negatives."
        )
    first = np.flatnonzero(np.diff(key[:n], prepend=-1))
    stop = np.append(first[1:], n)
    order = np.argsort(key[first], kind="stable")
    return CandidateLists(
        key[first][order],
        first[order],
        stop[order],
        CandidateColumns(*(column[:n] for column in columns)),
    )


def _decode(
    table: pa.Table,
    snapshot: np.ndarray,
    rows: np.ndarray,
    vocabularies: DatasetVocabularies,
    where: str,
) -> tuple[np.ndarray, CandidateColumns]:
    """Return keys and columns of some rows."""

    def encode(name: str, column: str) -> np.ndarray:
        array = table[name].combine_chunks()
        codes = vocabularies.encode(column, array.dictionary, where)
        return map_dictionary(array, codes)[rows]

    def read(name: str) -> np.ndarray:
        values, is_valid = read_values(table[name].combine_chunks())
        return (values if is_valid is None else np.where(is_valid, values, 0))[rows]

    key = snapshot[rows] * (vocabularies.n_items + 1) + encode("item_id", "item_id")
    return key, CandidateColumns(
        item=encode("candidate_id", "item_id"),
        detail=encode("source", "negative_detail"),
        score=read("score") * _SCORE_ONE,
        weight=read("weight"),
        is_own=table["is_own_group"].to_numpy()[rows],
        similarity=read("similarity"),
        popularity=read("popularity_score"),
        price=read("price_normalized"),
        price_category=encode("price_category", "item_price_category"),
    )
