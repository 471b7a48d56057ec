"""Why one positive got its negatives: every candidate with its sources and score, what was refused and why, what was chosen.

The pool is no output of a build; it is derived again from the inputs, by the audit's writing of the rules (D12, D13), and what
comes of it is compared with what was written.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import DatasetConfig
from ..errors import InputError
from . import World, read_world
from .cells import codes, flat
from .dataset import parts_of, read_config, read_manifest
from .log import SPLITS
from .mining import ONE, Mined, Miner, Pairs, Positive

SAMPLE_ID = re.compile(rf"({'|'.join(SPLITS)})-(\d{{10}})-(\d{{2,}})")
SCALE = ONE * ONE  # of scores: two numbers in 16-bit fixed point


@dataclass(frozen=True)
class Explanation:
    """One group of a dataset, and how it came about."""

    sample_id: str
    split: str
    group: int  # in its split, from 0
    slot: int  # of the sample in its group: 0 the positive
    user_id: str
    timestamp: str
    positive: dict[str, Any]  # item_id, name, product_group, price_category
    history: int  # purchases before
    corpus: int  # items on sale
    allowed: int  # of them, not bought by the user before the window's end
    candidates: list[
        dict[str, Any]
    ]  # best score first: item_id, sources, refused, similarity, buyers, parts, score, round
    negatives: list[
        dict[str, Any]
    ]  # by slot: slot, item_id, source, detail, similarity, score, relaxed, written, agrees
    agrees: bool  # whether all that was derived again is what was written


def explain(dataset: Path, sample_id: str, inputs: Path) -> Explanation:
    """Derive the negatives of the group that a sample is in, from the tables that the dataset was built from.

    Needs the memory of the whole log and a part of a minute for millions of rows. InputError: no such sample, no dataset,
    a shape that the audit does not read, or other inputs than the dataset's.
    """
    dataset = Path(dataset)
    manifest = read_manifest(dataset)
    config = read_config(dataset, manifest)
    split, group, slot = _parse(sample_id, config)
    rows = _read_group(dataset, split, group, config)
    if rows is None:
        n = manifest["counts"][SPLITS[split]]["groups"]
        raise InputError(
            f"{sample_id}: {SPLITS[split]} has {n} groups, numbered from 0.\nTake a sample_id of the dataset."
        )
    world = read_world(Path(inputs), config)
    window = world.windows[split]
    user, item, time = (
        int(column[group]) if group < len(column) else -1 for column in window.expected
    )
    log = window.log
    found = [rows[name][0].as_py() for name in ("user_id", "item_id")]
    if user < 0 or found != [log.user_ids[user].as_py(), log.item_ids[item].as_py()]:
        raise InputError(
            f"{sample_id}: the positive of this group is not the one that {inputs} gives.\n"
            "Name the folder that the dataset was built from; 'gpu-dcgen audit' says what differs."
        )
    miner = Miner(log, window.snapshots, _read_pairs(dataset, log.item_ids), config)
    mined = miner.mine(Positive(user, item, time, int(window.copies[group])))
    row = int(log.find(*(window.expected[k][group : group + 1] for k in (0, 2, 1)))[0])
    negatives = _negatives(rows, mined, log.item_ids, config)
    price_category = rows["item_price_category"][0].as_py()
    return Explanation(
        sample_id=sample_id,
        split=SPLITS[split],
        group=group,
        slot=slot,
        user_id=found[0],
        timestamp=rows["timestamp"].cast(pa.string())[0].as_py(),
        positive={**_of_item(world, item), "price_category": price_category},
        history=int(log.n_before[row]),
        corpus=mined.corpus_size,
        allowed=mined.n_allowed,
        candidates=[
            _candidate(world, candidate)
            for candidate in sorted(mined.candidates, key=lambda c: (-c.score, c.item))
        ],
        negatives=negatives,
        agrees=all(negative["agrees"] for negative in negatives),
    )


def as_json(explanation: Explanation) -> dict[str, Any]:
    return asdict(explanation)


def _parse(sample_id: str, config: DatasetConfig) -> tuple[int, int, int]:
    """Split, group and slot of a sample_id."""
    match = SAMPLE_ID.fullmatch(sample_id)
    last = config.rows_per_positive - 1
    if match is None or int(match[3]) > last:
        raise InputError(
            f"{sample_id!r}: is no sample_id of this dataset; expected one such as train-0000000012-{min(3, last):02d}, "
            f"with a last number of at most {last}.\nTake one from the column sample_id."
        )
    return SPLITS.index(match[1]), int(match[2]), int(match[3])


def _read_group(dataset: Path, split: int, group: int, config: DatasetConfig) -> pa.Table | None:
    """The rows of one group, of which the row groups that hold it are read; None beyond the last."""
    first, last = group * config.rows_per_positive, (group + 1) * config.rows_per_positive
    found, start = [], 0
    for part in parts_of(dataset, f"{SPLITS[split]}_dataset"):
        with pq.ParquetFile(part) as parquet:
            for number in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(number).num_rows
                if start < last and stop > first:
                    table = parquet.read_row_group(number)
                    found.append(
                        table.slice(max(0, first - start), min(last, stop) - max(first, start))
                    )
                start = stop
    return pa.concat_tables(found) if found and start >= last else None


def _read_pairs(dataset: Path, item_ids: pa.Array) -> Pairs:
    table = pq.read_table(
        dataset / "item_similarity_matrix.parquet",
        columns=["item_id", "similar_item_id", "similarity"],
    )
    item, other = (codes(flat(table[name]), item_ids) for name in ("item_id", "similar_item_id"))
    return Pairs(item, other, flat(table["similarity"]).to_numpy(), len(item_ids))


def _of_item(world: World, item: int) -> dict[str, Any]:
    columns = world.log.item_columns
    return {
        "item_id": world.log.item_ids[item].as_py(),
        "name": columns["name"].text(item),
        "product_group": columns["product_group"].text(item),
    }


def _candidate(world: World, candidate: Any) -> dict[str, Any]:
    return {
        **_of_item(world, candidate.item),
        "sources": candidate.sources,
        "refused": candidate.refused,
        "similarity": None if candidate.similarity is None else float(candidate.similarity),
        "buyers": candidate.buyers,
        "parts": {name: part / SCALE for name, part in candidate.parts.items()},
        "score": candidate.score / SCALE,
        "round": candidate.round,
    }


def _negatives(
    rows: pa.Table, mined: Mined, item_ids: pa.Array, config: DatasetConfig
) -> list[dict[str, Any]]:
    """What was derived again, slot by slot, beside the item that was written there."""
    written = {name: _of_negatives(rows, name, config) for name in ("item_id", "negative_detail")}
    return [
        {
            "slot": slot,
            "item_id": item_ids[negative.item].as_py(),
            "source": negative.source,
            "detail": negative.detail,
            "similarity": None if negative.similarity is None else float(negative.similarity),
            "score": None if negative.value is None else negative.value / SCALE,
            "relaxed": negative.relaxed,
            "written": item_id,
            "agrees": item_id == item_ids[negative.item].as_py()
            and detail in (None, negative.detail),
        }
        for slot, (negative, item_id, detail) in enumerate(
            zip(mined.negatives, *written.values(), strict=True), 1
        )
    ]


def _of_negatives(rows: pa.Table, name: str, config: DatasetConfig) -> list[Any]:
    """A column of a group's negatives in either shape; None for each where the dataset has no such column."""
    if config.output.shape == "labeled_pair":
        return (
            rows[name].to_pylist()[1:]
            if name in rows.schema.names
            else [None] * config.negatives_per_positive
        )
    name = f"negative_{name.removeprefix('negative_')}"
    return (
        rows[name][0].as_py()
        if name in rows.schema.names
        else [None] * config.negatives_per_positive
    )
