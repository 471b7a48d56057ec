"""Can the label be read from the features? (D6, D17): each feature alone, and a small classifier over all of them.

Popular items are bought more often, so features do tell something; the question is whether one gives the label away.
Popularity alone is the baseline to see the others against. That an item in the user's own history is never a negative
is a known exception (D17), so everything is reported with and without repurchases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from ..contract.schema import get_columns
from .cells import NULL, flat, numbers
from .checks import Findings
from .groups import Groups
from .log import SPLITS

N_BINS = 32  # of a feature's values, besides null
MOST_AUC = 0.95  # from here on a feature, or all together, give the label away
MOST_PURE, LEAST_SHARE, LEAST_ROWS = (
    0.9,
    0.01,
    30,
)  # and so does one value that nearly always means 1
RIDGE, NEWTON_STEPS, TINY = 1.0, 12, 1e-9  # of the classifier
BASELINE = "item_popularity_score"
EXCEPTION = "item in history"


class Sample:
    """Rows of seeded groups of the train split, collected as they pass by."""

    def __init__(self, n_groups: int, n_wanted: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.chosen = np.sort(chance.choice(n_groups, min(n_wanted, n_groups), replace=False))
        self._tables: list[pa.Table] = []
        self._items: list[np.ndarray] = []

    def take(self, groups: Groups) -> None:
        batch = groups.batch
        low, high = np.searchsorted(
            self.chosen, [batch.first_group, batch.first_group + batch.n_groups]
        )
        here = self.chosen[low:high] - batch.first_group
        if len(here):
            width = batch.table.num_rows // batch.n_groups
            rows = (here[:, None] * width + np.arange(width)).reshape(-1)
            self._tables.append(pa.table(batch.table.take(pa.array(rows))))
            self._items.append(groups.item[here])

    @property
    def n_rows(self) -> int:
        return sum(table.num_rows for table in self._tables)

    def rows(self) -> tuple[pa.Table, np.ndarray]:
        """All rows, and their groups' items (n, width)."""
        return pa.concat_tables(self._tables).unify_dictionaries(), np.concatenate(self._items)


def probe(sample: Sample, item_index: np.ndarray, config: Any, findings: Findings) -> None:
    """Hold the label against the features of a sample; needs rows with labels, so an n-tuple is not probed."""
    check = findings.checks["label_probe"]
    check.scope = f"{len(sample.chosen)} seeded groups of train"
    table, items = sample.rows()
    n, width = items.shape
    label = flat(table["label"]).to_numpy() == 1
    repurchase = (
        flat(table["is_repurchase"]).to_numpy(zero_copy_only=False)
        if "is_repurchase" in table.schema.names
        else None
    )
    features = _features(table, config)
    in_history = _in_history(table, item_index[items.reshape(-1)])
    check.facts["known_exception"] = {
        "feature": EXCEPTION,
        "auc": round(_auc(in_history.astype(float), label), 4),
        "share_of_positives": round(float(in_history[label].mean()), 4),
    }
    if config.negative_sampling.corpus == "all":
        check.facts["note"] = (
            "corpus: all draws items that were not on sale, whose features can give the label away (D11, D20)"
        )
    kept = np.ones(n * width, dtype=bool)
    check.facts["all"] = _judge(features, label, kept, width, findings)
    if repurchase is not None and (~repurchase).any() and repurchase.any():
        check.facts["without_repurchases"] = _judge(features, label, ~repurchase, width, findings)


def _features(table: pa.Table, config: Any) -> dict[str, np.ndarray]:
    """Every feature that is no list, as whole numbers; a text as the number of its value, NULL for null."""
    found = {}
    for column in get_columns(f"{SPLITS[0]}_dataset", config.output.extra_columns):
        if column.role != "feature" or column.type.startswith("list"):
            continue
        values = flat(table[column.name])
        if pa.types.is_dictionary(values.type):
            codes = values.indices.cast(pa.int64()).fill_null(-1).to_numpy()
            found[column.name] = np.where(codes < 0, NULL, codes)
        else:
            found[column.name] = numbers(
                values
            )  # the bits of a float32 that is not negative rise with it
    return found


def _in_history(table: pa.Table, index: np.ndarray) -> np.ndarray:
    history = flat(table["user_interaction_sequence"])
    lengths = history.value_lengths().to_numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    same = history.flatten().to_numpy() == index[row]
    return np.bincount(row[same], minlength=len(lengths)) > 0


def _judge(
    features: dict[str, np.ndarray],
    label: np.ndarray,
    kept: np.ndarray,
    width: int,
    findings: Findings,
) -> dict[str, Any]:
    """AUCs on the second half of the groups of what the first half taught."""
    rows = np.flatnonzero(kept)
    group = rows // width
    learn, ask = rows[group % 2 == 0], rows[group % 2 == 1]
    if min(label[learn].sum(), label[ask].sum()) < LEAST_ROWS:
        return {"positives": int(label[rows].sum()), "note": "too few to learn anything from"}
    base = label[learn].mean()
    aucs, rates = {}, {}
    for name, values in features.items():
        bins = _binned(values, learn)
        rates[name] = _rates(bins, label, learn, base)[bins]
        aucs[name] = _auc(rates[name][ask], label[ask])
        findings.count("label_probe", 1)
        if aucs[name] > MOST_AUC:
            findings.fault(
                "label_probe",
                "train_dataset",
                None,
                f"{name}: AUC {aucs[name]:.4f}",
                f"AUC <= {MOST_AUC}",
            )
        for value, share, rate in _giveaways(bins[ask], label[ask]):
            which = f"{name}: a value (such as {_shown(values[ask][value])})"
            where = f"{which} that {share:.1%} of positives have means label 1 in {rate:.0%} of its rows"
            findings.fault(
                "label_probe",
                "train_dataset",
                None,
                where,
                f"no value means it in {MOST_PURE:.0%} of its rows",
            )
    together = _classifier(rates, label, learn, ask)
    findings.count("label_probe", 1)
    if together > MOST_AUC:
        findings.fault(
            "label_probe",
            "train_dataset",
            None,
            f"classifier: AUC {together:.4f}",
            f"AUC <= {MOST_AUC}",
        )
    first = sorted(aucs, key=lambda name: -aucs[name])
    return {
        "positives": int(label[rows].sum()),
        "classifier_auc": round(together, 4),
        "popularity_auc": round(aucs[BASELINE], 4),
        "feature_auc": {name: round(aucs[name], 4) for name in first},
    }


def _shown(value: int) -> str:
    return "null" if value == NULL else f"code or bits {value}"


def _binned(values: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """Bin of each value: 0 for null, then the values themselves where they are few, else quantiles of those learned from."""
    known = values[learn][values[learn] != NULL]
    edges = np.unique(known)
    if len(edges) > 4 * N_BINS:
        edges = np.unique(np.quantile(known, np.arange(1, N_BINS) / N_BINS, method="lower"))
    return np.where(values == NULL, 0, 1 + np.searchsorted(edges, values, side="right"))


def _rates(bins: np.ndarray, label: np.ndarray, learn: np.ndarray, base: float) -> np.ndarray:
    """Share of label 1 by bin among the rows learned from, drawn to the base rate where they are few."""
    n = np.bincount(bins[learn], minlength=bins.max() + 1)
    return (np.bincount(bins[learn], weights=label[learn], minlength=len(n)) + base) / (n + 1)


def _giveaways(bins: np.ndarray, label: np.ndarray) -> list[tuple[int, float, float]]:
    """Bins that nearly always mean 1: a row of each, its share of positives, its rate of positives."""
    n, positive = np.bincount(bins), np.bincount(bins, weights=label)
    least = max(LEAST_ROWS, LEAST_SHARE * label.sum())
    pure = np.flatnonzero((positive >= least) & (positive >= MOST_PURE * n))
    return [
        (int(np.argmax(bins == b)), float(positive[b] / label.sum()), float(positive[b] / n[b]))
        for b in pure
    ]


def _classifier(
    rates: dict[str, np.ndarray], label: np.ndarray, learn: np.ndarray, ask: np.ndarray
) -> float:
    """AUC of a logistic regression over what each feature alone says: the log odds that its value has label 1."""
    odds = np.stack([np.log(rate / (1 - rate)) for rate in rates.values()], axis=1)
    x = np.column_stack([np.ones(len(odds)), odds - odds[learn].mean(axis=0)])
    seen, y, weights = x[learn], label[learn].astype(float), np.zeros(x.shape[1])
    ridge = np.diag(np.append(0.0, np.full(odds.shape[1], RIDGE)))
    for _ in range(NEWTON_STEPS):
        rate = 1 / (1 + np.exp(-np.clip(seen @ weights, -30, 30)))
        gradient = seen.T @ (y - rate) - ridge @ weights
        curvature = (seen * (rate * (1 - rate))[:, None]).T @ seen + ridge
        weights = weights + np.linalg.solve(curvature + TINY * np.eye(len(weights)), gradient)
    return _auc(x[ask] @ weights, label[ask])


def _auc(score: np.ndarray, label: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half."""
    n_positive = int(label.sum())
    ranks = stats.rankdata(score)[label].sum()
    return float(
        (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (len(label) - n_positive))
    )
