"""Tables that need no samples are written beside them, where threads and the disk allow it."""

from __future__ import annotations

import threading

import pytest

from gpu_dcgen import build
from gpu_dcgen.dataset_generator import pipeline
from tests.support.builds import fail_at_call
from tests.support.shops import tiny_config


@pytest.mark.parametrize(
    ("resources", "is_beside"),
    [
        ({"num_workers": 2}, True),
        ({"num_workers": 1}, False),
        ({"num_workers": 2, "max_disk_rate": "1GB"}, False),
    ],
)
def test_tables_are_written_beside_the_samples(resources, is_beside, inputs, tmp_path, monkeypatch):
    """Not where they and the samples would each write at the highest rate."""
    threads, write_tables = [], pipeline.write_tables

    def observe(*arguments):
        threads.append(threading.current_thread())
        return write_tables(*arguments)

    straight = build(inputs, tmp_path / "straight", tiny_config(), backend="cpu").manifest
    monkeypatch.setattr(pipeline, "write_tables", observe)
    manifest = build(
        inputs, tmp_path / "output", tiny_config(resources=resources), backend="cpu"
    ).manifest
    assert [thread is not threading.main_thread() for thread in threads] == [is_beside]
    assert manifest.content_digest == straight.content_digest


@pytest.mark.parametrize("name", ["write_samples", "write_tables", "trace_provenance"])
def test_whichever_of_them_fails_both_have_ended(name, inputs, tmp_path, monkeypatch):
    fail_at_call(monkeypatch, pipeline, name)
    with pytest.raises(RuntimeError, match="died"):
        build(inputs, tmp_path / "output", tiny_config(resources={"num_workers": 2}), backend="cpu")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aside")]
    assert not (tmp_path / "output").exists()
    monkeypatch.undo()
    config = tiny_config(resources={"num_workers": 2})
    again = build(inputs, tmp_path / "output", config, backend="cpu", resume=True).manifest
    straight = build(inputs, tmp_path / "straight", tiny_config(), backend="cpu").manifest
    assert again.content_digest == straight.content_digest
