"""Row kernels that draw uniformly from the items on sale; a row is a positive (D12)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import kernel_helper, row_kernel
from .rng import below, draw, fold

# Uniform tries before a draw counts the allowed items and takes one by rank: exact either way.
MAX_TRIES = 32


N_PLACES = 4096  # of a filter; a power of two
_PLACE_MASK = np.uint64(N_PLACES - 1)
_MAX_STAMP = 255
N_STATES = 3  # of a filter
_USER, _USER_STAMP, ROW_STAMP = range(N_STATES)


class ItemFilter(NamedTuple):
    """Scratch space, a lane each: which items may be owned or drawn already.

    An item has one place, which others share. If its place has neither stamp, it is certainly
    neither. Stamps change with the user and with the row, so that nothing needs to be cleared.
    """

    stamps: Any  # (lanes, N_PLACES) uint8
    # (lanes, N_STATES) int32  the user of the marked items, + 1; stamps of user and row
    state: Any


class PurchaseRows(NamedTuple):
    """Purchases that may become positives."""

    user: Any  # (n,) int32
    item: Any  # (n,) int32
    snapshot: Any  # (n,) int64  number of the item snapshot
    window_end: Any  # (n,) int64  nanoseconds


@kernel_helper
def is_owned(user, item, end, ownership):
    """Return whether the user bought the item before `end`.

    The binary search has no branch that could be mispredicted.
    """
    low, stop = ownership.offsets[user], ownership.offsets[user + 1]
    owned_item = ownership.item
    left = stop - low
    while left > 0:
        half = (left + 1) >> 1
        low += half if owned_item[low + half - 1] < item else 0
        left -= half
    return low < stop and owned_item[low] == item and ownership.since[low] < end


@kernel_helper
def first_not_before(times, low, high, time):
    """Return the first position in low..high with times[position] >= time; times rise there."""
    while low < high:
        middle = (low + high) >> 1
        if times[middle] < time:
            low = middle + 1
        else:
            high = middle
    return low


@kernel_helper
def gallop(times, start, stop, time):
    """Search like `first_not_before`, for a position expected near `start`.

    Steps double, so that few cache lines are read.
    """
    step = 1
    while start + step < stop and times[start + step] < time:
        start += step
        step *= 2
    return first_not_before(times, start, min(stop, start + step), time)


@kernel_helper
def are_siblings(product_code, i, j):
    """Return whether two items have one product code; an item without a code has no siblings."""
    return product_code[i] >= 0 and product_code[i] == product_code[j]


@kernel_helper
def fold_positive(purpose_key, row, positives):
    """Return the key of the draws for a purpose and a positive (D22)."""
    key = fold(fold(purpose_key, positives.user_key[row]), positives.item_key[row])
    return fold(fold(key, positives.time[row]), positives.copy[row])


@row_kernel
def hash_positives(number, purpose_key, row, copy, log, user_key, item_key, hashed):
    """Write the key of a positive for a purpose, as `fold_positive`: hashed (n,) uint64.

    row (n,) int64 of `log`; copy (n,) int32; user_key (U,) and item_key (I,) uint64.
    """
    at = row[number]
    key = fold(fold(purpose_key, user_key[log.user[at]]), item_key[log.item[at]])
    hashed[number] = fold(fold(key, log.time[at]), copy[number])


@row_kernel
def count_eligible(row, purchases, tables, n_eligible):
    """Count the items that may become negatives of a purchase.

    n_eligible[row] (n, 2) int32: items on sale that the user does not own, and how many of them
    are not siblings of the purchased item.
    """
    corpus, ownership, product_code = tables.corpus, tables.ownership, tables.product_code
    user, item, end = purchases.user[row], purchases.item[row], purchases.window_end[row]
    k = purchases.snapshot[row]
    n_free, n_strangers = 0, 0
    for position in range(corpus.offsets[k], corpus.offsets[k + 1]):
        j = corpus.item[position]
        if not is_owned(user, j, end, ownership):
            n_free += 1
            if not are_siblings(product_code, item, j):
                n_strangers += 1
    n_eligible[row, 0] = n_free
    n_eligible[row, 1] = n_strangers


@kernel_helper
def select_filter(items, lane):
    """Return a lane's part of the filter, every field with one dimension less."""
    return ItemFilter(items.stamps[lane], items.state[lane])


@kernel_helper
def mark_owned(user, ownership, items):
    """Begin a row of the user: afterwards the user's items have its stamp, and none the row's.

    They are marked again only for another user, or when the stamps are used up.
    """
    stamp = items.state[ROW_STAMP] + 1
    if items.state[_USER] != user + 1 or stamp > _MAX_STAMP:
        if stamp >= _MAX_STAMP:
            for place in range(N_PLACES):
                items.stamps[place] = 0
            stamp = 1
        first, stop = ownership.offsets[user], ownership.offsets[user + 1]
        for position in range(np.uint64(first), np.uint64(stop)):
            items.stamps[_place(ownership.item[position])] = stamp
        items.state[_USER] = user + 1
        items.state[_USER_STAMP] = stamp
        stamp += 1
    items.state[ROW_STAMP] = stamp


@kernel_helper
def may_be_owned(item, items):
    """Return whether the user of the row may own the item: False is certain."""
    return items.stamps[_place(item)] == items.state[_USER_STAMP]


@kernel_helper
def _mark_drawn(item, items):
    """Mark an item that may not be drawn for the row any more."""
    place = _place(item)
    if items.stamps[place] != items.state[_USER_STAMP]:
        items.stamps[place] = items.state[ROW_STAMP]


@kernel_helper
def _place(item):
    return np.uint64(item) & _PLACE_MASK


@kernel_helper
def _is_allowed(j, row, positives, chosen, n_chosen, tables, no_siblings):
    item = positives.item[row]
    if j == item or (no_siblings and are_siblings(tables.product_code, item, j)):
        return False
    for slot in range(n_chosen):
        if chosen[slot] == j:
            return False
    return not is_owned(positives.user[row], j, positives.window_end, tables.ownership)


@kernel_helper
def _draw_by_rank(x, row, positives, chosen, n_chosen, tables, no_siblings):
    """Return the allowed item of the rank that the random number `x` gives."""
    k, corpus = positives.snapshot[row], tables.corpus
    first, stop = corpus.offsets[k], corpus.offsets[k + 1]
    n_left = 0
    for position in range(first, stop):
        j = corpus.item[position]
        if _is_allowed(j, row, positives, chosen, n_chosen, tables, no_siblings):
            n_left += 1
    rank, item = below(x, n_left), np.int32(-1)
    for position in range(first, stop):
        j = corpus.item[position]
        if _is_allowed(j, row, positives, chosen, n_chosen, tables, no_siblings):
            if rank == 0:
                item = j
                break
            rank -= 1
    return item


@kernel_helper
def draw_from_corpus(chosen, n_chosen, key, row, positives, tables, no_siblings, items):
    """Fill chosen[n_chosen:] with distinct allowed items, uniform over those left each time.

    The splits have made sure that enough are left (`corpus_too_small`). `items` is the filter, in
    which `mark_owned` has marked the user's items; chosen ones are marked too, so that most draws
    need no search.
    """
    k, corpus_item = positives.snapshot[row], tables.corpus.item
    first, stop = np.uint64(tables.corpus.offsets[k]), np.uint64(tables.corpus.offsets[k + 1])
    stamps, user_stamp, row_stamp = items.stamps, items.state[_USER_STAMP], items.state[ROW_STAMP]
    _mark_drawn(positives.item[row], items)
    for slot in range(n_chosen):
        _mark_drawn(chosen[slot], items)
    counter = np.uint64(0)
    for slot in range(n_chosen, len(chosen)):
        item = np.int32(-1)
        for _ in range(MAX_TRIES):
            j = corpus_item[first + np.uint64(below(draw(key, counter), stop - first))]
            counter += np.uint64(1)
            place = _place(j)
            stamp = stamps[place]
            if not no_siblings and stamp != user_stamp and stamp != row_stamp:
                stamps[place] = row_stamp
                item = j
                break
            if _is_allowed(j, row, positives, chosen, slot, tables, no_siblings):
                item = j
                break
        if item < 0:
            x = draw(key, counter)
            counter += np.uint64(1)
            item = _draw_by_rank(x, row, positives, chosen, slot, tables, no_siblings)
            _mark_drawn(item, items)
        chosen[slot] = item


@row_kernel(scratch=True)
def draw_random(row, lane, purpose_key, n_hard, positives, tables, items, negatives):
    """Draw the random negatives of a positive behind its hard ones (D12).

    Written: negatives[row, n_hard:] of (n, hard + random) int32.
    """
    own, key = select_filter(items, lane), fold_positive(purpose_key, row, positives)
    mark_owned(positives.user[row], tables.ownership, own)
    draw_from_corpus(negatives[row], n_hard, key, row, positives, tables, False, own)
