"""Where compiled kernels are kept between processes, and when they are too old.

numba keeps a compiled function as long as the file that it is in stays the same. But a kernel is compiled together with
the helpers that it calls, from other files: after an upgrade that changed only a helper, old code would go on running,
silently. So functions of the watched files share one stamp, a digest of all of them.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from numba import config
from numba.core.caching import FunctionCache

_watched: list[Path] = []  # files and folders


def watch(*paths: Path) -> None:
    """Keep compiled functions of these files, and of the files in these folders, by the content of all watched files.

    To be called before the functions are decorated.
    """
    _watched.extend(path.resolve() for path in paths)
    source_digest.cache_clear()


@functools.cache
def source_digest() -> str:
    """SHA-256 of all watched files, in order of their names."""
    files = {file for path in _watched for file in (path.glob("*.py") if path.is_dir() else [path])}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


class _Locator:
    """numba's protocol for finding a function's cache: the first of a few folders that can be written to."""

    def __init__(self, function: Any, folder: Path, file: Path) -> None:
        self._py_file, self._line, self._folder = (
            str(file),
            function.__code__.co_firstlineno,
            folder,
        )

    @classmethod
    def from_function(cls, function: Any, file: str) -> "_Locator | None":
        path = Path(file).resolve()
        if not any(path == watched or path.parent == watched for watched in _watched):
            return None
        return cls(function, _cache_folder(path.parent), path)

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_digest()

    def get_disambiguator(self) -> str:
        return str(self._line)


@functools.cache
def _cache_folder(sources: Path) -> Path:
    """NUMBA_CACHE_DIR, `__pycache__` beside the sources, the user's cache, or a folder that ends with this process."""
    name = f"gpu_dcgen_{hashlib.sha1(str(sources).encode()).hexdigest()[:12]}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    chosen = [Path(config.CACHE_DIR) / name] if config.CACHE_DIR else []
    for folder in (*chosen, sources / "__pycache__", user / name):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    folder = Path(tempfile.mkdtemp(prefix="gpu_dcgen_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


FunctionCache._impl_class._locator_classes.insert(0, _Locator)
