"""Who hears of a build beside its ProgressTracker: event files, a webhook, Prometheus (contract, "Monitoring & Metrics")."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..config import MonitoringConfig
from ..contract.manifest import Manifest
from ..contract.quality_report import QualityReport
from ..errors import ConfigError
from .progress import JsonLinesTracker, Level, ProgressTracker

_ANSWER_S = 5.0  # how long a webhook may take


class TrackerGroup(ProgressTracker):
    """Hands everything to all its trackers, and keeps alerts: `alerts` is a list of {"level", "text"}."""

    def __init__(self, progress: ProgressTracker, sinks: Sequence[ProgressTracker]) -> None:
        self.alerts: list[dict[str, str]] = []
        self._sinks, self._all = list(sinks), [progress, *sinks]

    def add(self, sink: ProgressTracker) -> None:
        """Hand what comes to one more."""
        self._sinks.append(sink)
        self._all.append(sink)

    def remove(self, sink: ProgressTracker) -> None:
        """Tell it nothing more."""
        self._sinks.remove(sink)
        self._all.remove(sink)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        with ExitStack() as stack:
            for tracker in self._all:
                stack.enter_context(tracker.stage(name, total))
            yield

    def advance(self, n: int) -> None:
        for tracker in self._all:
            tracker.advance(n)

    def message(self, level: Level, text: str) -> None:
        if level != "info":
            self.alerts.append({"level": level, "text": text})
        for tracker in self._all:
            tracker.message(level, text)

    def completed(self, n_rows: int, output: Path) -> None:
        """generation_completion: told to the sinks; the caller of the build has its result."""
        for sink in self._sinks:
            sink.message(
                "info", f"generation_completion: {n_rows:,} samples, published as {output}"
            )

    def failed(self, error: BaseException) -> None:
        """generation_failure: told to the sinks; the caller of the build has the exception."""
        for sink in self._sinks:
            sink.message("critical", f"generation_failure: {type(error).__name__}: {error}")


class Webhook(ProgressTracker):
    """Posts alerts, milestones and the end of a build as JSON: {"source", "level", "text", "time"}.

    It never fails a build: after the first post that does not arrive it says so once, through `tell`, and stops.
    """

    def __init__(self, url: str, tell: ProgressTracker) -> None:
        self._url, self._tell, self._lock = url, tell, threading.Lock()
        self._alive = True

    def message(self, level: Level, text: str) -> None:
        if level != "info" or text.startswith("generation_completion"):
            self._post(level, text)

    def milestone(self, name: str, share: float) -> None:
        self._post("info", f"milestone_reached: {name}: {share:.0%}")

    def _post(self, level: Level, text: str) -> None:
        body = {"source": "gpu-dcgen", "level": level, "text": text, "time": time.time()}
        request = urllib.request.Request(
            self._url,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "User-Agent": "gpu-dcgen"},
        )
        with self._lock:
            if not self._alive:
                return
            try:
                with urllib.request.urlopen(request, timeout=_ANSWER_S):
                    pass
            except (OSError, ValueError) as error:  # never its text: it may hold the URL
                self._alive = False
                why = (
                    f"status {error.code}"
                    if isinstance(error, urllib.error.HTTPError)
                    else type(error).__name__
                )
                self._tell.message(
                    "warning",
                    f"monitoring: the webhook took no alert ({why}); it is told nothing more.",
                )


class EventFile(JsonLinesTracker):
    """An event file: what `JsonLinesTracker` writes, appended.

    It never fails a build: after the first event that cannot be written it says so, through `tell`, and stops.
    """

    def __init__(self, path: Path, tell: ProgressTracker) -> None:
        self._path, self._file, self._tell_of_end, self._alive = (
            path,
            path.open("a", encoding="utf-8"),
            tell,
            True,
        )
        super().__init__(self._file)

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, event: str, **fields: Any) -> None:
        if self._alive:
            try:
                super().write(event, **fields)
            except OSError as error:
                self._end(error)

    def close(self) -> None:
        """Write no more."""
        try:
            self._file.close()
        except OSError as error:  # of what is still in its buffer
            if self._alive:
                self._end(error)

    def _end(self, error: OSError) -> None:
        self._alive = False
        self._tell_of_end.message(
            "warning", f"{self._path}: takes no more events ({error.strerror})."
        )


def open_sinks(
    monitoring: MonitoringConfig, progress: ProgressTracker, files: ExitStack
) -> list[ProgressTracker]:
    """The sinks that the settings ask for; `files` closes them. ConfigError where one cannot work."""
    sinks: list[ProgressTracker] = []
    if monitoring.prometheus is not None:
        _require_prometheus(monitoring.prometheus)
    if monitoring.webhook_variable is not None:
        url = os.environ.get(monitoring.webhook_variable, "")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"monitoring.webhook_variable: the environment variable {monitoring.webhook_variable} holds no http(s) URL.\n"
                "Set it to the URL that alerts are posted to, or leave the setting out."
            )
        sinks.append(Webhook(url, progress))
    if monitoring.events is not None:
        try:
            sinks.append(files.enter_context(EventFile(monitoring.events, progress)))
        except OSError as error:
            text = f"monitoring.events: {monitoring.events} cannot be written to ({error.strerror}).\nChoose another file."
            raise ConfigError(text) from error
    return sinks


def _require_prometheus(path: Path) -> None:
    if path.suffix != ".prom" or not path.parent.is_dir():
        raise ConfigError(
            f"monitoring.prometheus: expected a file ending in .prom in a folder that exists, found {path}.\n"
            "Give the file in the folder that the textfile collector reads."
        )
    try:
        import prometheus_client  # noqa: F401 - only whether it is there
    except ImportError as error:
        text = "monitoring.prometheus needs prometheus_client, which is not installed.\npip install 'gpu-dcgen[monitoring]'"
        raise ConfigError(text) from error


def write_prometheus(path: Path, report: QualityReport | None, manifest: Manifest | None) -> None:
    """Write the text file in one rename; without a report and a manifest the build failed."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(
        name: str, text: str, values: Mapping[tuple[str, ...], float | None], *labels: str
    ) -> None:
        made = Gauge(f"gpu_dcgen_{name}", text, labels, registry=registry)
        for key, value in values.items():
            if value is not None:
                (made.labels(*key) if labels else made).set(value)

    gauge(
        "build_success",
        "1 when the last build was published, else 0",
        {(): float(manifest is not None)},
    )
    gauge(
        "build_timestamp_seconds",
        "When the last build ended, seconds since 1970",
        {(): time.time()},
    )
    if report is not None and manifest is not None:
        performance = manifest.performance
        gauge(
            "samples",
            "Samples written",
            {(split,): counts.rows for split, counts in manifest.counts.items()},
            "split",
        )
        for name in ("seconds", "samples_per_s", "peak_memory_bytes", "written_bytes"):
            gauge(
                f"build_{name}",
                f"performance.{name} of manifest.json",
                {(): getattr(performance, name)},
            )
        gauge(
            "quality_score",
            "Scores 0..1",
            {(name,): score for name, score in report.scores.items()},
            "score",
        )
        gates = [gate for gate in report.gates if gate.verdict in ("pass", "fail")]
        passed: dict[tuple[str, ...], float | None] = {
            (gate.name, gate.severity): float(gate.verdict == "pass") for gate in gates
        }
        gauge("gate_passed", "1 when the gate holds, else 0", passed, "gate", "severity")
        gauge(
            "gate_value",
            "What the gate measures",
            {(gate.name,): gate.value for gate in report.gates},
            "gate",
        )
        levels = [alert.level for alert in report.alerts]
        gauge(
            "alerts",
            "Alerts of the build",
            {(level,): levels.count(level) for level in ("critical", "warning")},
            "level",
        )
    write_to_textfile(str(path), registry)
