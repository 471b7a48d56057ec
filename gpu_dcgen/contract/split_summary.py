"""The manifest's section on the splits (D7)."""

from __future__ import annotations

from .documents import Section


class WindowEdges(Section):
    """Train is [first, cut1), val [cut1, cut2), test [cut2, last]; ISO 8601 in UTC.

    Cuts after `last`: the splits do not divide time, and each has the whole log.
    """

    first: str
    """The first transaction."""
    cut1: str
    """The start of val."""
    cut2: str
    """The start of test."""
    last: str
    """The last transaction."""

    @property
    def spans(self) -> list[tuple[str, str]]:
        """Start and end of each split's window."""
        if self.cut1 > self.last:
            return [(self.first, self.last)] * 3
        return [(self.first, self.cut1), (self.cut1, self.cut2), (self.cut2, self.last)]


class WindowEdgesNs(Section):
    """The same edges in nanoseconds since 1970."""

    first: int
    """The first transaction."""
    cut1: int
    """The start of val."""
    cut2: int
    """The start of test."""
    last: int
    """The last transaction."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each split's window; a time in it is before the end."""
        if self.cut1 > self.last:
            return [(self.first, self.last + 1)] * 3
        return [(self.first, self.cut1), (self.cut1, self.cut2), (self.cut2, self.last + 1)]


class SplitShare(Section):
    """The size of a split against the size that was asked for."""

    positives: int
    """Positives of the split."""
    share: float
    """Of all positives, 0..1."""
    wanted: float
    """The share that the settings ask for."""
    users: int
    """Users with a positive in it."""


class SplitSummary(Section):
    """How the log was divided into train, val and test (D7)."""

    strategy: str
    """`split.strategy` of the settings."""
    windows: WindowEdges
    """The edges of the time windows as text."""
    windows_ns: WindowEdgesNs
    """The edges of the time windows in nanoseconds."""
    shares: dict[str, SplitShare]
    """By split, its size."""
    positives_by_strategy: dict[str, dict[str, int]]
    """By strategy and split, the positives before resampling that this strategy and the others
    have; `leave_last` is there only where it is this one."""
