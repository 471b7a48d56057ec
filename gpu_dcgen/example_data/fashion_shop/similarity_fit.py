"""What customers in common make of article pairs: the cosine of a sample of articles against all others."""

from __future__ import annotations

import numba
import numpy as np

SAMPLE = 1_000  # articles
MIN_COMMON, LOW, HIGH = 5, 0.3, 0.8  # the contract's similarity settings
MIN_BUYERS = 10


def neighbor_shares(
    customer: np.ndarray, article: np.ndarray, n_customers: int, n_articles: int
) -> tuple[float, float, float, float]:
    """Of evenly sampled articles with 10 customers or more, the shares with a neighbor, with one and with five of cosine in
    (0.3, 0.8]; and of their neighbors the share below. Pairs (customer, article) are distinct and sorted.
    """
    by_customer = np.searchsorted(customer, np.arange(n_customers + 1)).astype(np.int64)
    order = np.argsort(article, kind="stable")
    by_article = np.searchsorted(article[order], np.arange(n_articles + 1)).astype(np.int64)
    buyers = np.diff(by_article)
    eligible = np.flatnonzero(buyers >= MIN_BUYERS)
    if eligible.shape[0] == 0:
        return 0.0, 0.0, 0.0, 0.0
    sample = eligible[
        np.linspace(0, eligible.shape[0] - 1, min(SAMPLE, eligible.shape[0])).astype(np.int64)
    ]
    found = np.zeros((sample.shape[0], 2), dtype=np.int64)
    count_neighbours(
        sample,
        by_article,
        customer[order],
        by_customer,
        article,
        buyers,
        np.zeros(n_articles, dtype=np.int32),
        found,
    )
    n_all, n_band = found[:, 0], found[:, 1]
    return (
        float(np.mean(n_all > 0)),
        float(np.mean(n_band > 0)),
        float(np.mean(n_band >= 5)),
        float(1 - n_band.sum() / max(1, n_all.sum())),
    )


@numba.njit(cache=True)
def count_neighbours(
    sample, by_article, customer_of, by_customer, article_of, buyers, common, found
):
    """Neighbors of each sampled article with cosine up to HIGH: all of them, and those above LOW."""
    for s in range(sample.shape[0]):
        item = sample[s]
        for p in range(by_article[item], by_article[item + 1]):
            user = customer_of[p]
            for q in range(by_customer[user], by_customer[user + 1]):
                common[article_of[q]] += 1
        for other in range(common.shape[0]):
            if other != item and common[other] >= MIN_COMMON:
                cosine = common[other] / np.sqrt(float(buyers[item]) * float(buyers[other]))
                if cosine <= HIGH:
                    found[s, 0] += 1
                    found[s, 1] += cosine > LOW
            common[other] = 0
