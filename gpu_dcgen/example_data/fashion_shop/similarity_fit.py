"""Measure the cosines of a sample of articles with all others, by customers in common."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

N_SAMPLED = 1_000  # articles
MIN_COMMON, LOW, HIGH = 5, 0.3, 0.8  # the contract's similarity settings
MIN_BUYERS = 10


class Pairs(NamedTuple):
    """Distinct (customer, article) pairs, grouped by customer and by article."""

    customer_offsets: np.ndarray  # (customers + 1,) int64  each customer's run of `article`
    article: np.ndarray  # (n,) int32
    article_offsets: np.ndarray  # (articles + 1,) int64  each article's run of `customer`
    customer: np.ndarray  # (n,) int32


def measure_neighbors(
    customer: np.ndarray, article: np.ndarray, n_customers: int, n_articles: int
) -> tuple[float, float, float, float]:
    """Return the shares of articles with a neighbor, and with one and five in the band.

    Of a sample spread evenly over the articles with 10 customers or more. The band is the cosines
    in (0.3, 0.8]. The fourth value is the share of neighbors below the band. Pairs (customer,
    article) are distinct and sorted.
    """
    order = np.argsort(article, kind="stable")
    pairs = Pairs(
        np.searchsorted(customer, np.arange(n_customers + 1)).astype(np.int64),
        article,
        np.searchsorted(article[order], np.arange(n_articles + 1)).astype(np.int64),
        customer[order],
    )
    eligible = np.flatnonzero(np.diff(pairs.article_offsets) >= MIN_BUYERS)
    if eligible.shape[0] == 0:
        return 0.0, 0.0, 0.0, 0.0
    n_sampled = min(N_SAMPLED, eligible.shape[0])
    sample = eligible[np.linspace(0, eligible.shape[0] - 1, n_sampled).astype(np.int64)]
    counts = np.zeros((n_sampled, 2), dtype=np.int64)
    count_neighbors(sample, pairs, np.zeros(n_articles, dtype=np.int32), counts)
    n_all, n_band = counts[:, 0], counts[:, 1]
    return (
        float(np.mean(n_all > 0)),
        float(np.mean(n_band > 0)),
        float(np.mean(n_band >= 5)),
        float(1 - n_band.sum() / max(1, n_all.sum())),
    )


@numba.njit(cache=True)
def count_neighbors(sample, pairs, common, counts):
    """Count the neighbors of each sampled article with cosine up to HIGH, all and above LOW.

    sample (s,) int64; common (articles,) int32 zeros, scratch; counts (s, 2) int64 is written.
    """
    offsets = pairs.article_offsets
    for s in range(sample.shape[0]):
        item = sample[s]
        n_buyers = offsets[item + 1] - offsets[item]
        for p in range(offsets[item], offsets[item + 1]):
            user = pairs.customer[p]
            for q in range(pairs.customer_offsets[user], pairs.customer_offsets[user + 1]):
                common[pairs.article[q]] += 1
        for other in range(common.shape[0]):
            if other != item and common[other] >= MIN_COMMON:
                n_other_buyers = offsets[other + 1] - offsets[other]
                cosine = common[other] / np.sqrt(float(n_buyers) * float(n_other_buyers))
                if cosine <= HIGH:
                    counts[s, 0] += 1
                    counts[s, 1] += cosine > LOW
            common[other] = 0
