"""A build that died is gone on from, and what comes out is the same to the byte."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cpu_fallback import PartWriter
from gpu_dcgen import resources as limits
from gpu_dcgen.dataset_generator import build_key, pipeline
from gpu_dcgen.dataset_generator import builder as dataset_generator
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import GateError, InputError, OutputError
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.outputs import samples as parts
from gpu_dcgen.storage.integrity import validate
from gpu_dcgen.storage.staging import Staging
from tests.support.shops import random_shop, tiny_config, write_shop

NOW = 1_700_000_000_000_000_000
STAGES = (
    "load_shop",
    "build_interactions",
    "compute_features",
    "plan_splits",
    "compute_neighbors",
    "prepare_sources",
)
LATER = ("write_tables", "describe", "require_rows")


class Listener(ProgressTracker):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, level: str, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(pipeline.time, "time_ns", lambda: NOW)
    return write_shop(random_shop(1, n_users=16, n_items=24, n_rows=260), tmp_path / "input")


def made(inputs: Path, output: Path, **options: Any) -> dict[str, str]:
    """SHA-256 of the dataset's files but for those that tell of times."""
    settings = options.pop("config", tiny_config())
    folder = build(inputs, output, settings, backend="cpu", **options).output
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    telling = {
        "manifest.json",
        "quality_report.json",
        "build_log.jsonl",
        "junit.xml",
        "append.json",
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name not in telling
    }


def dies(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int = 1) -> list[int]:
    """Have the `at`-th call of a function end the build; returns what counts the calls."""
    original, calls = getattr(owner, name), []

    def dying(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("died")
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, dying)
    return calls


def died(inputs: Path, output: Path, **options: Any) -> None:
    with pytest.raises(RuntimeError, match="died"):
        made(inputs, output, **options)
    assert not output.exists()


@pytest.mark.parametrize("stage", STAGES + LATER)
def test_a_build_goes_on_after_the_last_finished_stage(stage, inputs, tmp_path, monkeypatch):
    straight = made(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        dies(patched, pipeline, stage)
        died(inputs, tmp_path / "output")
        calls = {name: dies(patched, pipeline, name, at=-1) for name in STAGES}
        assert made(inputs, tmp_path / "output", resume=True) == straight
    ran = [name for name in STAGES if calls[name]]
    first = STAGES.index(stage) if stage in STAGES else len(STAGES) - 1
    assert ran == list(STAGES[0 if stage == "build_interactions" else first :]), (
        "stages that had ended run again, or are missing"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output", "straight"]


@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_parts_that_were_closed_are_not_written_again(at, inputs, tmp_path, monkeypatch):
    straight, config = (
        made(inputs, tmp_path / "straight"),
        tiny_config(resources={"num_workers": 1}),
    )
    with monkeypatch.context() as patched:
        dies(patched, PartWriter, "_finish", at)
        died(inputs, tmp_path / "output", config=config)
        calls = dies(patched, PartWriter, "_finish", at=-1)
        assert made(inputs, tmp_path / "output", config=config, resume=True) == straight
    n_files = sum(name.endswith(".parquet") and name != "rejects.parquet" for name in straight)
    assert len(calls) == n_files - (at - 1)
    manifest = json.loads((tmp_path / "output" / "manifest.json").read_text())
    restored = {timing["stage"] for timing in manifest["timings"] if timing.get("restored")}
    assert restored - {"samples"} == {"interactions", "features", "splits", "similarity"}
    assert ("samples" in restored) == (at > 1)
    assert manifest["performance"]["restored_seconds"] > 0


def test_what_counts_is_the_same_after_a_resumption(inputs, tmp_path, monkeypatch):
    build(inputs, tmp_path / "straight", tiny_config(), backend="cpu")
    with monkeypatch.context() as patched:
        dies(patched, PartWriter, "_finish", 5)
        died(inputs, tmp_path / "output")
    build(inputs, tmp_path / "output", tiny_config(), backend="cpu", resume=True)
    one, other = (
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
        assert one[name] == other[name], name
    one, other = (
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
        assert one[name] == other[name], name


@pytest.mark.parametrize("damage", ["a bit", "gone", "longer"])
def test_a_part_that_is_not_as_it_was_closed_is_written_again(
    damage, inputs, tmp_path, monkeypatch
):
    straight = made(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        dies(patched, pipeline, "write_tables")
        died(inputs, tmp_path / "output")
    part = next((tmp_path / ".output.staging" / "data" / "train_dataset.parquet").iterdir())
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.unlink() if damage == "gone" else part.write_bytes(
        content if damage == "a bit" else part.read_bytes() + b"x"
    )
    calls = dies(monkeypatch, parts, "gather_groups", at=-1)
    assert made(inputs, tmp_path / "output", resume=True) == straight
    assert calls


def test_without_resume_a_build_begins_anew(inputs, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        dies(patched, pipeline, "write_tables")
        died(inputs, tmp_path / "output")
    calls = dies(monkeypatch, pipeline, "load_shop", at=-1)
    made(inputs, tmp_path / "output")
    assert calls


def test_resume_without_anything_to_go_on_from_is_a_build(inputs, tmp_path):
    assert made(inputs, tmp_path / "output", resume=True)


@pytest.mark.parametrize("change", ["inputs", "settings", "code", "machine"])
def test_another_build_is_not_gone_on_from(change, inputs, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        dies(patched, pipeline, "write_tables")
        died(inputs, tmp_path / "output")
    config = tiny_config()
    if change == "inputs":
        write_shop(random_shop(2, n_users=16, n_items=24, n_rows=260), inputs)
    elif change == "settings":
        config = tiny_config(seed=7)
    elif change == "code":
        monkeypatch.setattr(build_key, "digest_of_code", lambda: "newer")
    else:
        key = build_key.key_of_build
        monkeypatch.setattr(
            dataset_generator, "key_of_build", lambda *these: {**key(*these), "machine": "gpu"}
        )
    straight, told = made(inputs, tmp_path / "straight", config=config), Listener()
    assert made(inputs, tmp_path / "output", config=config, resume=True, progress=told) == straight
    assert f"--resume: begun anew: other {change} than those of the build that died" in told.texts


def test_settings_that_change_no_byte_do_not_matter(inputs, tmp_path, monkeypatch):
    straight = made(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        dies(patched, pipeline, "write_tables")
        died(inputs, tmp_path / "output")
    calls = dies(monkeypatch, pipeline, "load_shop", at=-1)
    config = tiny_config(
        resources={"num_workers": 1, "chunk_size": 3},
        quality={"thresholds": {"negative_quality": 0.1}},
    )
    assert made(inputs, tmp_path / "output", config=config, resume=True) == straight
    assert not calls


def test_who_looks_on_is_told_how_to_go_on(inputs, tmp_path, monkeypatch):
    dies(monkeypatch, pipeline, "write_tables")
    told = Listener()
    died(inputs, tmp_path / "output", progress=told)
    assert (
        f"what is finished is kept in {tmp_path / '.output.staging'}: the same command with --resume goes on"
        in told.texts
    )


def test_inputs_that_cannot_be_used_leave_nothing(inputs, tmp_path):
    config = tiny_config(filtering={"min_user_interactions": 500})
    with pytest.raises(InputError):
        made(inputs, tmp_path / "output", config=config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_a_gate_that_failed_may_be_judged_again(inputs, tmp_path, monkeypatch):
    strict = tiny_config(
        quality={
            "thresholds": {"negative_quality": 1.1},
            "severities": {"negative_quality": "critical"},
        }
    )
    with pytest.raises(GateError, match="negative_quality"):
        made(inputs, tmp_path / "output", config=strict)
    calls = dies(monkeypatch, parts, "gather_groups", at=-1)
    made(inputs, tmp_path / "output", resume=True)
    assert not calls


def test_inputs_that_change_while_they_are_read_are_refused(inputs, tmp_path, monkeypatch):
    load = pipeline.load_shop

    def change(*arguments: Any, **options: Any) -> Any:
        write_shop(random_shop(2, n_users=16, n_items=24, n_rows=260), inputs)
        return load(*arguments, **options)

    monkeypatch.setattr(pipeline, "load_shop", change)
    with pytest.raises(InputError, match="a file changed while it was read: SHA-256"):
        made(inputs, tmp_path / "output")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_an_interrupt_while_it_publishes_loses_nothing(inputs, tmp_path, monkeypatch):
    straight = made(inputs, tmp_path / "straight")
    with monkeypatch.context() as patched:
        dies(patched, Staging, "publish")
        died(inputs, tmp_path / "output")
    assert made(inputs, tmp_path / "output", resume=True) == straight
    assert validate(tmp_path / "output", checksums=True) == []


def test_a_disk_that_is_too_small_is_told_before_a_sample_is_made(inputs, tmp_path, monkeypatch):
    told, calls = Listener(), dies(monkeypatch, parts, "gather_groups", at=-1)
    free = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        OutputError, match="1,000 bytes are free on its disk, and the dataset needs about"
    ):
        made(inputs, tmp_path / "output", progress=told)
    assert any(text.startswith("resource_exhaustion: ") for text in told.texts)
    assert not calls
    monkeypatch.undo()
    assert made(inputs, tmp_path / "output", resume=True)
