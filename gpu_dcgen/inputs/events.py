"""Tell purchases from views and from rows that are left out, by events and ratings."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..backend.protocol import Array
from ..config import InputsConfig
from ..contract.schema import InputTable
from .columns import ColumnReader, map_codes
from .rejects import IGNORED, LOW_RATING, OF_ANOTHER_TABLE

_PURCHASE, _VIEW, _IGNORE = 0, 1, 2
_KINDS = {"purchase": _PURCHASE, "view": _VIEW, "ignore": _IGNORE}


class RowKinds(NamedTuple):
    """What the rows of a log are; None where the settings do not ask."""

    kind: Array | None = None  # (n,) int32  _PURCHASE, _VIEW, _IGNORE, -1 for no known event
    is_low: Array | None = None  # (n,) bool  whether the rating is below the least that counts
    faults: tuple[Array, ...] = ()  # unknown events, missing ratings: (n,) bool each
    has_views: bool = False  # whether views are used

    def mark(self, reason: Array, table: InputTable) -> None:
        """Mark the rows that are left out of a table, in `reason` (n,) uint8."""
        if self.is_low is not None and table == "transactions":
            reason[self.is_low] = LOW_RATING
        if self.kind is None:
            return
        reason[self.kind == _IGNORE] = IGNORED
        is_another = self.kind != _VIEW if table == "views" else self.kind == _VIEW
        reason[is_another] = OF_ANOTHER_TABLE if self.has_views else IGNORED


def find_kinds(reader: ColumnReader, inputs: InputsConfig) -> RowKinds:
    """Read what the rows of a log are; a table of views has views alone."""
    if reader.source.table != "transactions" or not (
        inputs.events or inputs.min_rating is not None
    ):
        return RowKinds()
    xp, n_rows = reader.backend.xp, reader.source.n_rows
    is_unknown = has_no_rating = xp.zeros(n_rows, dtype=bool)
    kind = is_low = None
    if inputs.events:
        codes, texts = reader.read_texts("event")
        names = pa.array([*inputs.events], pa.string())
        kinds = pa.array([_KINDS[meaning] for meaning in inputs.events.values()], pa.int32())
        by_text = kinds.take(pc.index_in(texts, value_set=names)).fill_null(-1)
        kind = map_codes(reader.backend, by_text, codes)
        is_unknown = kind < 0
    if inputs.min_rating is not None:
        ratings = reader.read_numbers("rating")
        has_no_rating = ~ratings.valid
        is_low = ratings.valid & (ratings.values < inputs.min_rating)
    return RowKinds(kind, is_low, (is_unknown, has_no_rating), inputs.has_event_views)
