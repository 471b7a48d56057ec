"""Cache compiled kernels between processes until any of their sources changes.

numba reuses a compiled function as long as the file that defines it is the same. But a kernel is
compiled together with the helpers that it calls from other files: after an upgrade that changed a
helper only, numba would run the old code. So functions of the watched files share one stamp, a
digest of all of them. The files' names have it too: an index of other sources may name types that
are no longer there, so it must not even be read.

numba has no public interface for this. Where its internals differ from what is expected here, a
warning is issued once and numba's own cache is used. numba-cuda's cache is another copy of numba's:
the GPU backend adds a locator there (`add_locator`).
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numba
from numba.core import config

_DIGEST_LENGTH = 16  # characters in the names of files

_watched: list[Path] = []  # files and folders


def watch(*paths: Path) -> None:
    """Cache functions of these files and folders by the content of all watched files.

    Call it before the functions are decorated.
    """
    _watched.extend(path.resolve() for path in paths)


@functools.cache
def _digest_sources(paths: tuple[Path, ...]) -> str:
    """Return the SHA-256 of files, and of those in folders, in order of their names."""
    files = {file for path in paths for file in (path.glob("*.py") if path.is_dir() else [path])}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


class _Locator:
    """numba's interface for locating a function's cache, for functions of the watched files."""

    _more: tuple[Path, ...] = ()  # watched for this locator alone

    def __init__(self, function: Any, folder: Path, file: Path) -> None:
        # `_py_file` is read by numba.
        self._py_file = str(file)
        self._line = function.__code__.co_firstlineno
        self._folder = folder
        # What is watched later is not called from here; a function may be compiled before or after.
        places = [place for place, path in enumerate(_watched) if path in (file, file.parent)]
        watched = _watched[: places[0] + 1] if places else _watched
        self._digest = _digest_sources((*watched, *self._more))

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator | None:
        path = Path(file).resolve()
        if not {path, path.parent} & {*_watched, *cls._more}:
            return None
        folder = _cache_folder(path.parent)
        return cls(function, folder / "more" if cls._more else folder, path)

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in self._folder.glob("*.nb[ci]"):
            if self._digest[:_DIGEST_LENGTH] not in file.name:  # of sources that have changed
                file.unlink(missing_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._digest

    def get_disambiguator(self) -> str:
        return f"{self._line}-{self._digest[:_DIGEST_LENGTH]}"


@functools.cache
def _cache_folder(sources: Path) -> Path:
    """Return the first folder that can be written to.

    NUMBA_CACHE_DIR, `__pycache__` beside the sources, the user's cache, or else a temporary folder
    that is removed when this process ends.
    """
    name = f"gpu_dcgen_{hashlib.sha1(str(sources).encode()).hexdigest()[:12]}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    cache_dir = getattr(config, "CACHE_DIR", "")
    configured = [Path(cache_dir) / name] if cache_dir else []
    for folder in (*configured, sources / "__pycache__", user / name):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    folder = Path(tempfile.mkdtemp(prefix="gpu_dcgen_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def add_locator(caching: Any, implementation: Any, *more: Path) -> None:
    """Put a locator before those of `implementation`, a class of numba's module `caching`.

    It also caches functions of `more` files and folders, and watches these, in a folder of its own.
    AttributeError or TypeError where the internals differ from what is expected.
    """
    classes = implementation._locator_classes
    if not isinstance(classes, list):
        raise TypeError(f"_locator_classes is a {type(classes).__name__}, not a list")
    members = {"_more": tuple(path.resolve() for path in more)}
    locator: Any = type("_WatchedFilesLocator", (_Locator, caching._CacheLocator), members)
    if missing := sorted(locator.__abstractmethods__):
        raise TypeError(f"a cache locator needs {', '.join(missing)}")
    classes.insert(0, locator)


def _install() -> None:
    """Put `_Locator` before numba's own locators, or warn that only these are used."""
    try:
        from numba.core import caching

        add_locator(caching, caching.FunctionCache._impl_class)
    except (AttributeError, ImportError, TypeError) as error:
        warnings.warn(
            f"numba {numba.__version__} caches compiled functions in another way than expected "
            f"({error}): its own cache is used.\n"
            "After an upgrade of gpu-dcgen, delete *.nbi from its __pycache__ folders and from "
            "NUMBA_CACHE_DIR.",
            RuntimeWarning,
            stacklevel=2,
        )


_install()
watch(Path(__file__).parent)
