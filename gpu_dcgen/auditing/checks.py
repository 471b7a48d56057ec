"""What is checked, by which rule, and what was found: one `Check` a rule, with its first offenders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

SHOWN = 5  # offenders kept of each check

Show = Callable[[int], tuple[Any, Any]]  # row -> what was found there, what was expected

# name -> (rule: decision and section of the contract, what it says of the dataset)
RULES: dict[str, tuple[str, str]] = {
    "inputs": (
        "D1, D2; Input Specifications",
        "the input files are those of the build, byte by byte; their rows count alike",
    ),
    "files": (
        "D16, D23; Training Files",
        "the files are those of the manifest, none missing and none added",
    ),
    "schema": (
        "D17; Training Sample Schema",
        "columns, order, types, roles and nullability are the contract's",
    ),
    "digests": ("D22", "every column's content digest is the manifest's"),
    "counts": (
        "D7, D20",
        "the manifest's windows, ledger and counts are what files and inputs come to",
    ),
    "vocabularies": (
        "D17; Vocabulary Mappings",
        "vocabularies, codes, item index and balancing weights are those of the inputs",
    ),
    "groups": (
        "D16; Contrastive Learning Pairs",
        "each group is a positive, then its hard, then its random negatives, numbered",
    ),
    "references": (
        "D2; structural_integrity",
        "every user and item is one of the inputs, and kept by the filters",
    ),
    "positives": (
        "D4, D5, D7, D11; positive_pairs",
        "the positives are exactly the purchases that the rules select, in order",
    ),
    "window": ("D7, D8; temporal_splitting", "every positive was bought inside its split's window"),
    "disjoint_users": ("D7; user_leakage_prevention", "no user is in two splits"),
    "sequences": (
        "D6, D15; user_sequences",
        "a history holds the latest purchases strictly before the sample, oldest first",
    ),
    "user_features": (
        "D6; User Features",
        "user features are those of the purchases strictly before the sample",
    ),
    "item_features": (
        "D6; Item Features",
        "item features are those of the snapshot before the sample, whatever the label",
    ),
    "calendar": (
        "D6; Interaction Features",
        "channel, weekday, month and season are those of the purchase",
    ),
    "false_negatives": (
        "D8, D12",
        "no negative was bought by its user before the end of the split's window",
    ),
    "duplicates": ("D12", "no item is twice in a group"),
    "on_sale": ("D11", "every item was on sale at the sample's snapshot"),
    "siblings": ("D13", "no hard negative is the positive's product in another color"),
    "negative_details": (
        "D13; hard_negative_mining",
        "a hard negative's source could have offered it, by band, price and group",
    ),
    "similarity_scores": (
        "D13",
        "a hard negative's similarity is the matrix's value for the pair; other rows have none",
    ),
    "negatives": (
        "D12, D13, D22",
        "drawn again from the seed, the negatives are the same ones in the same order",
    ),
    "weights": (
        "D18; Category Balancing",
        "sample weights are category x segment x recency in train, and 1 elsewhere",
    ),
    "repurchases": (
        "D17",
        "is_repurchase says whether the user had bought the positive's item before",
    ),
    "similarity_matrix": (
        "D9, D10; item_similarity",
        "similarities are exactly those of the purchases before the first cut",
    ),
    "user_sequences": (
        "D15; Sequence Construction",
        "user_sequences holds each user's latest purchases before the window's end",
    ),
    "label_probe": (
        "D6, D17",
        "no feature of the item, and no classifier over all of them, gives the label away",
    ),
}


@dataclass
class Check:
    """One rule: how much of the dataset was held against it, and what broke it."""

    name: str
    rule: str
    claim: str
    scope: str = "all"  # or what the sample is
    # values, rows, groups or files; 0: the dataset has nothing that the rule speaks of
    n_checked: int = 0
    n_bad: int = 0
    offenders: list[dict[str, Any]] = field(
        default_factory=list
    )  # the first SHOWN: file, row, found, expected
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return "fails" if self.n_bad else "holds" if self.n_checked else "skipped"

    def as_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}


class Findings:
    """All checks; counting and faults may come in any order, but the first faults reported are the ones kept."""

    def __init__(self) -> None:
        self.checks = {name: Check(name, rule, claim) for name, (rule, claim) in RULES.items()}

    @property
    def holds(self) -> bool:
        return not any(check.n_bad for check in self.checks.values())

    def count(self, name: str, n: int) -> None:
        self.checks[name].n_checked += n

    def fault(
        self, name: str, file: str, row: int | None, found: Any, expected: Any, n: int = 1
    ) -> None:
        """`n` values are wrong, of which this is the first; `row` counts from 0 in the file."""
        check = self.checks[name]
        check.n_bad += n
        if len(check.offenders) < SHOWN:
            check.offenders.append(
                {"file": file, "row": row, "found": plain(found), "expected": plain(expected)}
            )

    def equal(self, name: str, file: str, what: str, found: Any, expected: Any) -> bool:
        """One value that must be another."""
        self.count(name, 1)
        if found != expected:
            self.fault(name, file, None, f"{what}: {plain(found)}", f"{what}: {plain(expected)}")
        return found == expected

    def rows(
        self, name: str, file: str, first_row: int, bad: np.ndarray, show: Show, stride: int = 1
    ) -> None:
        """Some of (n,) rows, or groups of `stride` rows, are `bad`; `show` gives what was found and expected in one."""
        self.count(name, len(bad))
        self.bad_rows(name, file, first_row, bad, show, stride)

    def bad_rows(
        self, name: str, file: str, first_row: int, bad: np.ndarray, show: Show, stride: int = 1
    ) -> None:
        """`rows` without counting: for a second look at rows that were counted."""
        where = np.flatnonzero(bad)
        for row in where[:SHOWN].tolist():
            self.fault(name, file, first_row + row * stride, *show(row))
        self.checks[name].n_bad += max(0, len(where) - SHOWN)


def plain(value: Any) -> Any:
    """A value as JSON holds it; text and lists cut to what a person reads."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return (
            [plain(each) for each in value[-8:]]
            if len(value) <= 8
            else ["...", *(plain(each) for each in value[-8:])]
        )
    if isinstance(value, float) and value != value:
        return "NaN"
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:200] + "..."
    return value if isinstance(value, int | float | bool | None | dict) else str(value)
