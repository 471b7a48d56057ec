"""Row kernels that draw uniformly from the items on sale: one row is one positive (D12)."""

from __future__ import annotations

import numba

from . import row_kernel
from .rng import below, draw, fold

# uniform tries before a draw counts the allowed items and takes one by rank: exact either way
TRIES = 32


@numba.njit(cache=True)
def owns(user, item, end, owned_offsets, owned_item, owned_since):
    """Whether the user bought the item before `end`. The search has no branch that could be mispredicted."""
    low, stop = owned_offsets[user], owned_offsets[user + 1]
    left = stop - low
    while left > 0:
        half = (left + 1) >> 1
        low += half if owned_item[low + half - 1] < item else 0
        left -= half
    return low < stop and owned_item[low] == item and owned_since[low] < end


@numba.njit(cache=True)
def first_not_before(times, low, high, time):
    """First position in low..high with times[position] >= time; times rise over the range."""
    while low < high:
        middle = (low + high) >> 1
        if times[middle] < time:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True)
def gallop(times, start, stop, time):
    """`first_not_before` over start..stop for an answer expected near `start`: few cache lines are touched."""
    step = 1
    while start + step < stop and times[start + step] < time:
        start += step
        step *= 2
    return first_not_before(times, start, min(stop, start + step), time)


@numba.njit(cache=True)
def siblings(code, i, j):
    """Whether two items are one product (same product code); an item without a code has no siblings."""
    return code[i] >= 0 and code[i] == code[j]


@row_kernel
def count_eligible(
    row,
    user,
    item,
    snapshot,
    end,
    corpus_offsets,
    corpus,
    owned_offsets,
    owned_item,
    owned_since,
    product_code,
    eligible,
):
    """eligible[row] (n, 2) int32: items on sale that the user does not own, and those of them that are no sibling."""
    k, i = snapshot[row], item[row]
    n_free, n_strangers = 0, 0
    for position in range(corpus_offsets[k], corpus_offsets[k + 1]):
        j = corpus[position]
        if not owns(user[row], j, end[row], owned_offsets, owned_item, owned_since):
            n_free += 1
            if not siblings(product_code, i, j):
                n_strangers += 1
    eligible[row, 0] = n_free
    eligible[row, 1] = n_strangers


@numba.njit(cache=True)
def _allowed(
    j, i, u, end, taken, n_taken, no_siblings, owned_offsets, owned_item, owned_since, product_code
):
    if j == i or (no_siblings and siblings(product_code, i, j)):
        return False
    for slot in range(n_taken):
        if taken[slot] == j:
            return False
    return not owns(u, j, end, owned_offsets, owned_item, owned_since)


@numba.njit(cache=True)
def draw_from_corpus(
    n_taken,
    n_wanted,
    key,
    i,
    u,
    end,
    first,
    size,
    corpus,
    taken,
    no_siblings,
    owned_offsets,
    owned_item,
    owned_since,
    product_code,
):
    """Fill taken[n_taken:n_wanted] with distinct allowed items, uniform over those left each time.

    The caller has made sure that enough are left (splits: corpus_too_small).
    """
    counter = 0
    while n_taken < n_wanted:
        chosen = -1
        for _ in range(TRIES):
            j = corpus[first + below(draw(key, counter), size)]
            counter += 1
            if _allowed(
                j,
                i,
                u,
                end,
                taken,
                n_taken,
                no_siblings,
                owned_offsets,
                owned_item,
                owned_since,
                product_code,
            ):
                chosen = j
                break
        if chosen < 0:
            n_left = 0
            for position in range(first, first + size):
                if _allowed(
                    corpus[position],
                    i,
                    u,
                    end,
                    taken,
                    n_taken,
                    no_siblings,
                    owned_offsets,
                    owned_item,
                    owned_since,
                    product_code,
                ):
                    n_left += 1
            rank = below(draw(key, counter), n_left)
            counter += 1
            for position in range(first, first + size):
                j = corpus[position]
                if _allowed(
                    j,
                    i,
                    u,
                    end,
                    taken,
                    n_taken,
                    no_siblings,
                    owned_offsets,
                    owned_item,
                    owned_since,
                    product_code,
                ):
                    if rank == 0:
                        chosen = j
                        break
                    rank -= 1
        taken[n_taken] = chosen
        n_taken += 1


@row_kernel
def draw_random(
    row,
    purpose_key,
    n_hard,
    user_key,
    item_key,
    user,
    item,
    time,
    copy,
    snapshot,
    end,
    corpus_offsets,
    corpus,
    owned_offsets,
    owned_item,
    owned_since,
    product_code,
    negatives,
):
    """Complete negatives[row] (n, hard + random) int32 after its hard ones with uniform draws from the corpus (D12)."""
    u, i, k = user[row], item[row], snapshot[row]
    key = fold(fold(fold(fold(purpose_key, user_key[row]), item_key[row]), time[row]), copy[row])
    first = corpus_offsets[k]
    draw_from_corpus(
        n_hard,
        negatives.shape[1],
        key,
        i,
        u,
        end,
        first,
        corpus_offsets[k + 1] - first,
        corpus,
        negatives[row],
        False,
        owned_offsets,
        owned_item,
        owned_since,
        product_code,
    )
