"""Whole builds with the GPU's kernels, run on the host, give the CPU's content."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.negative_sampler import calibration
from gpu_dcgen.similarity_computer import approximate as approximate_neighbors
from gpu_dcgen.similarity_computer.matrix import build_matrix
from tests.gpu.test_compilation import (
    ON_THE_HOST,
    copy_lists_twice,
    require_exactness,
    require_rounding,
    require_thrift,
    row_kernels,
)
from tests.support.shops import random_shop, tiny_config, write_shop
from tests.support.stage_shops import Stages

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed (pip install 'gpu-dcgen[test-cuda]'; no GPU is needed)",
)
if importlib.util.find_spec("numba_cuda") is not None:
    from tests.gpu.host_kernels import COMPILED, host_backend  # noqa: F401  a fixture

SHAPES = ("labeled_pair", "n_tuple", "triplet")


def test_whole_builds_give_the_cpus_content(tmp_path, host_backend, monkeypatch):  # noqa: F811
    """One test, because its kernels take longer to compile than its builds to run."""
    for name in ("STEP_PRODUCTS", "VECTOR_PRODUCTS", "CELL_PRODUCTS"):
        monkeypatch.setattr(approximate_neighbors, name, 0)  # searching is never too much work
    monkeypatch.setattr(calibration, "_MAX_POSITIVES", 20)  # so that a sample is taken
    for seed, shape in enumerate(SHAPES):
        shop = random_shop(seed + 3, n_users=20, n_items=24, n_rows=500, views=True)
        tables = write_shop(shop, tmp_path / f"input_{seed}")
        for engine in ("exact", "approximate"):
            config = tiny_config(output={"shape": shape}, similarity={"engine": engine})
            expected = build(tables, tmp_path / "expected", config, backend="cpu", overwrite=True)
            result = build(tables, tmp_path / "found", config, backend=host_backend, overwrite=True)
            assert result.manifest.digests == expected.manifest.digests, (seed, shape, engine)
            assert result.manifest.counts == expected.manifest.counts
    assert copy_lists_twice(host_backend) == [4, 5, 6, 4, 5, 6, 1, 2, 1, 2]
    named = {kernel.python.__name__ for kernel in row_kernels()} - ON_THE_HOST
    assert set(host_backend.n_runs) == named | {"find_neighbors"}
    for (name, _), kernel in COMPILED.items():
        assert ".target sm_90" in kernel.ptx
        if name == "find_neighbors":
            require_rounding(kernel.ptx)
        require_exactness(name, kernel.ptx)
        require_thrift(name, kernel.ptx, (9, 0))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_similarities_are_the_cpus(top_k, packed, host_backend):  # noqa: F811
    """With every selection, by digits or none, and either kind of sums."""
    cpu = NumpyBackend(1)
    stages = Stages(cpu, random_shop(5, n_users=40, n_items=60, n_rows=1500), tiny_config())
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, cpu)
    assert matrix.packed  # so sums and counts fit one number, and two as well
    sides = dataclasses.replace(matrix.by_item_and_user(cpu), packed=packed)
    limits = {"min_common_users": 2, "top_k": top_k}
    n_items = stages.log.n_items
    expected = cpu.find_similar_items(0, n_items, sides, **limits)
    result = host_backend.find_similar_items(0, n_items, sides, **limits)
    assert int(expected[0].sum()) >= (n_items // 2)
    for a, b in zip(result, expected, strict=True):
        assert a.dtype == b.dtype and a.tolist() == b.tolist()


@pytest.mark.slow
def test_online_retail_gives_the_cpus_digest(online_retail, tmp_path, host_backend):  # noqa: F811
    result = build(online_retail, tmp_path / "found", backend=host_backend).manifest
    expected = build(online_retail, tmp_path / "expected", backend="cpu").manifest
    assert result.digests == expected.digests
    assert result.content_digest.startswith("0a4feb56")
