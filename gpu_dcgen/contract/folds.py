"""Folders of folds: several datasets of one log, which are no dataset themselves."""

from __future__ import annotations

import shlex
from pathlib import Path

_PREFIX = "fold-"
_MAX_NAMES = 12  # of folds, in a message


def name_fold(number: int) -> str:
    """Return the name of the folder of a fold, numbered from 0, the earliest."""
    return f"{_PREFIX}{number}"


def list_folds(folder: Path) -> list[Path]:
    """Return the datasets of a folder of folds, the earliest first; [] where it is none."""
    paths = [path.parent for path in folder.glob(f"{_PREFIX}*/manifest.json")]
    numbered = [path for path in paths if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def suggest_fold(folder: Path, otherwise: str, command: str | None = None) -> str:
    """Return a remedy for a folder that is no dataset: one of its folds.

    It is `otherwise` where there are no folds. A `command` is shown for each fold, to be pasted.
    """
    if not (paths := list_folds(folder)):
        return otherwise
    names = [shlex.quote(str(path)) for path in paths]
    shown, more = names[:_MAX_NAMES], "" if len(names) <= _MAX_NAMES else ", ..."
    if command is None:
        return f"It holds {len(names)} folds; name one of them: {', '.join(shown)}{more}"
    lines = "\n".join(f"{command} {name}" for name in shown)
    return f"It holds {len(names)} folds, each a dataset of its own{more}:\n{lines}"
