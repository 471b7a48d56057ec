"""Report the progress of a build (contract, "Monitoring & Metrics").

A build calls a ProgressTracker. The base class does nothing, so a subclass overrides only what it
needs. `RichTracker` prints for people, `JsonLinesTracker` for programs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Level = Literal["info", "warning", "critical"]

MILESTONES = (0.5, 0.75)  # contract, "Alerting Thresholds": milestone_reached
JSON_INTERVAL_S = 1.0  # between two `progress` lines, at least


class ProgressTracker:
    """Receives the progress of a build and ignores it; the base class of all trackers.

    `advance` and `message` may be called from any thread.
    """

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Enclose a stage of the build; stages may nest.

        `total` is the number of samples, items or rows to expect, None where it is not known.
        """
        yield

    def advance(self, n: int) -> None:
        """Count `n` more samples, items or rows of the innermost open stage as done."""

    def message(self, level: Level, text: str) -> None:
        """Report a message (contract, "Alerting Thresholds")."""

    def milestone(self, name: str, share: float) -> None:
        """Report that stage `name` has passed `share` of its total, one of MILESTONES."""


@dataclass
class Stage:
    """An open stage and what is done of it."""

    name: str
    total: int | None
    started_s: float  # time.perf_counter()
    done: int = 0

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.perf_counter() - self.started_s

    @property
    def rate(self) -> float:
        """Samples, items or rows per second since the stage began."""
        return self.done / max(self.seconds, 1e-9)


class CountingTracker(ProgressTracker):
    """Counts what is done of the open stages; subclasses override three hooks.

    The hooks and `milestone` are called under the tracker's lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[Stage] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Enclose a stage of the build."""
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
        """Count `n` more of the innermost open stage; RuntimeError where none is open."""
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
        """Handle a stage that was opened."""

    def stage_advanced(self, stage: Stage) -> None:
        """Handle a stage of which more is done."""

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        """Handle a stage that was closed; not `completed` where it raised an exception."""


class RichTracker(CountingTracker):
    """Prints for people: progress bars on a terminal, one line a stage elsewhere.

    A console without color (NO_COLOR) is treated as one that is not a terminal: no escape codes
    are printed. `quiet` prints only warnings and critical messages.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        super().__init__()
        self._console, self._quiet = console, quiet
        is_terminal = console.is_terminal and not console.is_dumb_terminal
        self._has_styles = is_terminal and not console.no_color
        self._has_bars = self._has_styles and not quiet
        self._bars: Progress | None = None  # while a stage is open
        self._tasks: dict[int, TaskID] = {}  # by id(stage)

    def message(self, level: Level, text: str) -> None:
        """Print a message."""
        if level != "info":
            self._print(f"{level}: {text}", "bold red" if level == "critical" else "yellow")
        elif not self._quiet:
            self._print(f"  {text}")

    def milestone(self, name: str, share: float) -> None:
        """Print a milestone."""
        if not self._quiet:
            self._print(f"  {name}: {share:.0%} done")

    def stage_began(self, stage: Stage) -> None:
        """Show a bar."""
        if self._has_bars:
            if self._bars is None:
                self._bars = _make_bars(self._console)
                self._bars.start()
            self._tasks[id(stage)] = self._bars.add_task(
                stage.name, total=stage.total, rate="", left="left" if stage.total else ""
            )

    def stage_advanced(self, stage: Stage) -> None:
        """Update the bar."""
        if self._bars is not None:
            self._bars.update(
                self._tasks[id(stage)], completed=stage.done, rate=f"{stage.rate:,.0f}/s"
            )

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        """Replace the bar by a line."""
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(id(stage)))
            if not self._tasks:
                self._bars.stop()
                self._bars = None
        if completed and not self._quiet:
            rate = f"{stage.done:>14,} {stage.rate:>12,.0f}/s" if stage.done else ""
            self._print(f"{stage.name:<16} {stage.seconds:8.2f} s{rate}")

    def _print(self, text: str, style: str = "") -> None:
        with self._lock:
            self._console.print(
                text.rstrip(),
                style=style if self._has_styles else None,
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _make_bars(console: Console) -> Progress:
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
    """Prints for programs: JSON objects, one a line, each with `event` and `elapsed_s`.

    `elapsed_s` counts from when the tracker was created.
    Events: `stage_began`, `progress` (at most one a second), `milestone`, `stage_ended`, `message`.
    `quiet` prints only warnings and critical messages; `write` prints an event of the caller.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        super().__init__()
        self._stream, self._quiet = stream, quiet
        self._started_s = time.perf_counter()
        self._progress_s = 0.0  # elapsed time of the last progress line

    def message(self, level: Level, text: str) -> None:
        """Print a `message` event."""
        if level != "info" or not self._quiet:
            self.write("message", level=level, text=text)

    def milestone(self, name: str, share: float) -> None:
        """Print a `milestone` event."""
        self._write("milestone", stage=name, share=share)

    def stage_began(self, stage: Stage) -> None:
        """Print a `stage_began` event."""
        self._write("stage_began", stage=stage.name, total=stage.total)

    def stage_advanced(self, stage: Stage) -> None:
        """Print a `progress` event if the last one is old enough."""
        elapsed_s = time.perf_counter() - self._started_s
        if elapsed_s - self._progress_s >= JSON_INTERVAL_S:
            self._progress_s = elapsed_s
            self._write(
                "progress",
                stage=stage.name,
                done=stage.done,
                total=stage.total,
                per_s=round(stage.rate, 1),
            )

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        """Print a `stage_ended` event."""
        self._write(
            "stage_ended",
            stage=stage.name,
            done=stage.done,
            seconds=round(stage.seconds, 3),
            completed=completed,
        )

    def write(self, event: str, **fields: object) -> None:
        """Print one line: `event`, the elapsed time and `fields`."""
        with self._lock:
            line = {
                "event": event,
                "elapsed_s": round(time.perf_counter() - self._started_s, 3),
                **fields,
            }
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()

    def _write(self, event: str, **fields: object) -> None:
        if not self._quiet:
            self.write(event, **fields)
