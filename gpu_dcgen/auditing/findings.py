"""Collect what an audit finds: one `RuleCheck` a rule, with the first faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .output_columns import ExpectedColumn
from .rules import RULES

MAX_OFFENDERS = 5  # reported a rule
MAX_SHOWN_ELEMENTS, MAX_SHOWN_CHARACTERS = 8, 200

Show = Callable[[int], tuple[Any, Any]]  # row -> what the file has there, what it must have


@dataclass
class RuleCheck:
    """One rule: how much of the dataset was checked, and what breaks the rule."""

    name: str
    rule: str
    claim: str
    scope: str = "all"  # or what the sample is
    # values, rows, groups or files; 0: the dataset has nothing that the rule applies to
    n_checked: int = 0
    n_bad: int = 0
    # the first MAX_OFFENDERS: file, row, found, expected
    offenders: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`holds`, `fails`, or `skipped` if nothing was checked."""
        return "fails" if self.n_bad else "holds" if self.n_checked else "skipped"

    def as_dict(self) -> dict[str, Any]:
        """Return the check as certificate.json has it."""
        return {"verdict": self.verdict, **asdict(self)}


class Findings:
    """The checks of all rules; the first faults that are added to a rule are reported."""

    def __init__(self) -> None:
        self.checks = {
            name: RuleCheck(name, rule.source, rule.claim) for name, rule in RULES.items()
        }

    @property
    def holds(self) -> bool:
        """Whether no rule is broken."""
        return not any(check.n_bad for check in self.checks.values())

    def count(self, rule: str, n: int) -> None:
        """Add `n` checked values."""
        self.checks[rule].n_checked += n

    def add_fault(
        self, rule: str, file: str, row: int | None, actual: Any, expected: Any, n: int = 1
    ) -> None:
        """Add `n` wrong values, of which this is the first; rows count from 0 in the file."""
        check = self.checks[rule]
        check.n_bad += n
        if len(check.offenders) < MAX_OFFENDERS:
            check.offenders.append(
                {"file": file, "row": row, "found": shorten(actual), "expected": shorten(expected)}
            )

    def add_bad_rows(
        self, rule: str, file: str, first_row: int, is_bad: np.ndarray, show: Show, stride: int = 1
    ) -> None:
        """Add the marked rows, or groups of `stride` rows, of (n,) from `first_row` on."""
        bad = np.flatnonzero(is_bad)
        for row in bad[:MAX_OFFENDERS].tolist():
            self.add_fault(rule, file, first_row + row * stride, *show(row))
        self.checks[rule].n_bad += max(0, len(bad) - MAX_OFFENDERS)

    def check_rows(
        self, rule: str, file: str, first_row: int, is_bad: np.ndarray, show: Show, stride: int = 1
    ) -> None:
        """Count all rows as checked, and add the marked ones as `add_bad_rows` does."""
        self.count(rule, len(is_bad))
        self.add_bad_rows(rule, file, first_row, is_bad, show, stride)

    def check_column(
        self,
        rule: str,
        file: str,
        name: str,
        values: np.ndarray,
        expected: ExpectedColumn,
        first_row: int = 0,
    ) -> None:
        """Add the rows of a column that differ, without counting them as checked."""
        self.add_bad_rows(
            rule,
            file,
            first_row,
            values != expected.values,
            lambda row: (
                f"{name}: {expected.show(values[row])}",
                f"{name}: {expected.show(expected.values[row])}",
            ),
        )

    def check_equal(self, rule: str, file: str, name: str, actual: Any, expected: Any) -> bool:
        """Check one value against what it must be."""
        self.count(rule, 1)
        if actual != expected:
            self.add_fault(
                rule, file, None, f"{name}: {shorten(actual)}", f"{name}: {shorten(expected)}"
            )
        return bool(actual == expected)


def shorten(value: Any) -> Any:
    """Return a value as JSON has it; long texts and lists are cut."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        last = [shorten(element) for element in value[-MAX_SHOWN_ELEMENTS:]]
        return last if len(value) <= MAX_SHOWN_ELEMENTS else ["...", *last]
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, str):
        limit = MAX_SHOWN_CHARACTERS
        return value if len(value) <= limit else value[:limit] + "..."
    return value if isinstance(value, int | float | bool | None | dict) else str(value)
