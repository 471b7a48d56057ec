"""Check hard_candidates against the lists that the rules give (D13)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig
from ..contract.schema import CANDIDATE_SOURCES, HARD_CANDIDATES, PRICE_CATEGORIES, SPLITS
from .candidates import SCORE_BITS, CandidateLister
from .dataset_files import WrittenDataset, check_nulls, stream_side_table
from .expected import ExpectedDataset, ExpectedSplit
from .findings import Findings
from .hashes import ColumnDigests
from .output_columns import (
    ExpectedColumn,
    as_array,
    encode_column,
    encode_numbers,
    encode_texts,
    expect_floats,
    expect_numbers,
    expect_texts,
)
from .similarity import SimilarityPairs
from .split_checks import MiningInputs, SampleSize

FILE = f"{HARD_CANDIDATES}.parquet"
RULE = "hard_candidates"
N_SHOWN = 3  # candidates of a list in a finding


@dataclass(frozen=True)
class ExpectedLists:
    """The items and snapshots that have a list, in the order of the file.

    A key is the number of the snapshot times the number of items, plus the item.
    """

    key: np.ndarray  # (L,) int64  rising
    split: np.ndarray  # (L,) int64  number of the first split with a positive of the list

    def find(self, key: np.ndarray) -> np.ndarray:
        """Return the place of each key, -1 where no positive has it: (n,) int64."""
        place = np.searchsorted(self.key, key)
        padded = np.append(self.key, -1)
        return np.where(padded[place] == key, place, -1)


@dataclass(frozen=True)
class _Rows:
    """Rows of one batch that belong to a list and name known items, as codes."""

    place: np.ndarray  # (n,) int64  of the list
    number: np.ndarray  # (n,) int64  of the snapshot
    item: np.ndarray  # (n,) int64
    candidate: np.ndarray  # (n,) int64
    source: np.ndarray  # (n,) int64
    score: np.ndarray  # (n,) float64  in units of 1 / 2^SCORE_BITS


def check_hard_candidates(
    dataset: WrittenDataset,
    expected: ExpectedDataset,
    mining: MiningInputs,
    sample: SampleSize,
    findings: Findings,
) -> dict[str, str]:
    """Check the lists of candidates; return the digests of the file's columns.

    Without a readable matrix and readable weights, digests alone are checked.
    """
    digests, checker, first_row = ColumnDigests(), None, 0
    if mining.pairs is not None and mining.weights is not None:
        checker = _ListChecker(
            expected, mining.pairs, mining.weights, sample, dataset.config, findings
        )
    schema = dataset.schema_of(HARD_CANDIDATES)
    texts = ["item_id", "candidate_id"]
    for batch in stream_side_table(dataset, HARD_CANDIDATES, texts, digests):
        has_values = check_nulls(FILE, first_row, batch, schema, findings)
        if checker is not None and has_values:
            checker.check(batch, first_row)
        first_row += batch.num_rows
    if checker is not None:
        checker.check_sample()
    return digests.to_hex()


class _ListChecker:
    """Checks every row against tables of items, and lists of a sample by making them again."""

    def __init__(
        self,
        expected: ExpectedDataset,
        pairs: SimilarityPairs,
        weights: np.ndarray,
        sample: SampleSize,
        config: DatasetConfig,
        findings: Findings,
    ) -> None:
        self._log, self._splits, self._pairs = expected.log, expected.splits, pairs
        self._weights, self._findings = weights, findings
        self._config, self._settings = config, config.negative_sampling
        self._lists = _expect_lists(expected, config)
        self._group = self._log.item_columns["product_group"].codes
        self._code = self._log.item_columns["product_code"].codes
        self._sample = sample.select(len(self._lists.key), len(SPLITS))
        # By place of a list in the sample: candidate, source and score of each row.
        self._written: dict[int, list[tuple[int, int, float]]] = {}
        self._last = (-1, -1)  # place and order of the row before the batch
        if len(self._sample) < len(self._lists.key):
            scope = f"features and weights; candidates of {len(self._sample)} seeded lists"
            findings.checks[RULE].scope = scope

    def check(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Check the next rows of the file."""
        rows = self._encode(batch, first_row)
        if rows is None:
            return
        order = (self._group[rows.candidate] + 1) * self._log.n_items + rows.candidate
        place, order = np.append(self._last[0], rows.place), np.append(self._last[1], order)
        is_bad = (np.diff(place) < 0) | ((np.diff(place) == 0) & (np.diff(order) <= 0))
        self._last = int(place[-1]), int(order[-1])
        shown = "a row out of order", "rows by snapshot, item, product group and candidate"
        self._findings.add_bad_rows(RULE, FILE, first_row, is_bad, lambda row: shown)
        self._check_columns(batch, rows, first_row)
        in_sample = np.flatnonzero(np.isin(rows.place, self._sample))
        columns = (rows.place, rows.candidate, rows.source, rows.score)
        for k, *cells in zip(*(column[in_sample].tolist() for column in columns), strict=True):
            self._written.setdefault(k, []).append(tuple(cells))

    def _encode(self, batch: pa.RecordBatch, first_row: int) -> _Rows | None:
        """Encode a batch; None where a row is of no list."""
        ids, grid = self._log.items, self._splits[0].snapshots
        item, candidate = (
            encode_texts(as_array(batch[name]), ids) for name in ("item_id", "candidate_id")
        )
        number, rest = np.divmod(
            encode_numbers(as_array(batch["snapshot"])) - grid.origin, grid.step
        )
        place = self._lists.find(number * self._log.n_items + item)
        source = encode_texts(as_array(batch["source"]), pa.array(CANDIDATE_SOURCES))
        is_bad = (item < 0) | (candidate < 0) | (rest != 0) | (place < 0) | (source < 0)
        self._findings.check_rows(
            RULE,
            FILE,
            first_row,
            is_bad,
            lambda row: (
                str(batch.slice(row, 1).to_pylist()[0]),
                "a known candidate and source, and a list of an item and snapshot of a positive",
            ),
        )
        if is_bad.any():
            self._sample = self._sample[:0]  # lists that lack these rows would all be findings
            return None
        score = as_array(batch["score"]).to_numpy().astype(np.float64) * (1 << SCORE_BITS)
        return _Rows(place, number, item, candidate, source, score)

    def _check_columns(self, batch: pa.RecordBatch, rows: _Rows, first_row: int) -> None:
        n, settings = len(rows.place), self._settings
        popularity, price = np.empty(n, np.float32), np.empty(n, np.float32)
        category, on_sale = np.empty(n, np.int64), np.empty(n, dtype=bool)
        for split in self._splits:
            of_split = np.flatnonzero(self._lists.split[rows.place] == split.number)
            tables, j = split.snapshots, rows.candidate[of_split]
            at = rows.number[of_split] - tables.first
            popularity[of_split], price[of_split] = tables.popularity[at, j], tables.price[at, j]
            category[of_split], on_sale[of_split] = tables.category[at, j], tables.on_sale[at, j]
        weights = dict(settings.source_weights)
        source_weights = np.array([weights[name] for name in CANDIDATE_SOURCES])
        is_own = self._group[rows.item] == self._group[rows.candidate]
        categories = pa.array(PRICE_CATEGORIES)
        columns = {
            "similarity": expect_floats(self._pairs.find_all(rows.item, rows.candidate)),
            "weight": expect_numbers(source_weights[rows.source] * self._weights[rows.candidate]),
            "is_own_group": ExpectedColumn(is_own.astype(np.int64), bool),
            "popularity_score": expect_floats(popularity),
            "price_category": expect_texts(category, categories),
            "price_normalized": expect_floats(price),
        }
        for name, column in columns.items():
            vocabulary = categories if name == "price_category" else None
            is_bad = encode_column(as_array(batch[name]), vocabulary) != column.values
            show = partial(_show_cell, batch, name, column)
            self._findings.add_bad_rows(RULE, FILE, first_row, is_bad, show)
        code = self._code
        is_sibling = (code[rows.item] >= 0) & (code[rows.item] == code[rows.candidate])
        is_bad = ~on_sale | is_sibling | (rows.item == rows.candidate)
        shown = "an item that may not be drawn", "another product on sale at the snapshot"
        self._findings.add_bad_rows(RULE, FILE, first_row, is_bad, lambda row: shown)

    def check_sample(self) -> None:
        """Make the lists of the sample again, and compare candidates, sources and scores."""
        for split in self._splits:
            of_split = self._sample[self._lists.split[self._sample] == split.number]
            if len(of_split):
                lister = CandidateLister(split.log, split.snapshots, self._pairs, self._config)
                for k in of_split.tolist():
                    self._check_list(k, split, lister)
                del lister  # before the next split's log takes memory

    def _check_list(self, k: int, split: ExpectedSplit, lister: CandidateLister) -> None:
        """Compare one list of a split."""
        number, item = divmod(int(self._lists.key[k]), self._log.n_items)
        listed = lister.list_candidates(item, number - split.snapshots.first)
        wanted = [
            (c.item, CANDIDATE_SOURCES.index(c.sources[0]), float(c.score))
            for c in listed
            if c.refused is None
        ]
        written = self._written.get(k, [])
        self._findings.count(RULE, 1)
        if written != wanted:
            name = self._log.item_ids[item].as_py()
            self._findings.add_fault(
                RULE,
                FILE,
                None,
                f"{name}, snapshot {number}: {self._show(written, wanted)}",
                f"{name}, snapshot {number}: {self._show(wanted, written)}",
            )

    def _show(
        self, rows: list[tuple[int, int, float]], compared: list[tuple[int, int, float]]
    ) -> str:
        """Show the first candidates that the other list does not have alike."""
        different = [row for row in rows if row not in compared][:N_SHOWN]
        texts = [
            f"{self._log.item_ids[j].as_py()} by {CANDIDATE_SOURCES[source]}, "
            f"{score / (1 << SCORE_BITS)}"
            for j, source, score in different
        ]
        return f"{len(rows)} candidates, {'; '.join(texts) or 'none that the other lacks'}"


def _show_cell(
    batch: pa.RecordBatch, name: str, expected: ExpectedColumn, row: int
) -> tuple[str, str]:
    shown = expected.show(expected.values[row])
    return f"{name}: {batch[name][row].as_py()}", f"{name}: {shown}"


def _expect_lists(expected: ExpectedDataset, config: DatasetConfig) -> ExpectedLists:
    """Find the items and snapshots of all positives; none without hard negatives."""
    n_items = expected.log.n_items
    splits = expected.splits if config.negative_sampling.hard_negatives_per_positive else []
    keys = [
        (split.snapshots.first + split.snapshots.at(split.time)) * n_items + split.item
        for split in splits
    ]
    numbers = [np.full(split.n_groups, split.number) for split in splits]
    empty = np.empty(0, dtype=np.int64)
    key, first = np.unique(np.concatenate([empty, *keys]), return_index=True)
    return ExpectedLists(key, np.concatenate([empty, *numbers])[first])
