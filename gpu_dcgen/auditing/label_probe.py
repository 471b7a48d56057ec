"""Test whether features reveal the label (D6, D17): each alone, and a classifier over all.

Popular items are bought more often, so features do correlate with the label; the question is
whether one reveals it. Popularity alone is the baseline. An item in the user's own history is
never a negative, which is a known exception (D17), so all figures come with and without
repurchases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import stats

from ..config import DatasetConfig
from ..contract.schema import SPLITS, get_columns
from .findings import Findings
from .group_comparer import GroupCodes
from .output_columns import NULL, as_array, encode_numbers

TRAIN = f"{SPLITS[0]}_dataset"
N_BINS = 32  # of a feature's values, besides null
MAX_AUC = 0.95  # above this, a feature or all together reveal the label
# A value reveals the label where this share of its rows, ...
MAX_POSITIVE_RATE = 0.9
# ... and at least this share of all positives, and this many, have label 1.
MIN_SHARE, MIN_ROWS = 0.01, 30
RIDGE, NEWTON_STEPS, TINY = 1.0, 12, 1e-9  # of the classifier
MAX_LOG_ODDS = 30
BASELINE = "item_popularity_score"
EXCEPTION = "item in history"


class ProbeSample:
    """Rows of a seeded sample of the train split's groups, collected batch by batch."""

    def __init__(self, groups: np.ndarray, n_sampled: int, seed: int) -> None:
        """Select from groups (n,), rising."""
        random, n = np.random.default_rng(seed), len(groups)
        self.groups = groups[np.sort(random.choice(n, min(n_sampled, n), replace=False))]
        self._tables: list[pa.Table] = []
        self._items: list[np.ndarray] = []

    def add(self, groups: GroupCodes) -> None:
        """Add the sampled groups of a batch."""
        batch = groups.batch
        low, high = np.searchsorted(
            self.groups, [batch.first_group, batch.first_group + batch.n_groups]
        )
        sampled = self.groups[low:high] - batch.first_group
        if len(sampled):
            width = batch.table.num_rows // batch.n_groups
            rows = (sampled[:, None] * width + np.arange(width)).reshape(-1)
            self._tables.append(pa.table(batch.table.take(pa.array(rows))))
            self._items.append(groups.item[sampled])

    @property
    def n_rows(self) -> int:
        """Rows collected."""
        return sum(table.num_rows for table in self._tables)

    def collect(self) -> tuple[pa.Table, np.ndarray]:
        """Return all rows, and the items of their groups (n, width)."""
        return pa.concat_tables(self._tables).unify_dictionaries(), np.concatenate(self._items)


def probe_labels(
    sample: ProbeSample, item_index: np.ndarray, config: DatasetConfig, findings: Findings
) -> None:
    """Test the features of a sample of rows with labels (an n-tuple has none)."""
    check = findings.checks["label_probe"]
    check.scope = f"{len(sample.groups)} seeded groups of train"
    table, items = sample.collect()
    label = as_array(table["label"]).to_numpy() == 1
    is_in_history = _find_in_history(table, item_index[items.reshape(-1)])
    check.facts["known_exception"] = {
        "feature": EXCEPTION,
        "auc": round(compute_auc(is_in_history.astype(float), label), 4),
        "share_of_positives": round(float(is_in_history[label].mean()), 4),
    }
    if config.negative_sampling.corpus == "all":
        check.facts["note"] = (
            "corpus: all draws items that were not on sale, "
            "and their features can reveal the label (D11, D20)"
        )
    features, width = _encode_features(table, config), items.shape[1]
    check.facts["all"] = _probe(features, label, np.arange(items.size), width, findings)
    if "is_repurchase" not in table.schema.names:
        return
    is_repurchase = as_array(table["is_repurchase"]).to_numpy(zero_copy_only=False)
    if (~is_repurchase).any() and is_repurchase.any():
        rows = np.flatnonzero(~is_repurchase)
        check.facts["without_repurchases"] = _probe(features, label, rows, width, findings)


def _encode_features(table: pa.Table, config: DatasetConfig) -> dict[str, np.ndarray]:
    """Encode every feature that is no list as int64, NULL for null; texts by dictionary code."""
    features = {}
    for column in get_columns(TRAIN, config.output.extra_columns):
        if column.role != "feature" or column.type.startswith("list"):
            continue
        values = as_array(table[column.name])
        if pa.types.is_dictionary(values.type):
            codes = values.indices.cast(pa.int64()).fill_null(-1).to_numpy()
            features[column.name] = np.where(codes < 0, NULL, codes)
        else:
            # The bits of floats that are not negative are in the order of the floats.
            features[column.name] = encode_numbers(values)
    return features


def _find_in_history(table: pa.Table, index: np.ndarray) -> np.ndarray:
    """Mark the rows with their item in the user's history: (n,) bool."""
    history = as_array(table["user_interaction_sequence"])
    lengths = history.value_lengths().to_numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    is_same = history.flatten().to_numpy() == index[row]
    return np.bincount(row[is_same], minlength=len(lengths)) > 0


def _probe(
    features: dict[str, np.ndarray],
    label: np.ndarray,
    rows: np.ndarray,
    width: int,
    findings: Findings,
) -> dict[str, Any]:
    """Learn from the rows' even groups, and compute AUCs on their odd groups."""
    group = rows // width
    train, test = rows[group % 2 == 0], rows[group % 2 == 1]
    if min(label[train].sum(), label[test].sum()) < MIN_ROWS:
        return {"positives": int(label[rows].sum()), "note": "too few to learn anything from"}
    base_rate = label[train].mean()
    aucs, rates = {}, {}
    for name, values in features.items():
        bins = _assign_bins(values, train)
        rates[name] = _estimate_rates(bins, label, train, base_rate)[bins]
        aucs[name] = compute_auc(rates[name][test], label[test])
        _check_auc(name, aucs[name], findings)
        for value in _find_revealing(bins[test], values[test], label[test]):
            findings.add_fault(
                "label_probe",
                TRAIN,
                None,
                f"{name}: {value.share:.1%} of positives have a value (such as {value.shown}) "
                f"with label 1 in {value.rate:.0%} of its rows",
                f"no such value with label 1 in {MAX_POSITIVE_RATE:.0%} of its rows",
            )
    auc = _classify(rates, label, train, test)
    _check_auc("classifier", auc, findings)
    return {
        "positives": int(label[rows].sum()),
        "classifier_auc": round(auc, 4),
        "popularity_auc": round(aucs[BASELINE], 4),
        "feature_auc": {
            name: round(aucs[name], 4) for name in sorted(aucs, key=lambda f: -aucs[f])
        },
    }


def _check_auc(name: str, auc: float, findings: Findings) -> None:
    findings.count("label_probe", 1)
    if auc > MAX_AUC:
        findings.add_fault(
            "label_probe", TRAIN, None, f"{name}: AUC {auc:.4f}", f"AUC <= {MAX_AUC}"
        )


def _assign_bins(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Assign each value a bin: 0 for null, then one a value, or quantiles of many values."""
    known = values[train][values[train] != NULL]
    edges = np.unique(known)
    if len(edges) > 4 * N_BINS:
        edges = np.unique(np.quantile(known, np.arange(1, N_BINS) / N_BINS, method="lower"))
    return np.where(values == NULL, 0, 1 + np.searchsorted(edges, values, side="right"))


def _estimate_rates(
    bins: np.ndarray, label: np.ndarray, train: np.ndarray, base_rate: float
) -> np.ndarray:
    """Estimate the rate of label 1 by bin; in small bins it is near the base rate."""
    n = np.bincount(bins[train], minlength=bins.max() + 1)
    return (np.bincount(bins[train], weights=label[train], minlength=len(n)) + base_rate) / (n + 1)


class _RevealingValue(NamedTuple):
    shown: str
    share: float  # of the positives that have it
    rate: float  # of positives among its rows


def _find_revealing(
    bins: np.ndarray, values: np.ndarray, label: np.ndarray
) -> Iterator[_RevealingValue]:
    """Yield values that nearly always come with label 1, one a bin."""
    n, n_positive = np.bincount(bins), np.bincount(bins, weights=label)
    minimum = max(MIN_ROWS, MIN_SHARE * label.sum())
    for b in np.flatnonzero((n_positive >= minimum) & (n_positive >= MAX_POSITIVE_RATE * n)):
        value = values[np.argmax(bins == b)]
        yield _RevealingValue(
            "null" if value == NULL else f"code or bits {value}",
            float(n_positive[b] / label.sum()),
            float(n_positive[b] / n[b]),
        )


def _classify(
    rates: dict[str, np.ndarray], label: np.ndarray, train: np.ndarray, test: np.ndarray
) -> float:
    """Return the AUC of a ridge logistic regression over each feature's log odds of label 1."""
    odds = np.stack([np.log(rate / (1 - rate)) for rate in rates.values()], axis=1)
    x = np.column_stack([np.ones(len(odds)), odds - odds[train].mean(axis=0)])
    x_train, y, weights = x[train], label[train].astype(float), np.zeros(x.shape[1])
    ridge = np.diag(np.append(0.0, np.full(odds.shape[1], RIDGE)))
    for _ in range(NEWTON_STEPS):
        log_odds = np.clip(x_train @ weights, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        rate = 1 / (1 + np.exp(-log_odds))
        gradient = x_train.T @ (y - rate) - ridge @ weights
        curvature = (x_train * (rate * (1 - rate))[:, None]).T @ x_train + ridge
        weights = weights + np.linalg.solve(curvature + TINY * np.eye(len(weights)), gradient)
    return compute_auc(x[test] @ weights, label[test])


def compute_auc(score: np.ndarray, label: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counting half."""
    n_positive = int(label.sum())
    ranks = stats.rankdata(score)[label].sum()
    return float(
        (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (len(label) - n_positive))
    )
