"""An earlier dataset of a log that has grown since: splits whose samples would be the same are taken over (D25).

Beside its files a dataset has append.json: of each split, what its samples were made of (`fingerprints`) and what is known of
them: their digest, and the counts for the quality report. A split of which every ingredient is the same has the same samples;
its files are linked into the new dataset, after their bytes were held against the manifest.
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
from ..config import DatasetConfig
from ..contract.json_files import read_json
from ..contract.manifest import AppendSummary, Manifest
from ..contract.schema import SPLITS
from ..digest import ContentDigest
from ..errors import ConfigError, InputError
from ..outputs.samples import Part, PartRecord
from ..preparation.windows import format_time
from ..quality_validator.metrics import WEEK, QualityMetrics
from ..samples import StageResults
from ..storage.checksums import sha256_of

FILE = "append.json"
_BY_ITEM = (
    "positive_items",
    "hard_items",
    "random_items",
)  # tallies by item, in the file by item_index
_COUNTED = (
    "groups",
    "negatives_verified",
    "violations",
    "hard_by_source",
    "relaxed",
)  # beside the tallies
_ANEW = "Build it anew with 'gpu-dcgen build --overwrite'."
_WHY = {
    "users": "what the tables say of some customers has changed",
    "items": "what the tables say of some articles has changed",
    "categories": "values came, went or were renamed, and the files number them in their order",
    "similarities": "views have changed, or similarity.engine is approximate",
}


@dataclass(frozen=True)
class Taken:
    """A split that is taken over: what is known of it and of its files, and when its samples were made."""

    record: PartRecord
    sha256: dict[Path, str]
    made_at: str


class PreviousDataset:
    """A published dataset; `take` finds which of its splits are `taken`, and why the others are made `anew`."""

    def __init__(self, folder: Path) -> None:
        """InputError where there is no dataset that can be appended to."""
        self.folder = folder
        self._manifest = Manifest.load(folder / "manifest.json", "Give the folder of a dataset.")
        if not (folder / FILE).is_file():
            raise InputError(
                f"{folder}: has no {FILE}, as it was built without output.appendable.\n{_ANEW}"
            )
        content = read_json(folder / FILE, _ANEW)
        self.taken: dict[str, Taken] = {}
        self.anew: dict[str, str] = {}
        try:
            self._n_transactions = self._manifest.inputs.rows["transactions"].read
            self._made_by, self._splits = (
                dict(content["made_by"]),
                {split: dict(content[split]) for split in SPLITS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder}: cannot be understood ({type(error).__name__}: {error}).\n{_ANEW}"
            ) from error
        if sha256_of(folder / FILE) != self._manifest.checksums.get(FILE):
            raise InputError(
                f"{folder / FILE}: is not as it was published: its SHA-256 is not the manifest's.\n{_ANEW}"
            )

    def config(self, resources: Mapping[str, Any]) -> DatasetConfig:
        """The dataset's settings, with these of `resources`. ConfigError where this version cannot use them, or those."""
        try:
            own = DatasetConfig.model_validate(self._manifest.config)
        except ValidationError as error:
            raise ConfigError(
                f"{self.folder}: its settings cannot be used: {_faults(error)}.\n{_ANEW}"
            ) from error
        try:
            return DatasetConfig.model_validate(
                {**self._manifest.config, "resources": {**own.resources.model_dump(), **resources}}
            )
        except ValidationError as error:
            raise ConfigError(
                f"{_faults(error)}.\nGive another value; 'gpu-dcgen config' tells what each means."
            ) from error

    def require_longer(self, n_transactions: int, inputs: Path) -> None:
        """InputError where the log is shorter than the one that the dataset was built from: then it lacks the old rows."""
        if n_transactions < self._n_transactions:
            raise InputError(
                f"{inputs}: transactions has {n_transactions:,} rows; {self.folder} was built from {self._n_transactions:,}.\n"
                "INPUT must hold the old rows and the new ones, as another file in the same folder. For another log, use "
                "'gpu-dcgen build --overwrite'."
            )

    def take(
        self,
        made_by: dict[str, str],
        made_of: dict[str, dict[str, Any]],
        parts: list[Part],
        folder: Path,
        results: StageResults,
        config: DatasetConfig,
        backend: Backend,
    ) -> None:
        """Take over the splits that are made by the same and of the same, and link their files to where `parts` will be read."""
        for k, split in enumerate(SPLITS):
            files = {
                part.path: part.path.relative_to(folder).as_posix()
                for part in parts
                if part.split == k
            }
            reason = self._other_maker(made_by) or _difference(
                split, self._splits[split]["made_of"], made_of[split], config
            )
            reason = reason or self._link(files, backend)
            if reason is None:
                sha256 = {path: self._manifest.checksums[name] for path, name in files.items()}
                self.taken[split] = Taken(
                    self._record(split, results, backend), sha256, self._splits[split]["made_at"]
                )
            else:
                self.anew[split] = reason

    def manifest_entry(self) -> AppendSummary:
        """Describe for the manifest which splits were reused, and why the others were rebuilt."""
        reused = {split: taken.made_at for split, taken in self.taken.items()}
        return AppendSummary(
            content_digest=self._manifest.content_digest, reused=reused, rebuilt=self.anew
        )

    def _other_maker(self, made_by: dict[str, str]) -> str | None:
        words = {
            "settings": "with other settings",
            "code": "by another version of gpu-dcgen",
            "machine": "on another machine",
        }
        differs = [name for name in words if self._made_by.get(name) != made_by[name]]
        return f"the dataset was made {words[differs[0]]}" if differs else None

    def _link(self, files: dict[Path, str], backend: Backend) -> str | None:
        """Link the files of a split; what is wrong with one of them, if anything is."""

        def link(path: Path, name: str) -> str | None:
            try:
                if sha256_of(self.folder / name) != self._manifest.checksums.get(name):
                    return f"{name} is not as it was published"
                path.unlink(missing_ok=True)
                _link_or_copy(self.folder / name, path)
            except OSError as error:
                return f"{name}: {error.strerror}"
            return None

        with ThreadPoolExecutor(backend.n_threads, "append") as pool:
            return next(
                (fault for fault in pool.map(link, files, files.values()) if fault is not None),
                None,
            )

    def _record(self, split: str, results: StageResults, backend: Backend) -> PartRecord:
        entry, log, tallies = self._splits[split], results.interactions, {}
        for name, values in entry["tallies"].items():
            if name in _BY_ITEM:
                tallies[name] = _lengthened(values, log.n_items, backend)[results.item_codes - 1]
            elif name == "weeks":
                tallies[name] = _lengthened(
                    values, (log.last_time - log.first_time) // WEEK + 1, backend
                )
            else:
                tallies[name] = backend.from_host(values).astype(backend.xp.int64)
        counted = {name: entry[name] for name in _COUNTED}
        digest = ContentDigest({name: int(total, 16) for name, total in entry["digest"].items()})
        return PartRecord(
            digest, QualityMetrics(**counted, tallies={split: tallies}), *entry["seconds"]
        )


def describe_splits(
    made_by: dict[str, str],
    made_of: dict[str, dict[str, Any]],
    records: list[PartRecord],
    made_at: dict[str, str],
    results: StageResults,
    backend: Backend,
) -> dict[str, Any]:
    """append.json: what another build needs to take the splits over; `made_at` names those that were taken over by this one."""
    order = backend.xp.argsort(results.item_codes, kind="stable")
    described: dict[str, Any] = {"made_by": made_by}
    for split, record in zip(SPLITS, records, strict=True):
        tallies = {}
        for name, vector in record.metrics.tallies.get(split, {}).items():
            values = backend.to_host(vector[order] if name in _BY_ITEM else vector).tolist()
            tallies[name] = _shortened(values) if name in (*_BY_ITEM, "weeks") else values
        described[split] = {
            "made_at": made_at.get(split, format_time(results.generated_at)),
            "made_of": made_of[split],
            "digest": record.digest.hex(),
            **{name: getattr(record.metrics, name) for name in _COUNTED},
            "seconds": [record.drawing_s, record.checking_s, record.working_s],
            "tallies": tallies,
        }
    return described


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}, found {one['input']!r:.80}"
        for one in error.errors()
    )


def _difference(
    split: str, before: dict[str, Any], now: dict[str, Any], config: DatasetConfig
) -> str | None:
    """Why a split's samples are not the same, by the first ingredient that is not."""
    name = next((name for name in now if before.get(name) != now[name]), None)
    match name:
        case None:
            return None
        case "window":
            return _moved(split, before[name], now[name])
        case "report":
            return "the quality report counts another sample of its positives"
        case "purchases":
            where = f" before {_moment(now['window'][1])}"
            remedy = (
                "late rows, or users and items that reached filtering.min_*, which filtering.counts: window lets in from then on"
                if config.filtering.counts == "log"
                else "rows were added, changed or left out there"
            )
        case "positives" if config.split.strategy == "temporal_user_disjoint":
            where = ""
            remedy = "which split a user is in depends on all users' purchases; with split.strategy hash or temporal it does not"
        case _:
            where, remedy = "", _WHY.get(name, "other positives")
    n_before, n_now = before[name][0], now[name][0]
    same = f"not the same {name}{where} ({n_now:,})"
    return f"{same if n_before == n_now else f'{n_now:,} {name}{where} instead of {n_before:,}'}: {remedy}"


def _moved(split: str, before: list[int], now: list[int]) -> str:
    if before[1] == now[1]:
        since = (
            2 if before[2] != now[2] else 3
        )  # the first day, from which snapshots count, or the first moment, as weeks do
        return f"the log begins with {_moment(now[since])} instead of {_moment(before[since])}"
    if before[0] == now[0] and split == SPLITS[-1]:
        return f"its window ends with {_moment(now[1] - 1)} instead of {_moment(before[1] - 1)}"
    then, since = (f"{_moment(start)} to {_moment(end - 1)}" for start, end, *_ in (before, now))
    return (
        f"its window is {since} instead of {then}: new rows move windows that divide the whole log; split.val_from and "
        "split.test_from pin them"
    )


def _moment(nanoseconds: int) -> str:
    """A time as short as it can be said."""
    day, _, time = format_time(nanoseconds).rstrip("Z").rstrip("0").rstrip(".").partition("T")
    return day if set(time) <= set("0:") else f"{day} {time}"


def _lengthened(values: list[int], length: int, backend: Backend) -> Array:
    vector = backend.xp.zeros(length, dtype=backend.xp.int64)
    vector[: len(values)] = backend.from_host(values).astype(backend.xp.int64)
    return vector


def _shortened(values: list[int]) -> list[int]:
    """Without the zeros at the end."""
    length = len(values)
    while length and not values[length - 1]:
        length -= 1
    return values[:length]


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
