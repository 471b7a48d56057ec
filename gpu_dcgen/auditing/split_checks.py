"""Check one split: stream its groups through all checks of samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..monitoring.progress import ProgressTracker
from .dataset_files import PartGroups, WrittenDataset, check_nulls, list_parts, stream_groups
from .expected import ExpectedSplit
from .feature_checks import FeatureChecker
from .findings import Findings
from .group_comparer import GroupCodes, GroupComparer
from .hashes import ColumnDigests
from .label_probe import ProbeSample, probe_labels
from .negative_checks import NegativeChecker, NegativeRedraw
from .negatives import NegativeMiner
from .output_columns import ExpectedColumn, as_array, expect_numbers
from .similarity import SimilarityPairs
from .structure_checks import StructureChecker

PROBE_GROUPS = 4_000
WEIGHT_TOLERANCE = 2e-7  # relative: sums of weights may have been added in another order


@dataclass(frozen=True)
class SampleSize:
    """How many groups a split are drawn again, how many files a split are read, and the seed."""

    n_groups: int
    seed: int
    n_parts: int | None = None  # None: all

    def select_parts(self, parts: list[PartGroups], split: int) -> list[PartGroups]:
        """Select files of a split, in their order."""
        if self.n_parts is None or self.n_parts >= len(parts):
            return parts
        random = np.random.default_rng([self.seed, split, self.n_parts])
        chosen = np.sort(random.choice(len(parts), self.n_parts, replace=False))
        return [parts[number] for number in chosen.tolist()]

    def select(self, n: int, split: int) -> np.ndarray:
        """Select groups of a split of `n`, rising."""
        random = np.random.default_rng([self.seed, split])
        return np.sort(random.choice(n, min(self.n_groups, n), replace=False))


@dataclass(frozen=True)
class MiningInputs:
    """What the dataset itself says of pairs and items; None where it cannot be read."""

    pairs: SimilarityPairs | None
    weights: np.ndarray | None  # (I,) int64  `mining_weight` of the items


@dataclass(frozen=True)
class SplitResult:
    """What was read of a split, for the checks across splits and of the manifest."""

    n_groups: int  # by the footers of its files
    is_whole: bool  # whether all of them were read
    digests: dict[str, str]  # column -> content digest of what was read
    has_positive: np.ndarray  # (U,) bool  users with a positive in this split
    n_by_detail: np.ndarray  # hard negatives by source, in the order of NEGATIVE_DETAILS
    n_hard_by_item: np.ndarray | None  # (I,) int64  hard negatives; None if not all were read


def check_split(
    dataset: WrittenDataset,
    split: ExpectedSplit,
    mining: MiningInputs,
    sample: SampleSize,
    findings: Findings,
    progress: ProgressTracker,
) -> SplitResult:
    """Check the rows of a split, draw a sample of its negatives again, and probe its labels."""
    config = dataset.config
    all_parts = list_parts(dataset, split.number)
    parts = sample.select_parts(all_parts, split.number)
    is_whole = len(parts) == len(all_parts)
    read = np.concatenate(
        [np.arange(0), *(np.arange(part.groups.start, part.groups.stop) for part in parts)]
    )
    n_unread = sum(len(part.groups) for part in all_parts) - len(read)
    progress.advance(n_unread * config.rows_per_positive)
    n_checked = {rule: check.n_checked for rule, check in findings.checks.items()}
    schema, digests = dataset.schema_of(split.table), ColumnDigests()
    structure = StructureChecker(split, config, findings)
    negatives = NegativeChecker(split, mining.pairs, config, findings)
    checkers: list[GroupComparer] = [
        structure,
        FeatureChecker(split, config, findings),
        negatives,
        ExtraColumnChecker(split, config, findings),
    ]
    if mining.pairs is not None and mining.weights is not None:
        miner = NegativeMiner(split.log, split.snapshots, mining.pairs, config, mining.weights)
        expected = read[read < split.n_groups]
        chosen = expected[sample.select(len(expected), split.number)]
        checkers.append(NegativeRedraw(split, miner, chosen, config, findings))
    probe = None
    if split.number == 0 and config.output.shape == "labeled_pair":
        probe = ProbeSample(read, PROBE_GROUPS, sample.seed)
    has_positive = np.zeros(split.log.n_users, dtype=bool)
    n_groups = n_unread
    for batch in stream_groups(dataset, parts, digests, findings):
        progress.advance(batch.table.num_rows)
        n_groups += batch.n_groups
        if not check_nulls(batch.file, batch.first_row, batch.table, schema, findings):
            continue
        groups = structure.encode_groups(batch)
        for checker in checkers:
            checker.check(groups)
        has_positive[groups.user[groups.user >= 0]] = True
        if probe is not None:
            probe.add(groups)
    if not is_whole:
        _note_parts(sample, n_checked, findings)
    if split.n_groups > sample.n_groups:
        findings.checks["negatives"].scope = f"{sample.n_groups} seeded groups a split"
    if n_groups != split.n_groups:
        findings.add_fault(
            "positives",
            split.table,
            None,
            f"{n_groups} positives",
            f"{split.n_groups} positives",
        )
    if probe is not None and probe.n_rows:
        probe_labels(probe, split.log.item_index, config, findings)
    return SplitResult(
        n_groups=n_groups,
        is_whole=is_whole,
        digests=digests.to_hex(),
        has_positive=has_positive,
        n_by_detail=negatives.n_by_detail,
        n_hard_by_item=negatives.n_hard_by_item if is_whole else None,
    )


def _note_parts(sample: SampleSize, n_checked: dict[str, int], findings: Findings) -> None:
    """Note the sample of parts at the rules of which more was checked than `n_checked` before."""
    for rule, check in findings.checks.items():
        if check.n_checked > n_checked[rule] and check.scope == "all":
            check.scope = f"{sample.n_parts} seeded parts a split"


class ExtraColumnChecker(GroupComparer):
    """Checks the columns of D17 that the contract does not have: repurchases and weights."""

    def check(self, groups: GroupCodes) -> None:
        """Check a batch."""
        if self._config.output.extra_columns:
            self._check_repurchases(groups)
            self._check_weights(groups)

    def _check_repurchases(self, groups: GroupCodes) -> None:
        user, item = np.maximum(groups.user, 0), np.maximum(groups.item[:, 0], 0)
        is_repurchase = self._log.owned_since(user, item) < groups.time
        expected = ExpectedColumn(expect_numbers(is_repurchase).values, bool).repeat(self._n_rows)
        self._compare_column("repurchases", groups, "is_repurchase", expected)

    def _check_weights(self, groups: GroupCodes) -> None:
        batch, split_weight = groups.batch, self._split.weight
        expected = np.ones(batch.n_groups)
        if split_weight is not None:
            place = batch.first_group + np.arange(batch.n_groups)
            expected = split_weight[np.minimum(place, len(split_weight) - 1)]
        expected = np.repeat(expected, self._n_rows)
        weights = as_array(batch.table["sample_weight"]).to_numpy(zero_copy_only=False)
        weights = weights.astype(np.float64)
        is_close = np.abs(weights - expected) <= WEIGHT_TOLERANCE * np.abs(expected)
        self._report_rows(
            "weights",
            groups,
            ~is_close & np.repeat(groups.has_row, self._n_rows),
            lambda row: (float(weights[row]), float(np.float32(expected[row]))),
        )
