"""Write text files at paths that users chose."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import OutputError, spell_option


def require_absent(paths: Iterable[Path], overwrite: bool, remedy: str) -> None:
    """Raise OutputError if one of the paths exists, unless `overwrite` is set.

    `remedy` is the advice beside overwriting, without a period.
    """
    for path in paths:
        if not overwrite and path.exists():
            raise OutputError(
                f"{path} already exists.\n{remedy}, or replace it with {spell_option('overwrite')}."
            )


def write_text(path: Path, text: str, remedy: str) -> None:
    """Write UTF-8 text, and make the folder; OutputError with `remedy`, without a period."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).\n{remedy}.") from error
