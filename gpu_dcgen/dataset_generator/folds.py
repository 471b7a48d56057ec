"""Build several datasets of one log with rolling windows (D7)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..contract.folds import name_fold
from ..contract.manifest import Manifest
from ..errors import ConfigError, OutputError, spell_option
from ..inputs.frames import write_frames
from ..inputs.opening import open_tables
from ..inputs.shop import InputFile
from ..monitoring.progress import ProgressTracker
from ..monitoring.timing import BuildTimer
from ..preparation.windows import Fold, cut_folds, format_time
from ..storage.locations import is_url
from ..storage.scratch import hold_scratch
from .build_key import WITHOUT_EFFECT, list_hashes
from .builder import BuildResult, build, choose_log, require_location, select
from .shared_tables import SharedTables, share_tables

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build_folds(
    inputs: Path | str | None = None,
    output: Path | str | None = None,
    config: DatasetConfig | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> list[BuildResult]:
    """Build the `split.folds` datasets of a log into OUTPUT/fold-0, fold-1 and so on.

    Each is what `build` makes of the rows before its end, with its cuts pinned: its settings, which
    are in its manifest, build it again. Folds are published one after another, the earliest first.
    The tables are read once; decoded, they lie in files beside `output` until the last fold is
    built, so that a fold takes no more memory than a build alone.

    Args:
        inputs: Local folder of the tables.
        output: Local folder, in which a folder is made for each fold.
        config: The settings.
        tables: As of `build`.
        backend: As of `build`.
        progress: As of `build`.
        overwrite: Replace datasets in the folders of folds.
        resume: Leave folds that an interrupted run has published, if inputs and settings are the
            same, and continue the one that it was at.

    Raises:
        DcgenError: As of `build`; folds that are published by then remain.
    """
    options = {"overwrite": overwrite, "resume": resume}
    return [
        *run_folds(
            inputs, output, config, tables=tables, backend=backend, progress=progress, **options
        )
    ]


def run_folds(
    inputs: Path | str | None = None,
    output: Path | str | None = None,
    config: DatasetConfig | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[BuildResult]:
    """Build folds as `build_folds` does, and yield each when it is published."""
    config, progress = config or DatasetConfig(), progress or ProgressTracker()
    log, output = choose_log(inputs, tables), require_location("output", output)
    if (isinstance(log, str) and is_url(log)) or is_url(output):
        raise ConfigError(
            f"split.folds: found {inputs} and {output}; expected local folders.\n"
            "Build the folds locally, and copy tables or datasets."
        )
    outputs = [Path(output) / name_fold(number) for number in range(config.split.folds)]
    if not (overwrite or resume) and (present := [path for path in outputs if path.exists()]):
        raise OutputError(
            f"{present[0]}: already exists.\nChoose another OUTPUT, or build with "
            f"{spell_option('overwrite')} or {spell_option('resume')}."
        )
    opened = select(backend, config)[0] if isinstance(backend, str) else backend
    with hold_scratch(Path(output)) as scratch:
        folds, shared = _read_tables(log, config, opened, progress, scratch)
        Path(output).mkdir(parents=True, exist_ok=True)
        for path, fold in zip(outputs, folds, strict=True):
            settings = _pin_windows(config, fold)
            if resume and (manifest := _read_finished(path, settings, shared.files)) is not None:
                progress.message("info", f"{path.name}: already built")
                yield BuildResult(path, manifest)
                continue
            until = "the end" if fold.until is None else format_time(fold.until)
            progress.message(
                "info", f"{path.name}: test from {format_time(fold.test_from)} until {until}"
            )
            yield build(
                shared,
                path,
                settings,
                backend=opened,
                progress=progress,
                overwrite=overwrite,
                resume=resume,
            )


def _read_tables(
    log: Path | str | Mapping[str, Any],
    config: DatasetConfig,
    backend: Backend,
    progress: ProgressTracker,
    scratch: Path,
) -> tuple[list[Fold], SharedTables]:
    """Read the tables for all folds; return the folds' windows, and the tables."""
    timer, workplace = BuildTimer(backend, progress), scratch / "tables"
    tables = (
        write_frames(log, config.inputs, workplace, timer)
        if isinstance(log, Mapping)
        else open_tables(Path(log), config.inputs, workplace, timer)
    )
    with timer.stage("load"):
        shop, shared = share_tables(tables, config, backend, scratch / "decoded")
    return cut_folds(shop.time, config.split, backend), shared


def _pin_windows(config: DatasetConfig, fold: Fold) -> DatasetConfig:
    """Return the settings of one fold: a build of the rows before its end, with its cuts."""
    pinned = {"folds": 1, "val_from": _to_moment(fold.val_from)}
    split = config.split.model_copy(update={**pinned, "test_from": _to_moment(fold.test_from)})
    inputs = config.inputs
    if fold.until is not None:
        inputs = inputs.model_copy(update={"time_until": _to_moment(fold.until)})
    return config.model_copy(update={"split": split, "inputs": inputs})


def _to_moment(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _read_finished(
    path: Path, config: DatasetConfig, files: Sequence[InputFile]
) -> Manifest | None:
    """Return the manifest of a dataset of these inputs and settings, if it is there."""
    if not (path / "manifest.json").exists():
        return None
    manifest = Manifest.load(path / "manifest.json")
    settings = json.loads(config.model_dump_json(exclude=WITHOUT_EFFECT))
    is_same = settings == {name: manifest.config.get(name) for name in settings} and [
        [file.table, file.sha256] for file in manifest.inputs.files
    ] == list_hashes(files)
    return manifest if is_same else None
