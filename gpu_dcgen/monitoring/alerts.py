"""Send the events of a build to other receivers than its ProgressTracker.

These are the standard library's logging, an event file and a webhook (contract, "Monitoring &
Metrics"). None of them fails a build: where one cannot be reached, it is disabled with a warning.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..config import MonitoringConfig
from ..errors import ConfigError
from .progress import CountingTracker, JsonLinesTracker, Level, ProgressTracker, Stage
from .prometheus import require_prometheus

_TIMEOUT_S = 5.0  # of a webhook
_LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}

logger = logging.getLogger("gpu_dcgen")
# Without a handler of the application, nothing is printed.
logger.addHandler(logging.NullHandler())


class TrackerGroup(ProgressTracker):
    """Passes everything on to the tracker of the caller and to sinks.

    Attributes:
        alerts: The warnings and critical messages so far, as {"level", "text"}.
    """

    def __init__(self, progress: ProgressTracker, sinks: Sequence[ProgressTracker]) -> None:
        self.alerts: list[dict[str, str]] = []
        self._sinks, self._trackers = list(sinks), [progress, *sinks]

    def add(self, sink: ProgressTracker) -> None:
        """Add a sink."""
        self._sinks.append(sink)
        self._trackers.append(sink)

    def remove(self, sink: ProgressTracker) -> None:
        """Remove a sink."""
        self._sinks.remove(sink)
        self._trackers.remove(sink)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Enclose a stage for all trackers."""
        with ExitStack() as stack:
            for tracker in self._trackers:
                stack.enter_context(tracker.stage(name, total))
            yield

    def advance(self, n: int) -> None:
        """Count `n` more for all trackers."""
        for tracker in self._trackers:
            tracker.advance(n)

    def message(self, level: Level, text: str) -> None:
        """Report a message to all trackers."""
        if level != "info":
            self.alerts.append({"level": level, "text": text})
        for tracker in self._trackers:
            tracker.message(level, text)

    def completed(self, n_rows: int, output: Path | str) -> None:
        """Report generation_completion to the sinks; the caller of the build has its result."""
        for sink in self._sinks:
            sink.message(
                "info", f"generation_completion: {n_rows:,} samples, published as {output}"
            )

    def failed(self, error: BaseException) -> None:
        """Report generation_failure to the sinks; the caller of the build has the exception."""
        for sink in self._sinks:
            sink.message("critical", f"generation_failure: {type(error).__name__}: {error}")


class LogTracker(CountingTracker):
    """Sends messages, milestones and stages to the logger `gpu_dcgen`."""

    def message(self, level: Level, text: str) -> None:
        """Log a message."""
        logger.log(_LOG_LEVELS[level], "%s", text)

    def milestone(self, name: str, share: float) -> None:
        """Log a milestone."""
        logger.info("milestone_reached: %s: %.0f%%", name, 100 * share)

    def stage_began(self, stage: Stage) -> None:
        """Log the begin of a stage."""
        logger.info("stage_began: %s", stage.name)

    def stage_ended(self, stage: Stage, completed: bool) -> None:
        """Log the end of a stage."""
        end = "stage_ended" if completed else "stage_failed"
        logger.info("%s: %s: %.2f s", end, stage.name, stage.seconds)


class Webhook(CountingTracker):
    """Posts alerts, milestones and the end of a build as JSON.

    A body is {"source", "level", "text", "time"}. After the first post that fails, it reports a
    warning to `fallback` and posts nothing more.
    """

    def __init__(self, url: str, fallback: ProgressTracker) -> None:
        super().__init__()
        self._url, self._fallback = url, fallback
        self._post_lock, self._is_disabled = threading.Lock(), False

    def message(self, level: Level, text: str) -> None:
        """Post an alert, or the end of the build."""
        if level != "info" or text.startswith("generation_completion"):
            self._post(level, text)

    def milestone(self, name: str, share: float) -> None:
        """Post a milestone."""
        self._post("info", f"milestone_reached: {name}: {share:.0%}")

    def _post(self, level: Level, text: str) -> None:
        body = {"source": "gpu-dcgen", "level": level, "text": text, "time": time.time()}
        request = urllib.request.Request(
            self._url,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "User-Agent": "gpu-dcgen"},
        )
        with self._post_lock:
            if self._is_disabled:
                return
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                    pass
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._is_disabled = True
                # Not the error's text, which may contain the URL.
                cause = (
                    f"status {error.code}"
                    if isinstance(error, urllib.error.HTTPError)
                    else type(error).__name__
                )
                self._fallback.message(
                    "warning", f"monitoring: webhook failed ({cause}); disabled for this run."
                )


class EventFile(JsonLinesTracker):
    """Appends events to a file.

    After the first event that cannot be written, it reports a warning to `fallback` and writes
    nothing more.
    """

    def __init__(self, path: Path, fallback: ProgressTracker) -> None:
        self._path, self._fallback, self._is_disabled = path, fallback, False
        self._file = path.open("a", encoding="utf-8")
        super().__init__(self._file)

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, event: str, **fields: object) -> None:
        """Append an event."""
        if not self._is_disabled:
            try:
                super().write(event, **fields)
            except OSError as error:
                self._disable(error)

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:  # of what is in its buffer
            if not self._is_disabled:
                self._disable(error)

    def _disable(self, error: OSError) -> None:
        self._is_disabled = True
        self._fallback.message(
            "warning",
            f"monitoring: {self._path} cannot be written ({error.strerror}); "
            "disabled for this run.",
        )


def open_sinks(
    monitoring: MonitoringConfig, progress: ProgressTracker, files: ExitStack
) -> list[ProgressTracker]:
    """Open the sinks that the settings ask for, and the log; `files` closes them.

    ConfigError where one cannot work. Later failures are reported to `progress` and the log.
    """
    sinks: list[ProgressTracker] = [LogTracker()]
    fallback = TrackerGroup(progress, sinks[:1])
    if monitoring.prometheus is not None:
        require_prometheus(monitoring.prometheus)
    if monitoring.webhook_variable is not None:
        url = os.environ.get(monitoring.webhook_variable, "")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                "monitoring.webhook_variable: the environment variable "
                f"{monitoring.webhook_variable} does not hold an http(s) URL.\n"
                "Set it to the URL to post alerts to, or leave the setting out."
            )
        sinks.append(Webhook(url, fallback))
    if monitoring.events is not None:
        try:
            sinks.append(files.enter_context(EventFile(monitoring.events, fallback)))
        except OSError as error:
            raise ConfigError(
                f"monitoring.events: {monitoring.events} cannot be written to ({error.strerror}).\n"
                "Choose another file."
            ) from error
    return sinks
