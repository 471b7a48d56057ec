"""Read the mining weights of items, and check them as far as the sample allows (D13)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig
from .draws import plan_draw
from .expected import ExpectedDataset, ExpectedSplit
from .findings import Findings
from .hashes import CALIBRATION_SAMPLE, make_key
from .negatives import NegativeMiner, Positive
from .output_columns import NULL, as_array, encode_numbers, encode_texts, expect_numbers
from .purchase_log import PurchaseLog
from .similarity import SimilarityPairs
from .vocabulary_checks import FILE

RULE = "mining_weights"
COLUMN = "mining_weight"
NEUTRAL = 256  # a factor of 1
MAX_WEIGHT = 1 << 16
N_ROUNDS = 12
MAX_FACTOR = 2.0**8  # and its inverse the smallest
MAX_POSITIVES = 1 << 17  # train positives that calibrate
MASS_BITS = 16  # probabilities are summed in 2^-16


def read_mining_weights(table: pa.Table | None, log: PurchaseLog) -> np.ndarray | None:
    """Read the weight of each item of the log: (I,) int64, in 1..65536.

    Where a weight is missing or impossible, the nearest possible one is returned, so that draws
    can be compared; `check_mining_weights` reports it. None without a readable table.
    """
    if table is None or COLUMN not in table.schema.names:
        return None
    weights = np.full(log.n_items, NEUTRAL)
    items = encode_texts(as_array(table["item_id"]), log.item_ids)
    values = encode_numbers(as_array(table[COLUMN]))
    is_known = (items >= 0) & (values != NULL)
    weights[items[is_known]] = values[is_known].clip(1, MAX_WEIGHT)
    return weights


def check_mining_weights(
    table: pa.Table,
    expected: ExpectedDataset,
    pairs: SimilarityPairs | None,
    n_sampled: int,
    config: DatasetConfig,
    findings: Findings,
) -> None:
    """Check the weights' range, and those that must be neutral.

    With at most `n_sampled` train positives, all weights are derived again.
    """
    log, train = expected.log, expected.splits[0]
    if table.num_rows != log.n_items or COLUMN not in table.schema.names:
        return  # the rules `vocabularies` and `schema` report it
    values = encode_numbers(as_array(table[COLUMN]))
    findings.count(RULE, log.n_items)
    is_bad = (values != NULL) & ((values < 1) | (values > MAX_WEIGHT))
    findings.add_bad_rows(
        RULE, FILE, 0, is_bad, lambda row: (int(values[row]), f"1 to {MAX_WEIGHT}")
    )
    items = np.argsort(log.item_index)
    settings = config.negative_sampling
    if not (
        settings.selection == "sampled" and settings.hard_negatives_per_positive and train.n_groups
    ):
        neutral = np.full(log.n_items, NEUTRAL)
        findings.check_column(RULE, FILE, COLUMN, values, expect_numbers(neutral))
        return
    if pairs is not None and train.n_groups <= n_sampled:
        weights = derive_mining_weights(train, pairs, config)
        findings.check_column(RULE, FILE, COLUMN, values, expect_numbers(weights[items]))
        return
    findings.checks[RULE].scope = "ranges, and items that are never on sale in train"
    is_on_sale = np.sum(train.snapshots.on_sale, axis=0)[items] > 0
    is_bad = ~is_on_sale & (values != NEUTRAL) & (values != NULL)
    findings.add_bad_rows(RULE, FILE, 0, is_bad, lambda row: (int(values[row]), NEUTRAL))


def derive_mining_weights(
    train: ExpectedSplit, pairs: SimilarityPairs, config: DatasetConfig
) -> np.ndarray:
    """Calibrate the weights of all items on the train positives: (I,) int64."""
    n_items = train.log.n_items
    n_bought = np.bincount(train.item, minlength=n_items)
    weights, factor = np.full(n_items, NEUTRAL), np.ones(n_items)
    miner = NegativeMiner(train.log, train.snapshots, pairs, config, weights)
    draws = []
    for positive in _select_positives(train, config.seed):
        allowed = miner.list_allowed(positive)
        items = np.array([candidate.item for candidate in allowed], dtype=np.int64)
        is_own = miner.mark_own_group(allowed, positive)
        draws.append((items, miner.weigh_sources(allowed), is_own))
    for _ in range(N_ROUNDS):
        mass = np.zeros(n_items, dtype=np.int64)
        for items, source_weight, is_own in draws:
            plan = plan_draw(source_weight * weights[items], is_own, miner.limits)
            mass[items] += (plan.numerator << MASS_BITS) // plan.denominator
        mean = mass.sum() / n_bought.sum()
        ratio = (n_bought * mean + (1 << MASS_BITS)) / (mass + (1 << MASS_BITS))
        scaled = factor * (np.sqrt(ratio) * np.sqrt(np.sqrt(ratio)))
        factor = np.where(mass > 0, scaled.clip(1 / MAX_FACTOR, MAX_FACTOR), factor)
        weights = np.rint(factor * NEUTRAL).astype(np.int64).clip(1, MAX_WEIGHT)
    return weights


def _select_positives(train: ExpectedSplit, seed: int) -> Iterator[Positive]:
    """Yield the train positives that calibrate: all, or those of the smallest hashes."""
    bits = 0
    while train.n_groups >> bits > MAX_POSITIVES:
        bits += 1
    user_key, item_key = train.log.user_key, train.log.item_key
    columns = (train.user, train.item, train.time, train.copy)
    for user, item, time, copy in zip(*(column.tolist() for column in columns), strict=True):
        parts = int(user_key[user]), int(item_key[item]), time, copy
        if make_key(seed, CALIBRATION_SAMPLE, *parts) >> (64 - bits) == 0:
            yield Positive(user, item, time, copy)
