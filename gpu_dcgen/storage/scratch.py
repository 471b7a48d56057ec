"""A hidden folder beside an output, for what several builds need until the last one ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..resources import nearest_existing
from .lock import lock_output

_FOLDER_NAME = ".{}.scratch"


@contextmanager
def hold_scratch(output: Path) -> Iterator[Path]:
    """Yield an empty folder, and remove it in the end.

    What a process that was killed has left in it is removed before. OutputError while another
    process holds it, and where the file system has no locks.
    """
    output = output.absolute()
    folder = nearest_existing(output.parent) / _FOLDER_NAME.format(output.name)
    lock = lock_output(folder / "lock", output, "another process builds it")
    content = folder / "content"
    try:
        _remove(content)
        content.mkdir()
        yield content
    finally:
        _remove(content)
        lock.remove()
        folder.rmdir()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
