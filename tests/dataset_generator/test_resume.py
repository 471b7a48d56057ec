"""An interrupted build resumes, and its files are the same to the byte."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cpu_fallback import PartWriter
from gpu_dcgen import resources as limits
from gpu_dcgen.dataset_generator import build_key, pipeline, run
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import GateError, InputError, OutputError
from gpu_dcgen.outputs import part_writer
from gpu_dcgen.storage.integrity import validate
from gpu_dcgen.storage.staging import Staging
from tests.support.builds import (
    RecordingTracker,
    build_and_hash,
    fail_at_call,
    write_small_shop,
)
from tests.support.shops import tiny_config

STAGES = (
    "load_shop",
    "build_interactions",
    "compute_features",
    "plan_splits",
    "compute_neighbors",
    "find_candidates",
)
LATER = ("write_tables", "describe", "require_rows")


def build_until_it_dies(inputs: Path, output: Path, **options: Any) -> None:
    with pytest.raises(RuntimeError, match="died"):
        build_and_hash(inputs, output, **options)
    assert not output.exists()


@pytest.mark.parametrize("stage", STAGES + LATER)
def test_a_build_goes_on_after_the_last_finished_stage(stage, inputs, tmp_path, monkeypatch):
    config = tiny_config(output={"hard_candidates": True})
    straight = build_and_hash(inputs, tmp_path / "straight", config=config)
    with monkeypatch.context() as patched:
        fail_at_call(patched, pipeline, stage)
        build_until_it_dies(inputs, tmp_path / "output", config=config)
        calls = {name: fail_at_call(patched, pipeline, name, at=-1) for name in STAGES}
        again = build_and_hash(inputs, tmp_path / "output", config=config, resume=True)
        assert again == straight and "hard_candidates.parquet" in again
    ran = [name for name in STAGES if calls[name]]
    first = STAGES.index(stage) if stage in STAGES else len(STAGES)
    assert ran == list(STAGES[0 if stage == "build_interactions" else first :]), (
        "stages that had ended run again, or are missing"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output", "straight"]


@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_parts_that_were_closed_are_not_written_again(at, inputs, tmp_path, monkeypatch):
    straight, config = (
        build_and_hash(inputs, tmp_path / "straight"),
        tiny_config(resources={"num_workers": 1}),
    )
    with monkeypatch.context() as patched:
        fail_at_call(patched, PartWriter, "_finish", at)
        build_until_it_dies(inputs, tmp_path / "output", config=config)
        calls = fail_at_call(patched, PartWriter, "_finish", at=-1)
        assert build_and_hash(inputs, tmp_path / "output", config=config, resume=True) == straight
    n_files = sum(name.endswith(".parquet") and name != "rejects.parquet" for name in straight)
    assert len(calls) == n_files - (at - 1)
    manifest = json.loads((tmp_path / "output" / "manifest.json").read_text())
    restored = {timing["stage"] for timing in manifest["timings"] if timing.get("restored")}
    stages = {"interactions", "features", "splits", "similarity", "candidates"}
    assert restored - {"samples"} == stages
    assert ("samples" in restored) == (at > 1)
    assert manifest["performance"]["restored_seconds"] > 0


def test_what_counts_is_the_same_after_a_resumption(inputs, tmp_path, monkeypatch):
    build(inputs, tmp_path / "straight", tiny_config(), backend="cpu")
    with monkeypatch.context() as patched:
        fail_at_call(patched, PartWriter, "_finish", 5)
        build_until_it_dies(inputs, tmp_path / "output")
    build(inputs, tmp_path / "output", tiny_config(), backend="cpu", resume=True)
    straight_content, resumed_content = (
        json.loads((tmp_path / name / "quality_report.json").read_text())
        for name in ("straight", "output")
    )
    for name in (
        "scores",
        "labels",
        "completeness",
        "distributions",
        "popularity",
        "segments",
        "funnel",
    ):
        assert straight_content[name] == resumed_content[name], name
    straight_content, resumed_content = (
        json.loads((tmp_path / name / "manifest.json").read_text())
        for name in ("straight", "output")
    )
    for name in (
        "digests",
        "content_digest",
        "ledger",
        "negatives",
        "counts",
        "generated_at",
        "inputs",
        "warnings",
    ):
        assert straight_content[name] == resumed_content[name], name


@pytest.mark.parametrize("damage", ["a bit", "gone", "longer"])
def test_a_part_that_is_not_as_it_was_closed_is_written_again(
    damage, inputs, tmp_path, monkeypatch
):
    straight = build_and_hash(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        fail_at_call(patched, pipeline, "write_tables")
        build_until_it_dies(inputs, tmp_path / "output")
    part = next((tmp_path / ".output.staging" / "data" / "train_dataset.parquet").iterdir())
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.unlink() if damage == "gone" else part.write_bytes(
        content if damage == "a bit" else part.read_bytes() + b"x"
    )
    calls = fail_at_call(monkeypatch, part_writer, "gather_groups", at=-1)
    assert build_and_hash(inputs, tmp_path / "output", resume=True) == straight
    assert calls


def test_without_resume_a_build_begins_anew(inputs, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        fail_at_call(patched, pipeline, "write_tables")
        build_until_it_dies(inputs, tmp_path / "output")
    calls = fail_at_call(monkeypatch, pipeline, "load_shop", at=-1)
    build_and_hash(inputs, tmp_path / "output")
    assert calls


def test_resume_without_anything_to_go_on_from_is_a_build(inputs, tmp_path):
    assert build_and_hash(inputs, tmp_path / "output", resume=True)


@pytest.mark.parametrize("change", ["inputs", "settings", "code", "backend"])
def test_another_build_does_not_resume(change, inputs, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        fail_at_call(patched, pipeline, "write_tables")
        build_until_it_dies(inputs, tmp_path / "output")
    config = tiny_config()
    if change == "inputs":
        write_small_shop(inputs, seed=2)
    elif change == "settings":
        config = tiny_config(seed=7)
    elif change == "code":
        monkeypatch.setattr(build_key, "digest_of_code", lambda: "newer")
    else:
        compute = build_key.compute_build_key
        monkeypatch.setattr(
            run, "compute_build_key", lambda *these: {**compute(*these), "backend": "gpu"}
        )
    straight, tracker = (
        build_and_hash(inputs, tmp_path / "straight", config=config),
        RecordingTracker(),
    )
    assert (
        build_and_hash(inputs, tmp_path / "output", config=config, resume=True, progress=tracker)
        == straight
    )
    assert (
        f"resume=True: starting over, {change} changed since the interrupted build" in tracker.texts
    )


def test_settings_that_change_no_byte_do_not_matter(inputs, tmp_path, monkeypatch):
    straight = build_and_hash(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        fail_at_call(patched, pipeline, "write_tables")
        build_until_it_dies(inputs, tmp_path / "output")
    calls = fail_at_call(monkeypatch, pipeline, "load_shop", at=-1)
    config = tiny_config(
        resources={"num_workers": 1, "chunk_size": 3},
        quality={"thresholds": {"negative_quality": 0.1}},
    )
    assert build_and_hash(inputs, tmp_path / "output", config=config, resume=True) == straight
    assert not calls


def test_an_interrupted_build_says_how_to_continue(inputs, tmp_path, monkeypatch):
    fail_at_call(monkeypatch, pipeline, "write_tables")
    tracker = RecordingTracker()
    build_until_it_dies(inputs, tmp_path / "output", progress=tracker)
    staging = tmp_path / ".output.staging"
    text = f"partial results are in {staging}; rerun with resume=True to continue"
    assert text in tracker.texts


def test_a_resumed_build_reports_what_it_reuses(inputs, tmp_path, monkeypatch):
    config = tiny_config(resources={"num_workers": 1})
    with monkeypatch.context() as patched:
        fail_at_call(patched, PartWriter, "_finish", at=3)
        build_until_it_dies(inputs, tmp_path / "output", config=config)
    tracker = RecordingTracker()
    build_and_hash(inputs, tmp_path / "output", config=config, resume=True, progress=tracker)
    (text,) = [text for text in tracker.texts if text.startswith("resume=True")]
    stages = "interactions, features, splits, similarity, candidates"
    assert re.fullmatch(
        rf"resume=True: reused stages {stages} and 2 of \d+ sample files; saved \d+\.\d s", text
    )


def test_inputs_that_cannot_be_used_leave_nothing(inputs, tmp_path):
    config = tiny_config(filtering={"min_user_interactions": 500})
    with pytest.raises(InputError):
        build_and_hash(inputs, tmp_path / "output", config=config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_a_gate_that_failed_may_be_judged_again(inputs, tmp_path, monkeypatch):
    strict = tiny_config(
        quality={
            "thresholds": {"negative_quality": 1.1},
            "severities": {"negative_quality": "critical"},
        }
    )
    with pytest.raises(GateError, match="negative_quality"):
        build_and_hash(inputs, tmp_path / "output", config=strict)
    calls = fail_at_call(monkeypatch, part_writer, "gather_groups", at=-1)
    build_and_hash(inputs, tmp_path / "output", resume=True)
    assert not calls


def test_inputs_that_change_while_they_are_read_are_refused(inputs, tmp_path, monkeypatch):
    load = pipeline.load_shop

    def change(*arguments: Any, **options: Any) -> Any:
        write_small_shop(inputs, seed=2)
        return load(*arguments, **options)

    monkeypatch.setattr(pipeline, "load_shop", change)
    with pytest.raises(InputError, match="a file changed while it was read: its SHA-256"):
        build_and_hash(inputs, tmp_path / "output")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_an_interrupt_while_it_publishes_loses_nothing(inputs, tmp_path, monkeypatch):
    straight = build_and_hash(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        fail_at_call(patched, Staging, "publish")
        build_until_it_dies(inputs, tmp_path / "output")
    assert build_and_hash(inputs, tmp_path / "output", resume=True) == straight
    assert validate(tmp_path / "output", checksums=True) == []


def test_a_disk_that_is_too_small_is_told_before_a_sample_is_made(inputs, tmp_path, monkeypatch):
    tracker, calls = (
        RecordingTracker(),
        fail_at_call(monkeypatch, part_writer, "gather_groups", at=-1),
    )
    free = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        OutputError, match="1,000 bytes are free on its disk, and the dataset needs about"
    ):
        build_and_hash(inputs, tmp_path / "output", progress=tracker)
    assert any(text.startswith("resource_exhaustion: ") for text in tracker.texts)
    assert not calls
    monkeypatch.undo()
    assert build_and_hash(inputs, tmp_path / "output", resume=True)
