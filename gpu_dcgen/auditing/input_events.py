"""Tell what the rows of a log of events are: purchases, views, rows that are left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import InputsConfig
from .input_columns import InputTable, read_numbers, read_texts


class EventRows(NamedTuple):
    """What each row of a log is, (n,) bool."""

    is_another: np.ndarray  # belongs to the other table of the same file
    left_out: dict[str, np.ndarray]  # by reason; no row has two
    checks: list[tuple[str, np.ndarray]]  # reasons of bad rows


def sort_events(table: InputTable, name: str, n_rows: int, inputs: InputsConfig) -> EventRows:
    """Sort the rows of transactions, or of the views among them, by event and rating."""
    nothing = np.zeros(n_rows, dtype=bool)
    is_another, ignored, low, checks = nothing, nothing, nothing, []
    if inputs.events:
        events = read_texts(table, "event")
        meanings = [inputs.events.get(text, "unknown") for text in events.values.to_pylist()]
        meaning = np.array([*meanings, "unknown"])[events.codes]
        uses_views = inputs.views and "view" in inputs.events.values()
        wanted = "view" if name == "views" else "purchase"
        is_unknown = meaning == "unknown"
        ignored = meaning == "ignore"
        if name == "views":
            is_another = meaning != wanted
            ignored = nothing
        elif uses_views:
            is_another = meaning == "view"
        else:
            ignored = ignored | (meaning == "view")
        checks.append(("unknown_event", is_unknown))
    if inputs.min_rating is not None and name == "transactions":
        rating = read_numbers(table, "rating")
        low = (rating < inputs.min_rating) & ~ignored & ~is_another
        checks.append(("missing_rating", np.isnan(rating)))
    return EventRows(is_another, {"ignored": ignored, "low_rating": low}, checks)
