"""Generation monitoring (contract, "Monitoring & Metrics"): what a build tells whoever watches it.

A build calls a ProgressTracker; the base class does nothing, so any subclass may pick what it wants to hear.
`RichTracker` shows people a terminal, or plain lines; `JsonLinesTracker` tells programs.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console

Level = Literal["info", "warning", "critical"]

MILESTONES = (0.5, 0.75)  # contract, "Alerting Thresholds": milestone_reached
JSON_INTERVAL_S = 1.0  # at most one `progress` line in this time


class ProgressTracker:
    """Hears what a build does, and does nothing. `advance` and `message` may be called from any thread."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Span one stage of the build; `total` samples, items or rows are expected, where that is known. Stages may nest."""
        yield

    def advance(self, n: int) -> None:
        """`n` more pieces of the innermost open stage are done."""

    def message(self, level: Level, text: str) -> None:
        """One thing worth knowing: `info`, `warning` or `critical` (contract, "Alerting Thresholds")."""

    def milestone(self, name: str, share: float) -> None:
        """Stage `name` has passed `share` of its total, one of MILESTONES."""


@dataclass
class Stage:
    """An open stage, as a counting tracker sees it."""

    name: str
    total: int | None
    started_s: float  # time.perf_counter()
    done: int = 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started_s

    @property
    def rate(self) -> float:
        """Pieces a second since the stage began: samples/s in the stage that writes samples."""
        return self.done / max(self.seconds, 1e-9)


class CountingTracker(ProgressTracker):
    """Keeps the open stages and their counts under one lock; subclasses show them through three hooks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[Stage] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        stage = Stage(name, total, time.perf_counter())
        with self._lock:
            self._open.append(stage)
            self.stage_began(stage)
        completed = False
        try:
            yield
            completed = True
        finally:
            with self._lock:
                self._open.remove(stage)
                self.stage_ended(stage, completed)

    def advance(self, n: int) -> None:
        with self._lock:
            if not self._open:
                raise RuntimeError("ProgressTracker.advance: no stage is open")
            stage = self._open[-1]
            before, stage.done = stage.done, stage.done + n
            self.stage_advanced(stage)
            for share in MILESTONES:
                if stage.total and before < share * stage.total <= stage.done:
                    self.milestone(stage.name, share)

    def stage_began(self, stage: Stage) -> None:
        """A stage was opened. Called under the lock, as the other two."""

    def stage_advanced(self, stage: Stage) -> None:
        """`stage.done` has grown."""

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        """A stage was closed; not `completed` when an exception went through it."""


class RichTracker(CountingTracker):
    """For people: bars with the rate and the time left on a terminal, one plain line a stage elsewhere.

    `quiet` shows warnings and critical messages only. Color follows the console (NO_COLOR is respected).
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        super().__init__()
        self._console, self._quiet = console, quiet
        self._animated = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._bars: Any = None  # rich.progress.Progress while a stage is open
        self._tasks: dict[int, Any] = {}  # id(stage) -> the bar's task

    def message(self, level: Level, text: str) -> None:
        style = {"info": "", "warning": "yellow", "critical": "bold red"}[level]
        if level == "info":
            self._line(f"  {text}")
        else:
            with self._lock:
                self._console.print(
                    f"{level}: {text}", style=style, markup=False, highlight=False, soft_wrap=True
                )

    def milestone(self, name: str, share: float) -> None:
        self._line(f"  {name}: {share:.0%} done")

    def stage_began(self, stage: Stage) -> None:
        if self._animated:
            if self._bars is None:
                self._bars = _bars(self._console)
                self._bars.start()
            self._tasks[id(stage)] = self._bars.add_task(
                stage.name, total=stage.total, rate="", left="left" if stage.total else ""
            )

    def stage_advanced(self, stage: Stage) -> None:
        if self._animated:
            self._bars.update(
                self._tasks[id(stage)], completed=stage.done, rate=f"{stage.rate:,.0f}/s"
            )

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        if self._animated:
            self._bars.remove_task(self._tasks.pop(id(stage)))
            if not self._tasks:
                self._bars.stop()
                self._bars = None
        if completed:
            counted = f"{stage.done:>14,} {stage.rate:>12,.0f}/s" if stage.done else ""
            self._line(f"{stage.name:<16} {stage.seconds:8.2f} s{counted}")

    def _line(self, text: str) -> None:
        if not self._quiet:
            with self._lock:
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _bars(console: Console) -> Any:
    from rich import progress

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description:<16}"),
        progress.BarColumn(bar_width=24),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[left]}"),
        progress.TimeRemainingColumn(),
    )
    return progress.Progress(*columns, console=console, transient=True)


class JsonLinesTracker(CountingTracker):
    """For programs: one JSON object a line, each with `event` and `elapsed_s` since the tracker was made.

    Events: `stage_began`, `progress` (at most one a second), `milestone`, `stage_ended`, `message`. `quiet` keeps
    warning and critical messages only; `write` appends an event of the caller's own.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        super().__init__()
        self._stream, self._quiet = stream, quiet
        self._started_s = time.perf_counter()
        self._told_s = 0.0  # elapsed time of the last progress line

    def message(self, level: Level, text: str) -> None:
        if level != "info" or not self._quiet:
            self.write("message", level=level, text=text)

    def milestone(self, name: str, share: float) -> None:
        self._tell("milestone", stage=name, share=share)

    def stage_began(self, stage: Stage) -> None:
        self._tell("stage_began", stage=stage.name, total=stage.total)

    def stage_advanced(self, stage: Stage) -> None:
        if time.perf_counter() - self._started_s - self._told_s >= JSON_INTERVAL_S:
            self._told_s = time.perf_counter() - self._started_s
            self._tell(
                "progress",
                stage=stage.name,
                done=stage.done,
                total=stage.total,
                per_s=round(stage.rate, 1),
            )

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        self._tell(
            "stage_ended",
            stage=stage.name,
            done=stage.done,
            seconds=round(stage.seconds, 3),
            completed=completed,
        )

    def write(self, event: str, **fields: Any) -> None:
        """Append one line: `event`, the elapsed time, and `fields`."""
        with self._lock:
            line = {
                "event": event,
                "elapsed_s": round(time.perf_counter() - self._started_s, 3),
                **fields,
            }
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()

    def _tell(self, event: str, **fields: Any) -> None:
        if not self._quiet:
            self.write(event, **fields)
