"""Inside a build that is to meet a fault: what happens to files is named and counted, and at one
point the fault comes.

A point is what happens and where, such as `write data/manifest.json`, `fsync data` or `append
train_dataset.parquet`, paths being relative to the staging folder; `#n` is its n-th time. Python
tells of opened, renamed and removed files itself (audit events); what it does not tell of is
wrapped: fsync, the exchange of two names, the part writer, which writes with Arrow, and stages.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = (
    "load_shop",
    "build_interactions",
    "compute_features",
    "plan_splits",
    "compute_neighbors",
    "find_candidates",
    "write_samples",
    "require_rows",
    "write_tables",
    "describe",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}


class Watcher:
    """Counts points, and lets `fault` happen at the point `at`; `points` are those that were met,
    in order.
    """

    def __init__(self, output: Path, fault: str | None, at: str | None) -> None:
        self.points: list[str] = []
        self.outside: list[str] = []  # files opened for writing that are not beside the output
        self._staging, self._beside = output.parent / f".{output.name}.staging", output.parent
        self._fault, self._at = fault, at
        self._times: Counter[str] = Counter()
        self._lock = (
            threading.RLock()
        )  # what the collector removes meanwhile is met in the same thread
        self._once_more = False

    def begin(self) -> None:
        """Watch this process from now on, until it ends."""
        from cpu_fallback import PartWriter
        from gpu_dcgen.dataset_generator import pipeline
        from gpu_dcgen.storage import checkpoints, staging

        sys.addaudithook(self._hear)
        self._wrap(
            os,
            "fsync",
            lambda handle: f"fsync {self._name(os.readlink(f'/proc/self/fd/{handle}'))}",
        )
        self._wrap(staging, "_exchange", lambda *_: "exchange", after=True)
        self._wrap(
            Path, "rename", lambda path, _: f"rename {self._name(path)}", after=True, before=False
        )
        for step in ("_open", "_append", "_finish"):
            self._wrap(
                PartWriter,
                step,
                lambda writer, *_, step=step: f"{step[1:]} {self._name(writer._path)}",
                after=True,
            )
        for stage in STAGES:
            self._wrap(pipeline, stage, lambda *_, stage=stage, **__: f"stage {stage}")
        checkpoints.open = self._open_checkpoint

    def _wrap(
        self,
        owner: Any,
        name: str,
        point: Callable[..., str],
        *,
        before: bool = True,
        after: bool = False,
    ) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            what = point(*arguments, **options)
            if before:
                self.meet(what)
            result = original(*arguments, **options)
            if after:
                self.meet(f"after {what}")
            return result

        setattr(owner, name, watched)

    def _open_checkpoint(self, path: Path, mode: str) -> Any:
        """A checkpoint's file, each write to which is a point."""
        file = open(path, mode)  # noqa: SIM115 - its user closes it
        if "w" in mode:
            write, name = file.write, self._name(path)
            return _Proxy(file, lambda chunk: (self.meet(f"bytes {name}"), write(chunk))[1])
        return file

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int):
                self._opened(os.path.abspath(os.fsdecode(path)), flags)
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            self.meet(f"{event[3:]} {self._name(arguments[0])}")
        elif event == "fcntl.flock":
            self.meet("lock")

    def _opened(self, path: str, flags: int) -> None:
        beside = Path(path).is_relative_to(self._beside)
        if flags & _WRITING:
            if beside:
                self.meet(f"write {self._name(path)}")
            elif not path.startswith(("/dev/", "/proc/")) and "__pycache__" not in path:
                self.outside.append(path)
        elif beside:
            self.meet(f"read {self._name(path)}")

    def _name(self, path: Any) -> str:
        text = os.fsdecode(path)
        for folder in (self._staging, self._beside):
            if text == str(folder):
                return "." if folder == self._staging else ".."
            if text.startswith(f"{folder}/"):
                return text[len(str(folder)) + 1 :]
        return text

    def meet(self, point: str) -> None:
        """One more point; perhaps the one where the fault is to be."""
        with self._lock:
            self._times[point] += 1
            point = f"{point}#{self._times[point]}"
            self.points.append(point)
            again, self._once_more = self._once_more, False
        if again:
            os.kill(os.getpid(), signal.SIGINT)
        if point == self._at:
            self._happen()

    def _happen(self) -> None:
        if self._fault == "no memory":
            raise MemoryError
        if self._fault in _ERRORS:
            raise OSError(_ERRORS[self._fault], os.strerror(_ERRORS[self._fault]))
        if self._fault == "Ctrl-C twice":
            self._once_more = True
            os.kill(os.getpid(), signal.SIGINT)
        elif self._fault is not None:
            os.kill(os.getpid(), getattr(signal, self._fault))


class _Proxy:
    """A file with another `write`."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self._file, self.write = file, write

    def __enter__(self) -> "_Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()
