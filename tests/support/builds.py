"""Small builds: a shop, hashes of a dataset, recorded messages, failures at a chosen call."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.monitoring.progress import Level, ProgressTracker
from tests.support.shops import random_shop, tiny_config, write_shop

NOW = 1_700_000_000_000_000_000
"""When builds start in tests that compare files, ns since 1970."""

TIMED_FILES = frozenset(
    ("manifest.json", "quality_report.json", "build_log.jsonl", "junit.xml", "append.json")
)
"""Files that contain times, so they differ between two runs of one build."""


class RecordingTracker(ProgressTracker):
    """Records messages: `messages` as (level, text), `texts` without the level."""

    def __init__(self) -> None:
        self.messages: list[tuple[Level, str]] = []

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.messages]

    def message(self, level: Level, text: str) -> None:
        self.messages.append((level, text))


def write_small_shop(folder: Path, seed: int = 1) -> Path:
    """Write a shop that fills every split under `tiny_config`, in a build of about a second."""
    return write_shop(random_shop(seed, n_users=16, n_items=24, n_rows=260), folder)


def hash_files(folder: Path) -> dict[str, str]:
    """Hash a dataset's files with SHA-256, by name, except `TIMED_FILES`."""
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name not in TIMED_FILES
    }


def build_and_hash(inputs: Path, output: Path, **options: Any) -> dict[str, str]:
    """Build with `tiny_config`, or the option `config`, and hash the files."""
    config = options.pop("config", tiny_config())
    return hash_files(Path(build(inputs, output, config, backend="cpu", **options).output))


def fail_at_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int = 1
) -> list[tuple[Any, ...]]:
    """Raise RuntimeError("died") at the `at`-th call of `owner.name`; -1: never.

    Returns a list to which each call adds its positional arguments.
    """
    original, calls = getattr(owner, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == at:
            raise RuntimeError("died")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls
