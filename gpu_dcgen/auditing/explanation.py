"""Explain the negatives of one positive: candidates, scores, refusals and probabilities.

A build need not write its candidates. They are derived again from the inputs and the dataset's
mining weights by the audit's implementation of the rules (D12, D13), and the result is compared
with the dataset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config import DatasetConfig
from ..contract.schema import SPLITS
from ..errors import InputError
from .candidates import PART_BITS, SCORE_BITS, Candidate, rank_by_score
from .dataset_files import WrittenDataset, open_dataset
from .expected import ExpectedSplit, derive_dataset
from .mining_weights import COLUMN, NEUTRAL, read_mining_weights
from .negatives import MiningResult, NegativeMiner, Positive
from .purchase_log import PurchaseLog
from .similarity_checks import read_pairs
from .vocabulary_checks import FILE

SAMPLE_ID = re.compile(rf"({'|'.join(SPLITS)})-(\d{{10}})-(\d{{2,}})")
SCORE_SCALE, PART_SCALE = 1 << SCORE_BITS, 1 << PART_BITS


class ExplainedItem(TypedDict):
    """An item as people know it."""

    item_id: str
    name: str | None
    product_group: str | None


class ExplainedPositive(ExplainedItem):
    """The positive's item at the time of the purchase."""

    price_category: str | None


class ExplainedCandidate(ExplainedItem):
    """An item that was offered as a hard negative."""

    sources: list[str]
    refused: str | None  # itself, not_on_sale, sibling, low_score, owned; None if allowed
    similarity: float | None  # of the pair in the matrix
    buyers: int  # who brought it in by `collaborative` or `viewed`
    parts: dict[str, float]  # of the score, by name
    score: float  # their sum, to 2^-14
    weight: float | None  # of its source x its own; None if refused, and with `selection: greedy`
    probability: float  # of being drawn for this positive
    slot: int | None  # in which it is written, if drawn


class ExplainedNegative(TypedDict):
    """A negative as it was derived again, beside the one in the dataset."""

    slot: int
    item_id: str
    source: str
    detail: str
    similarity: float | None
    score: float | None  # of a candidate
    log_q: float  # logarithm of the probability that it is drawn
    written: str  # item_id in the dataset
    agrees: bool


@dataclass(frozen=True)
class Explanation:
    """One group of a dataset, and how its negatives came about."""

    sample_id: str
    split: str
    group: int  # in its split, from 0
    slot: int  # of the sample in its group: 0 the positive
    user_id: str
    timestamp: str
    positive: ExplainedPositive
    history: int  # purchases before
    corpus: int  # items on sale
    allowed: int  # of them, those the user does not buy before the window's end
    relaxed: int  # hard negatives beyond the limit on the positive's product group
    candidates: list[ExplainedCandidate]  # best score first
    negatives: list[ExplainedNegative]  # by slot
    agrees: bool  # whether all derived negatives are those of the dataset


def explain(dataset: str | Path, sample_id: str, inputs: str | Path) -> Explanation:
    """Derive the negatives of one group again, with every candidate's score and probability.

    Needs memory for the whole log, and some seconds for millions of rows.

    Args:
        dataset: The folder that `build` published, with output.shape labeled_pair or n_tuple.
        sample_id: Any sample of the group, such as train-0000000012-03.
        inputs: The folder of tables that the dataset was built from.

    Returns:
        The candidates, the derived negatives, and whether they agree with the dataset's.

    Raises:
        InputError: There is no such dataset or sample, the dataset's shape is another one, or
            the inputs are not those of the dataset.

    Example:
        >>> explanation = explain("data/training", "train-0000000012-03", "data/processed")
        >>> explanation.agrees
        True
    """
    written = open_dataset(Path(dataset))
    split_number, group, slot = _parse_sample_id(sample_id, written.config)
    rows = _read_group(written, split_number, group)
    if rows is None:
        name = SPLITS[split_number]
        n = written.read_entry(f"counts.{name}.groups")
        raise InputError(
            f"{sample_id}: {name} has {n} groups, numbered from 0.\n"
            "Take a sample_id of the dataset."
        )
    split = derive_dataset(Path(inputs), written.config, written.list_inputs()).splits[split_number]
    log = split.log
    positive = _find_positive(split, group)
    user_id, item_id = (rows[name][0].as_py() for name in ("user_id", "item_id"))
    if positive is None or (user_id, item_id) != (
        log.user_ids[positive.user].as_py(),
        log.item_ids[positive.item].as_py(),
    ):
        raise InputError(
            f"{sample_id}: the positive of this group is not the one that {inputs} gives.\n"
            "Name the folder that the dataset was built from; "
            "'gpu-dcgen audit' says what differs."
        )
    pairs = read_pairs(written, log.items)
    weights = _read_mining_weights(written, log)
    result = NegativeMiner(log, split.snapshots, pairs, written.config, weights).mine(positive)
    negatives = _explain_negatives(rows, result, log.item_ids, written.config)
    price_category = rows["item_price_category"][0].as_py()
    candidates = sorted(result.candidates, key=rank_by_score)
    return Explanation(
        sample_id=sample_id,
        split=split.name,
        group=group,
        slot=slot,
        user_id=user_id,
        timestamp=rows["timestamp"].cast(pa.string())[0].as_py(),
        positive={**_explain_item(log, positive.item), "price_category": price_category},
        history=_count_history(log, positive),
        corpus=result.n_on_sale,
        allowed=result.n_allowed,
        relaxed=result.n_relaxed,
        candidates=[_explain_candidate(log, candidate) for candidate in candidates],
        negatives=negatives,
        agrees=all(negative["agrees"] for negative in negatives),
    )


def _parse_sample_id(sample_id: str, config: DatasetConfig) -> tuple[int, int, int]:
    """Return split, group and slot of a sample_id."""
    match = SAMPLE_ID.fullmatch(sample_id)
    last = config.rows_per_positive - 1
    if match is None or int(match[3]) > last:
        raise InputError(
            f"{sample_id!r}: is no sample_id of this dataset; "
            f"expected one such as train-0000000012-{min(3, last):02d}, "
            f"with a last number of at most {last}.\nTake one from the column sample_id."
        )
    return SPLITS.index(match[1]), int(match[2]), int(match[3])


def _read_group(dataset: WrittenDataset, split: int, group: int) -> pa.Table | None:
    """Read the rows of one group; None beyond the last. Other row groups are not read."""
    rows_per_group = dataset.config.rows_per_positive
    first, last = group * rows_per_group, (group + 1) * rows_per_group
    tables, start = [], 0
    for part in dataset.parts_of(f"{SPLITS[split]}_dataset"):
        with pq.ParquetFile(part) as parquet:
            for number in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(number).num_rows
                if start < last and stop > first:
                    low, high = max(first, start), min(last, stop)
                    tables.append(parquet.read_row_group(number).slice(low - start, high - low))
                start = stop
    return pa.concat_tables(tables) if tables and start >= last else None


def _find_positive(split: ExpectedSplit, group: int) -> Positive | None:
    """Return the expected positive of a group; None beyond the last."""
    if group >= split.n_groups:
        return None
    columns = split.user, split.item, split.time, split.copy
    return Positive(*(int(column[group]) for column in columns))


def _read_mining_weights(dataset: WrittenDataset, log: PurchaseLog) -> np.ndarray:
    path = dataset.folder / FILE
    weights = read_mining_weights(pq.read_table(path), log)
    if weights is None:
        raise InputError(
            f"{path}: has no column {COLUMN}; expected one.\n"
            "Build the dataset with this version, or explain it with the version that built it."
        )
    return weights


def _count_history(log: PurchaseLog, positive: Positive) -> int:
    """Count the user's purchases strictly before the positive."""
    place = (np.array([code]) for code in (positive.user, positive.time, positive.item))
    (row,) = log.find_rows(*place)
    return int(log.n_before[row])


def _explain_item(log: PurchaseLog, item: int) -> ExplainedItem:
    return {
        "item_id": log.item_ids[item].as_py(),
        "name": log.item_columns["name"].text(item),
        "product_group": log.item_columns["product_group"].text(item),
    }


def _explain_candidate(log: PurchaseLog, candidate: Candidate) -> ExplainedCandidate:
    return {
        **_explain_item(log, candidate.item),
        "sources": candidate.sources,
        "refused": candidate.refused,
        "similarity": None if candidate.similarity is None else float(candidate.similarity),
        "buyers": candidate.buyers,
        "parts": {name: part / PART_SCALE for name, part in candidate.parts.items()},
        "score": candidate.score / SCORE_SCALE,
        "weight": None if candidate.weight is None else candidate.weight / NEUTRAL,
        "probability": candidate.probability,
        "slot": candidate.slot,
    }


def _explain_negatives(
    rows: pa.Table, result: MiningResult, item_ids: pa.Array, config: DatasetConfig
) -> list[ExplainedNegative]:
    """Return the derived negatives by slot, beside the items of the dataset."""
    written_ids = _read_negatives(rows, "item_id", config)
    written_details = _read_negatives(rows, "negative_detail", config)
    written_log_q = _read_negatives(rows, "negative_log_q", config)
    negatives: list[ExplainedNegative] = []
    written = zip(result.negatives, written_ids, written_details, written_log_q, strict=True)
    for slot, (negative, written_id, detail, log_q) in enumerate(written, 1):
        item_id = item_ids[negative.item].as_py()
        agrees = written_id == item_id and detail in (None, negative.detail)
        negatives.append(
            {
                "slot": slot,
                "item_id": item_id,
                "source": negative.source,
                "detail": negative.detail,
                "similarity": None if negative.similarity is None else float(negative.similarity),
                "score": None if negative.score is None else negative.score / SCORE_SCALE,
                "log_q": float(negative.log_q),
                "written": written_id,
                "agrees": agrees and log_q in (None, float(negative.log_q)),
            }
        )
    return negatives


def _read_negatives(rows: pa.Table, name: str, config: DatasetConfig) -> list[Any]:
    """Read a column of a group's negatives; None for each where the dataset lacks it."""
    is_tuple = config.output.shape == "n_tuple"
    if is_tuple:
        name = f"negative_{name.removeprefix('negative_')}"
    if name not in rows.schema.names:
        return [None] * config.negatives_per_positive
    return rows[name][0].as_py() if is_tuple else rows[name].to_pylist()[1:]
