"""Stage 9: blocks -> QualityMetrics: what every build proves of every group before it publishes (D20)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .backend import Backend
from .errors import GateError
from .kernels.checks import VIOLATIONS, check_group
from .kernels.pool import SOURCES
from .samples import Group, Ingredients
from .segments import counts


@dataclass
class QualityMetrics:
    """Counts over blocks; adding blocks or merging metrics in any order gives the same numbers."""

    groups: int = 0
    negatives_verified: int = 0
    violations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VIOLATIONS, 0))
    hard_by_source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    relaxed: int = 0

    def add(self, group: Group, have: Ingredients, backend: Backend) -> None:
        """Check a block of groups: references, duplicates, ownership, corpus, window, history (critical gates of D20)."""
        xp, log, features = backend.xp, have.interactions, have.features
        n, width = group.item.shape
        found = xp.empty(n, dtype=xp.int32)
        backend.for_each(
            check_group,
            n,
            group.item,
            group.row,
            group.negatives.snapshot,
            group.history_start,
            group.history_length,
            group.positives.window_start,
            group.positives.window_end,
            int(group.negatives.source.shape[1]),
            log.user,
            log.item,
            log.time,
            features.snapshots.on_sale,
            log.item_columns["product_code"].codes,
            features.owned_offsets,
            features.owned_item,
            features.owned_since,
            found,
        )
        if int(found.max()):
            for bit, name in enumerate(VIOLATIONS):
                self.violations[name] += int(((found >> bit) & 1).sum())
        by_source = counts(xp, group.negatives.source.reshape(-1), len(SOURCES))
        for name, count in zip(SOURCES, backend.to_host(by_source).tolist(), strict=True):
            self.hard_by_source[name] += count
        self.relaxed += int(group.negatives.relaxed.sum())
        self.groups += n
        self.negatives_verified += n * (width - 1)

    def merge(self, other: "QualityMetrics") -> None:
        self.groups += other.groups
        self.negatives_verified += other.negatives_verified
        self.relaxed += other.relaxed
        for mine, theirs in ((self.violations, other.violations), (self.hard_by_source, other.hard_by_source)):
            for name, count in theirs.items():
                mine[name] += count

    def require(self, expected_groups: int, staging: Any) -> None:
        """GateError unless every expected group was written and none breaks a rule; the staging folder is named."""
        broken = {name: count for name, count in self.violations.items() if count}
        if self.groups != expected_groups:
            broken["groups missing or too many"] = abs(expected_groups - self.groups)
        if broken:
            found = "; ".join(f"{count} x {name}" for name, count in broken.items())
            raise GateError(
                f"critical gate failed, nothing was published: {found} (of {self.groups} groups).\n"
                f"This is a defect of gpu-dcgen, not of your data: please report it. What was written is kept in {staging}."
            )
