"""Count the outcomes of a positive's candidates: a row kernel outside the hot path (D13)."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import kernel_helper, row_kernel
from .draws import is_owned
from .sources import FALLBACK

OUTCOMES = ("owned", "not_drawn", "chosen")
_OWNED, _NOT_DRAWN, _CHOSEN = range(len(OUTCOMES))


class CandidateTrace(NamedTuple):
    """What `trace_candidates` reads of the negatives of n positives, and what it writes."""

    item: Any  # (n, hard + random) int32  `HardNegatives.item`
    n_hard: int
    # (n, sources, OUTCOMES) int32  candidates by the first source that offered them
    n_candidates: Any


@kernel_helper
def _is_among(item, chosen, n_chosen):
    is_found = False
    for slot in range(n_chosen):
        is_found |= chosen[slot] == item
    return is_found


@row_kernel
def trace_candidates(row, rows, tables, trace):
    """Count the candidates in a positive's list by source and outcome."""
    user, end = rows.positives.user[row], rows.positives.window_end
    for source in range(FALLBACK):
        for outcome in range(len(OUTCOMES)):
            trace.n_candidates[row, source, outcome] = 0
    for at in range(rows.first[row], rows.stop[row]):
        j, outcome = tables.item[at], _NOT_DRAWN
        if is_owned(user, j, end, tables.draws.ownership):
            outcome = _OWNED
        elif _is_among(j, trace.item[row], trace.n_hard):
            outcome = _CHOSEN
        trace.n_candidates[row, tables.source[at], outcome] += 1
