"""A worker takes tasks only of a build with its code, backend and staging folder."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen import __version__
from gpu_dcgen.cluster.tasks import Job, SharedResults, inspect
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import BackendError
from gpu_dcgen.samples import StageResults
from gpu_dcgen.storage.checkpoints import Checkpoints
from gpu_dcgen.storage.checksums import digest_of_code


@pytest.fixture
def job(tmp_path) -> Job:
    folder = tmp_path / "checkpoints" / "work-1"
    key = {"code": digest_of_code(), "backend": "cpu"}
    Checkpoints(folder.parent, NumpyBackend()).open(key)
    folder.mkdir()
    return Job(folder.parent, folder, key, "9.9", DatasetConfig())


def inspect_as(job: Job, **changes: Any) -> None:
    """Inspect on a worker of another process, for a job with changes."""
    memory = SimpleNamespace(memory_limit=None)
    here = SimpleNamespace(
        address="tcp://w:1", memory_manager=memory, state=SimpleNamespace(nthreads=1)
    )
    inspect(replace(job, **changes), here)


def test_a_worker_that_sees_the_build_and_runs_its_code_is_taken(job):
    inspect_as(job)


def test_a_worker_with_other_code_is_named_with_both_versions(job):
    code = job.key["code"][:12]
    expected = (
        rf"worker tcp://w:1 on .* runs gpu-dcgen {__version__} \(code {code}\), "
        r"the build 9.9 \(code abcabc"
    )
    with pytest.raises(BackendError, match=expected):
        inspect_as(job, key={**job.key, "code": "abcabc"})


def test_a_worker_that_does_not_see_the_output_is_named(job, tmp_path):
    with pytest.raises(
        BackendError,
        match=r"worker tcp://w:1 on .* cannot use .*elsewhere/work-1 \(No such file or directory\)",
    ):
        inspect_as(
            job, checkpoints=tmp_path / "elsewhere", folder=tmp_path / "elsewhere" / "work-1"
        )


def test_a_worker_with_a_folder_of_the_same_name_is_named(job):
    with pytest.raises(BackendError, match="finds another build in .*key.json"):
        inspect_as(job, key={**job.key, "inputs": []})


def test_shared_results_and_those_of_stages_are_all_results():
    results = StageResults(*(field.name for field in fields(StageResults)))
    stages = {
        "interactions": ("report", "interactions", "windows"),
        "features": "features",
        "splits": ("plan", "balance"),
        "similarity": "neighbors",
        "candidates": "candidates",
    }
    assert SharedResults.select(results).combine(stages) == results
