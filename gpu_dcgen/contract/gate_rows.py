"""The form of a quality gate's row, and rows of gates that only a defect can fail."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["critical", "warning", "info"]
Relation = Literal[">=", ">", "<=", "<"]

OURS = "This is a defect of gpu-dcgen, not of your data: please report it."


class GateRow(NamedTuple):
    """A gate without its section."""

    name: str
    line: str
    metric: str
    relation: Relation
    threshold: float | None
    severity: Severity
    remedy: str


def require_none(name: str, line: str, metric: str) -> GateRow:
    """Return a gate that counts defects of the build: there must be none."""
    return GateRow(name, line, metric, "<=", 0, "critical", OURS)


def require_all(name: str, line: str, metric: str) -> GateRow:
    """Return a gate on a share that only a defect of the build can lower."""
    return GateRow(name, line, metric, ">=", 1.0, "critical", OURS)
