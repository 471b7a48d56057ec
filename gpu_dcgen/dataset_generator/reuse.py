"""Reuse the splits of a previous dataset that have not changed (D25).

Beside its files a dataset has append.json. For each split it has the fingerprints of all that its
samples were computed from, their digest, and the counts for the quality report. A split of equal
fingerprints has equal samples: its files are linked into the new dataset, after their bytes were
compared with the manifest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..backend.protocol import Array, Backend
from ..backend.runs import bring_to_host
from ..config import DatasetConfig
from ..context import BuildContext
from ..contract.documents import Section
from ..contract.json_files import read_json
from ..contract.manifest import AppendSummary, Manifest
from ..contract.schema import SPLITS
from ..digest import ContentDigest
from ..errors import ConfigError, InputError
from ..outputs.parts import Part, PartRecord, ReusedSplit
from ..preparation.windows import format_time
from ..quality_validator.metrics import BY_ITEM, WEEK, QualityMetrics
from ..samples import StageResults
from ..storage.checksums import sha256_of
from ..tallies import Tallies
from .fingerprints import Fingerprints, Provenance

FILE = "append.json"
# Counts of `QualityMetrics` beside the tallies.
_COUNTS = ("groups", "negatives_verified", "violations", "hard_by_source", "relaxed")
_REBUILD = "Build it again with 'gpu-dcgen build --overwrite'."
_PRODUCER_REASONS = {
    "settings": "with other settings",
    "code": "by another version of gpu-dcgen",
    "backend": "on another backend",
}
_REASONS = {
    "users": "what the tables say of some customers has changed",
    "items": "what the tables say of some articles has changed",
    "categories": "values were added, removed or renamed, and the files number them in order",
    "views": "rows of views were added, changed or left out",
    "similarities": "views have changed, or similarity.engine is approximate",
    "mining_weights": "other positives of train; hard negatives are drawn by their numbers",
}


class SplitRecord(Section):
    """What append.json has of a split."""

    generated_at: str
    fingerprints: Fingerprints
    digest: dict[str, str]  # by column
    groups: int
    negatives_verified: int
    violations: dict[str, int]
    hard_by_source: dict[str, int]
    relaxed: int
    seconds: list[float]  # drawing, checking, all work
    tallies: dict[str, list[int]]


class AppendFile(Section):
    """append.json."""

    producer: dict[str, str]
    splits: dict[str, SplitRecord]


@dataclass(frozen=True)
class ReusePlan:
    """Which splits of the previous dataset are reused, and why the others are rebuilt."""

    reused: dict[str, ReusedSplit]
    rebuild_reasons: dict[str, str]


class PreviousDataset:
    """A published dataset with splits that may be reused."""

    def __init__(self, folder: Path) -> None:
        """Read its manifest and append.json.

        Raises InputError where `folder` is no dataset, or one that cannot be appended to.
        """
        self.folder = folder
        self._manifest = Manifest.load(folder / "manifest.json", "Give the folder of a dataset.")
        if not (folder / FILE).is_file():
            raise InputError(
                f"{folder}: has no {FILE}, as it was built without output.appendable.\n{_REBUILD}"
            )
        content = read_json(folder / FILE, _REBUILD)
        try:
            self._n_transactions = self._manifest.inputs.rows["transactions"].read
            self._append = AppendFile.model_validate(content)
            self._splits = {split: self._append.splits[split] for split in SPLITS}
        except (KeyError, ValidationError) as error:
            fault = _faults(error) if isinstance(error, ValidationError) else f"no {error}"
            raise InputError(f"{folder}: cannot be understood ({fault}).\n{_REBUILD}") from error
        if sha256_of(folder / FILE) != self._manifest.checksums.get(FILE):
            raise InputError(
                f"{folder / FILE}: was changed after the dataset was published: its SHA-256 is not "
                f"the manifest's.\n{_REBUILD}"
            )

    def config(self, resources: Mapping[str, Any]) -> DatasetConfig:
        """Return the dataset's settings, with these `resources`.

        Raises ConfigError where this version cannot use the settings, or the resources.
        """
        settings = self._manifest.config
        try:
            own = DatasetConfig.model_validate(settings)
        except ValidationError as error:
            raise ConfigError(
                f"{self.folder}: its settings cannot be used: {_faults(error)}.\n{_REBUILD}"
            ) from error
        try:
            return DatasetConfig.model_validate(
                {**settings, "resources": {**own.resources.model_dump(), **resources}}
            )
        except ValidationError as error:
            raise ConfigError(
                f"{_faults(error)}.\nGive another value; 'gpu-dcgen config' describes them."
            ) from error

    def require_longer_log(self, n_transactions: int, inputs: str) -> None:
        """Raise InputError where the log has fewer rows than the dataset was built from."""
        if n_transactions < self._n_transactions:
            raise InputError(
                f"{inputs}: transactions has {n_transactions:,} rows; {self.folder} was built from "
                f"{self._n_transactions:,}.\n"
                "INPUT must hold the old rows and the new ones, as another file in the same "
                "folder. For another log, use 'gpu-dcgen build --overwrite'."
            )

    def reuse_splits(
        self,
        provenance: Provenance,
        parts: list[Part],
        folder: Path,
        results: StageResults,
        context: BuildContext,
    ) -> ReusePlan:
        """Find the splits that have not changed, and link their files into `folder`."""
        plan = ReusePlan({}, {})
        for k, split in enumerate(SPLITS):
            record = self._splits[split]
            files = {
                part.path: part.path.relative_to(folder).as_posix()
                for part in parts
                if part.split == k
            }
            reason = self._compare_producer(provenance.producer) or _compare_fingerprints(
                split, record.fingerprints, provenance.fingerprints[split], context.config
            )
            reason = reason or self._link(files, context.backend)
            if reason is None:
                plan.reused[split] = ReusedSplit(
                    self._part_record(split, results, context.backend),
                    {path: self._manifest.checksums[name] for path, name in files.items()},
                    record.generated_at,
                )
            else:
                plan.rebuild_reasons[split] = reason
        return plan

    def manifest_entry(self, plan: ReusePlan) -> AppendSummary:
        """Describe for the manifest which splits were reused, and why the others were rebuilt."""
        return AppendSummary(
            content_digest=self._manifest.content_digest,
            reused={split: entry.generated_at for split, entry in plan.reused.items()},
            rebuilt=plan.rebuild_reasons,
        )

    def _compare_producer(self, producer: dict[str, str]) -> str | None:
        for name, words in _PRODUCER_REASONS.items():
            if self._append.producer.get(name) != producer[name]:
                return f"the dataset was built {words}"
        return None

    def _link(self, files: dict[Path, str], backend: Backend) -> str | None:
        """Link the files of a split; return what is wrong with one of them."""

        def link(path: Path, name: str) -> str | None:
            try:
                if sha256_of(self.folder / name) != self._manifest.checksums.get(name):
                    return f"{name} was changed after the dataset was published"
                path.unlink(missing_ok=True)
                _link_or_copy(self.folder / name, path)
            except OSError as error:
                return f"{name}: {error.strerror}"
            return None

        with ThreadPoolExecutor(backend.n_threads, "append") as pool:
            faults = pool.map(link, files, files.values())
            return next((fault for fault in faults if fault is not None), None)

    def _part_record(self, split: str, results: StageResults, backend: Backend) -> PartRecord:
        record, log, tallies = self._splits[split], results.interactions, {}
        for name, values in record.tallies.items():
            if name in BY_ITEM:
                by_index = _pad(values, log.n_items, backend)
                tallies[name] = by_index[results.item_codes - 1]
            elif name == "weeks":
                n_weeks = (log.last_time - log.first_time) // WEEK + 1
                tallies[name] = _pad(values, n_weeks, backend)
            else:
                tallies[name] = backend.from_host(values).astype(backend.xp.int64)
        metrics = QualityMetrics(
            **{name: getattr(record, name) for name in _COUNTS},
            tallies=Tallies({split: bring_to_host(backend, tallies)}),
        )
        digest = ContentDigest({name: int(total, 16) for name, total in record.digest.items()})
        drawing_s, checking_s, working_s = record.seconds
        return PartRecord(digest, metrics, drawing_s, checking_s, working_s)


def describe_splits(
    provenance: Provenance,
    records: list[PartRecord],
    generated_at: Mapping[str, str],
    results: StageResults,
    backend: Backend,
) -> dict[str, Any]:
    """Return the content of append.json.

    `generated_at` has the splits that were reused; the others were generated by this build.
    """
    order = backend.to_host(backend.xp.argsort(results.item_codes, kind="stable"))
    splits = {}
    for split, record in zip(SPLITS, records, strict=True):
        tallies = {}
        for name, vector in record.metrics.tallies.get_vectors(split).items():
            values = (vector[order] if name in BY_ITEM else vector).tolist()
            tallies[name] = _strip_zeros(values) if name in (*BY_ITEM, "weeks") else values
        splits[split] = {
            "generated_at": generated_at.get(split, format_time(results.generated_at)),
            "fingerprints": provenance.fingerprints[split],
            "digest": record.digest.hex(),
            **{name: getattr(record.metrics, name) for name in _COUNTS},
            "seconds": [record.drawing_s, record.checking_s, record.working_s],
            "tallies": tallies,
        }
    return {"producer": provenance.producer, "splits": splits}


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, found {fault['input']!r:.80}"
        for fault in error.errors()
    )


def _compare_fingerprints(
    split: str, before: Fingerprints, now: Fingerprints, config: DatasetConfig
) -> str | None:
    """Return why a split's samples are not the same, by the first fingerprint that differs."""
    name = next((name for name in now if before.get(name) != now[name]), None)
    if name is None:
        return None
    if name == "window":
        return _compare_windows(split, before[name], now[name])
    if name == "report":
        return "the quality report counts another sample of its positives"
    place, reason = "", _REASONS.get(name, "other positives")
    if name == "purchases":
        place = f" before {_short_time(now['window'][1])}"
        reason = (
            "late rows, or users and items that reached filtering.min_*, which "
            "filtering.counts: window lets in from then on"
            if config.filtering.counts == "log"
            else "rows were added, changed or left out there"
        )
    elif name == "positives" and config.split.strategy == "temporal_user_disjoint":
        reason = (
            "which split a user is in depends on all users' purchases; with split.strategy hash "
            "or temporal it does not"
        )
    n_before, n_now = before[name][0], now[name][0]
    if n_before == n_now:
        return f"not the same {name}{place} ({n_now:,}): {reason}"
    return f"{n_now:,} {name}{place} instead of {n_before:,}: {reason}"


def _compare_windows(split: str, before: list[int], now: list[int]) -> str:
    if before[1] == now[1]:
        # The first day, from which snapshots count, or the first moment, as weeks do.
        start = 2 if before[2] != now[2] else 3
        moved = f"{_short_time(now[start])} instead of {_short_time(before[start])}"
        return f"the log begins with {moved}"
    if before[0] == now[0] and split == SPLITS[-1]:
        moved = f"{_short_time(now[1] - 1)} instead of {_short_time(before[1] - 1)}"
        return f"its window ends with {moved}"
    windows = (
        f"{_short_time(start)} to {_short_time(end - 1)}" for start, end, *_ in (now, before)
    )
    return (
        f"its window is {' instead of '.join(windows)}: new rows move windows that divide the "
        "whole log; split.val_from and split.test_from pin them"
    )


def _short_time(nanoseconds: int) -> str:
    """Format a time without what is zero at its end."""
    day, _, time = format_time(nanoseconds).rstrip("Z").rstrip("0").rstrip(".").partition("T")
    return day if set(time) <= set("0:") else f"{day} {time}"


def _pad(values: list[int], length: int, backend: Backend) -> Array:
    vector = backend.xp.zeros(length, dtype=backend.xp.int64)
    vector[: len(values)] = backend.from_host(values).astype(backend.xp.int64)
    return vector


def _strip_zeros(values: list[int]) -> list[int]:
    """Remove the zeros at the end."""
    length = len(values)
    while length and not values[length - 1]:
        length -= 1
    return values[:length]


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
