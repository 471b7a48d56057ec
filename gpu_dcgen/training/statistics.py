"""Paired differences of rankings, with intervals that resample users and seeds."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np

_N_RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)


class Difference(TypedDict):
    """A difference of two means, and its interval."""

    difference: float
    low: float
    """2.5th percentile of the resampled differences."""
    high: float
    """97.5th percentile."""


class Resamples(NamedTuple):
    """How often each user and each seed is drawn in each resample."""

    users: np.ndarray  # (n_resamples, n_users) float32 counts
    seeds: np.ndarray  # (n_resamples, n_seeds) float64 weights that add up to 1
    user: np.ndarray  # (n,) int64: of each positive, in 0..n_users - 1

    def compare(self, values: np.ndarray, reference: np.ndarray, chosen: np.ndarray) -> Difference:
        """Compare the means of two rankings over the chosen positives.

        Args:
            values: (n_seeds, n) of the ranking, or (1, n) of one that has no seed.
            reference: The same of the other ranking; equal seeds are compared.
            chosen: (n,) bool. Without any, all numbers are 0.
        """
        paired = np.broadcast_to(values - reference, (self.seeds.shape[1], len(chosen)))
        if not chosen.any():
            return {"difference": 0.0, "low": 0.0, "high": 0.0}
        n_users = self.users.shape[1]
        user = self.user[chosen]
        sums = np.stack([np.bincount(user, row[chosen], n_users) for row in paired])
        counts = np.bincount(user, minlength=n_users)
        totals = np.einsum("rs,rs->r", self.users @ sums.T, self.seeds)
        means = totals / np.maximum(self.users @ counts, 1)
        low, high = np.percentile(means, _PERCENTILES)
        mean = float(paired[:, chosen].mean())
        return {"difference": mean, "low": float(low), "high": float(high)}


def resample(user: np.ndarray, n_seeds: int, seed: int) -> Resamples:
    """Draw users and seeds with replacement (Efron 1979): a user comes with all positives.

    Args:
        user: (n,) user of each positive.
        n_seeds: Models of each recipe.
        seed: Seed of the draws.
    """
    random = np.random.default_rng(seed)
    users, place = np.unique(user, return_inverse=True)
    n_users = len(users)
    shares = np.full(n_users, 1 / n_users)
    counts = random.multinomial(n_users, shares, _N_RESAMPLES).astype(np.float32)
    weights = random.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), _N_RESAMPLES) / n_seeds
    return Resamples(counts, weights, place)


def judge(differences: list[Difference]) -> str:
    """Say whether a ranking helps: only if every interval lies on one side of 0."""
    if all(each["low"] > 0 for each in differences):
        return "helps"
    if all(each["high"] < 0 for each in differences):
        return "hurts"
    return "no clear effect"
