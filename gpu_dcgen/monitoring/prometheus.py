"""Write metrics of a build to a file for Prometheus' textfile collector."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract.manifest import Manifest
from ..contract.quality_report import QualityReport
from ..errors import ConfigError
from .progress import ProgressTracker

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PERFORMANCE = ("seconds", "samples_per_s", "peak_memory_bytes", "written_bytes")


def require_prometheus(path: Path) -> None:
    """Raise ConfigError unless metrics can be written to `path`."""
    if path.suffix != ".prom" or not path.parent.is_dir():
        raise ConfigError(
            "monitoring.prometheus: expected a file ending in .prom in a folder that exists, "
            f"found {path}.\nGive a file in the folder that the textfile collector reads."
        )
    try:
        import prometheus_client  # noqa: F401 - only whether it is installed
    except ImportError as error:
        raise ConfigError(
            "monitoring.prometheus needs prometheus_client, which is not installed.\n"
            "pip install 'gpu-dcgen[monitoring]'"
        ) from error


def write_prometheus(
    path: Path, report: QualityReport | None, manifest: Manifest | None, progress: ProgressTracker
) -> None:
    """Write the metrics of a build that has ended, in one rename.

    Without a report and a manifest, the build failed. A file that cannot be written is reported to
    `progress` as a warning: it must neither end a build nor hide the error of one.
    """
    from prometheus_client import write_to_textfile

    try:
        write_to_textfile(str(path), _collect_metrics(report, manifest))
    except OSError as error:
        progress.message(
            "warning", f"monitoring.prometheus: {path} cannot be written ({error.strerror})."
        )


def _collect_metrics(report: QualityReport | None, manifest: Manifest | None) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def add_gauge(name: str, text: str, value: float) -> None:
        Gauge(f"gpu_dcgen_{name}", text, registry=registry).set(value)

    def add_gauges(
        name: str,
        text: str,
        labels: tuple[str, ...],
        values: Iterable[tuple[tuple[str, ...], float]],
    ) -> None:
        gauge = Gauge(f"gpu_dcgen_{name}", text, labels, registry=registry)
        for key, value in values:
            gauge.labels(*key).set(value)

    add_gauge("build_success", "1 when the last build was published, else 0", manifest is not None)
    add_gauge("build_timestamp_seconds", "End of the last build, seconds since 1970", time.time())
    if report is None or manifest is None:
        return registry
    rows = {(split,): counts.rows for split, counts in manifest.counts.items()}
    add_gauges("samples", "Samples written", ("split",), rows.items())
    for name in _PERFORMANCE:
        value = getattr(manifest.performance, name)
        add_gauge(f"build_{name}", f"performance.{name} of manifest.json", value)
    scores = {(name,): score for name, score in report.scores.items() if score is not None}
    add_gauges("quality_score", "Scores 0..1", ("score",), scores.items())
    passed = {
        (gate.name, gate.severity): float(gate.verdict == "pass")
        for gate in report.gates
        if gate.verdict in ("pass", "fail")
    }
    add_gauges("gate_passed", "1 when the gate holds, else 0", ("gate", "severity"), passed.items())
    measured = {(gate.name,): gate.value for gate in report.gates if gate.value is not None}
    add_gauges("gate_value", "Value that the gate measures", ("gate",), measured.items())
    levels = [alert.level for alert in report.alerts]
    n_alerts = {(level,): levels.count(level) for level in ("critical", "warning")}
    add_gauges("alerts", "Alerts of the build", ("level",), n_alerts.items())
    return registry
