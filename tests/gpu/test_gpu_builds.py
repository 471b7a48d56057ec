"""Whole builds on a device: the CPU's content in every shape, in little memory, and after planted
errors.
"""

from __future__ import annotations

import pytest

from gpu_dcgen.backend.gpu import launch
from gpu_dcgen.cli.render_builds import render_build
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import BackendError
from tests.dataset_generator.test_against_reference import VARIANTS
from tests.gpu.expected_digests import digest_files
from tests.support.backends import open_gpu
from tests.support.shops import random_shop, tiny_config, write_shop


@pytest.fixture(scope="module")
def gpu():
    """The GPU backend; skips aloud where there is none."""
    backend, reason = open_gpu()
    return backend or pytest.skip(f"no GPU tested here: {reason}")


@pytest.fixture
def tables(tmp_path):
    return write_shop(
        random_shop(4, n_users=30, n_items=30, n_rows=700, minutes=True, views=True),
        tmp_path / "input",
    )


@pytest.mark.parametrize("shape", ["labeled_pair", "n_tuple", "triplet"])
@pytest.mark.parametrize("order", ["chronological", "shuffled"])
def test_content_is_the_cpus(shape, order, tables, tmp_path, gpu):
    config = tiny_config(output={"shape": shape, "order": order})
    expected = build(tables, tmp_path / "cpu", config, backend="cpu").manifest
    manifest = build(tables, tmp_path / "gpu", config, backend=gpu).manifest
    assert manifest.digests == expected.digests
    assert digest_files(tmp_path / "gpu", expected.digests) == expected.digests
    assert manifest.counts == expected.counts
    assert manifest.backend.name == "gpu" and render_build(tmp_path / "gpu", manifest)


@pytest.mark.parametrize("variant", VARIANTS)
def test_content_is_the_cpus_under_other_settings(variant, tables, tmp_path, gpu):
    config = tiny_config(**VARIANTS[variant])
    expected = build(tables, tmp_path / "cpu", config, backend="cpu").manifest.to_dict()
    assert (
        build(tables, tmp_path / "gpu", config, backend=gpu).manifest.digests == expected["digests"]
    )


def test_real_data_gives_the_cpus_content(online_retail, tmp_path, gpu):
    expected = build(online_retail, tmp_path / "cpu", backend="cpu").manifest.to_dict()
    manifest = build(online_retail, tmp_path / "gpu", backend=gpu).manifest.to_dict()
    assert manifest["digests"] == expected["digests"]
    assert digest_files(tmp_path / "gpu", expected["digests"]) == expected["digests"]
    moved, rows = (
        manifest["backend"]["bytes_to_device"],
        sum(split["rows"] for split in manifest["counts"].values()),
    )
    assert moved < 64 * rows, "more than the inputs went to the device"


@pytest.mark.parametrize("n_left", [3, 40])
def test_device_memory_that_runs_out_halves_blocks(n_left, tables, tmp_path, gpu, monkeypatch):
    expected = build(tables, tmp_path / "cpu", tiny_config(), backend="cpu").manifest.to_dict()
    run, before = launch.run, gpu.memory_usage()["n_out_of_memory"]

    def full(kernel, n, *arrays, lanes):
        if kernel.python.__name__ == "draw_random" and n > n_left:
            raise MemoryError("std::bad_alloc: out_of_memory: planted")
        run(kernel, n, *arrays, lanes=lanes)

    monkeypatch.setattr(launch, "run", full)
    manifest = build(tables, tmp_path / "gpu", tiny_config(), backend=gpu).manifest.to_dict()
    assert manifest["digests"] == expected["digests"]
    assert gpu.memory_usage()["n_out_of_memory"] > before


def test_device_memory_that_never_suffices_is_an_error(tables, tmp_path, gpu, monkeypatch):
    def full(*arrays, **options):
        raise MemoryError("std::bad_alloc: out_of_memory: planted")

    monkeypatch.setattr(type(gpu), "find_similar_items", full)
    with pytest.raises(
        BackendError, match="^similarity, items 0..0: the gpu backend ran out of memory"
    ):
        build(tables, tmp_path / "gpu", tiny_config(), backend=gpu)
    assert not (tmp_path / "gpu").exists()


def test_a_device_error_is_not_swallowed(tables, tmp_path, gpu, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("cudaErrorIllegalAddress: planted")

    monkeypatch.setattr(launch, "run", broken)
    with pytest.raises(RuntimeError, match="planted"):
        build(tables, tmp_path / "gpu", tiny_config(), backend=gpu)
    assert not (tmp_path / "gpu").exists()
