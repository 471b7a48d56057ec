"""The file for Prometheus tells how the last build ended, and cannot fail a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError
from gpu_dcgen.monitoring.prometheus import write_prometheus
from gpu_dcgen.storage.integrity import validate
from tests.support.builds import RecordingTracker, fail_at_call
from tests.support.shops import tiny_config

pytest.importorskip("prometheus_client", reason="pip install '.[monitoring]'")


def test_a_build_writes_its_metrics(inputs, tmp_path):
    file = tmp_path / "build.prom"
    config = tiny_config(monitoring={"prometheus": str(file)})
    manifest = build(inputs, tmp_path / "output", config, backend="cpu").manifest
    metrics = file.read_text()
    assert "gpu_dcgen_build_success 1.0" in metrics
    assert 'gpu_dcgen_gate_passed{gate="no_user_overlap"' in metrics
    n_rows = float(manifest.counts["train"].rows)
    assert f'gpu_dcgen_samples{{split="train"}} {n_rows}' in metrics
    with pytest.raises(InputError):
        build(tmp_path, tmp_path / "other", config, backend="cpu")
    assert "gpu_dcgen_build_success 0.0" in file.read_text()


def test_a_failed_build_leaves_a_zero(tmp_path):
    tracker = RecordingTracker()
    write_prometheus(tmp_path / "a.prom", None, None, tracker)
    assert "gpu_dcgen_build_success 0.0" in (tmp_path / "a.prom").read_text()
    assert tracker.messages == []


@pytest.fixture
def vanishing(tmp_path, monkeypatch) -> Path:
    """A file whose folder is removed after the build has checked that it is there."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    load = pipeline.load_shop

    def load_and_remove(*args, **kwargs):
        if folder.exists():
            folder.rmdir()
        return load(*args, **kwargs)

    monkeypatch.setattr(pipeline, "load_shop", load_and_remove)
    return folder / "build.prom"


def warning_of(file: Path) -> tuple[str, str]:
    return (
        "warning",
        f"monitoring.prometheus: {file} cannot be written (No such file or directory).",
    )


def test_metrics_that_cannot_be_written_are_a_warning(inputs, tmp_path, vanishing):
    tracker = RecordingTracker()
    config = tiny_config(monitoring={"prometheus": str(vanishing)})
    result = build(inputs, tmp_path / "output", config, backend="cpu", progress=tracker)
    assert validate(result.output, checksums=True) == []
    assert tracker.messages[-1] == warning_of(vanishing)


def test_metrics_that_cannot_be_written_do_not_hide_the_error(
    inputs, tmp_path, vanishing, monkeypatch
):
    tracker = RecordingTracker()
    config = tiny_config(monitoring={"prometheus": str(vanishing)})
    fail_at_call(monkeypatch, pipeline, "write_tables")
    with pytest.raises(RuntimeError, match="died"):
        build(inputs, tmp_path / "output", config, backend="cpu", progress=tracker)
    assert tracker.messages[-1] == warning_of(vanishing)
