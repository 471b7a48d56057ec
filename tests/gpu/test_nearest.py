"""Engines of nearest vectors on the GPU are refused, with a remedy, where they would find nothing.

That their searches find what the CPU's do needs a device, but for `search_brute`
(`tests/similarity_computer/test_approximate.py`).
"""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest

from gpu_dcgen.backend.gpu import nearest

VECTORS = np.zeros((3, 4), np.float32)


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    """What stands for CuPy, which only the searches themselves use."""
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))


def install(monkeypatch, **libraries):
    """Let these modules, and no other engine, be installed."""
    find_spec = importlib.util.find_spec
    for name in ("faiss", "cuml"):
        monkeypatch.setitem(sys.modules, name, libraries.get(name))
    monkeypatch.setattr(
        nearest.importlib.util,
        "find_spec",
        lambda name: libraries.get(name) if name in ("faiss", "cuml") else find_spec(name),
    )


def faiss_of(n_devices):
    return types.SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: n_devices)


@pytest.mark.parametrize(
    ("faiss", "k", "text"),
    [
        (None, 10, "FAISS is not installed.\nInstall faiss-gpu, or set it to brute, cuml or auto."),
        (types.SimpleNamespace(), 10, "this FAISS finds no GPU (faiss-cpu?).\nInstall faiss-gpu"),
        (faiss_of(0), 10, "this FAISS finds no GPU (faiss-cpu?).\nInstall faiss-gpu"),
        (faiss_of(1), 2048, "FAISS returns fewer than 2048 neighbors on a GPU, and 2048 "),
    ],
    ids=["missing", "of the CPU", "without a device", "too many neighbors"],
)
def test_faiss_that_would_find_nothing_is_refused(faiss, k, text, monkeypatch):
    install(monkeypatch, faiss=faiss)
    with pytest.raises(ImportError) as error:
        nearest.build_nearest_search(VECTORS, k, "faiss")
    assert str(error.value).startswith(text)


def test_faiss_with_a_device_is_taken(monkeypatch):
    install(monkeypatch, faiss=faiss_of(1))
    assert nearest.import_faiss(2047) is sys.modules["faiss"]


def test_cuml_that_is_missing_is_refused(monkeypatch):
    install(monkeypatch)
    with pytest.raises(ImportError, match="cuML is not installed.\nInstall cuml-cu12 or cuml-cu13"):
        nearest.build_nearest_search(VECTORS, 10, "cuml")


def test_auto_takes_brute_force_unless_there_are_very_many_vectors(monkeypatch):
    install(monkeypatch, faiss=faiss_of(1))
    monkeypatch.setattr(nearest, "_build_faiss_search", lambda vectors, k, faiss: None)
    assert nearest.build_nearest_search(VECTORS, 10, "auto")[0] == "brute"
    monkeypatch.setattr(nearest, "MAX_BRUTE_VECTORS", 2)
    assert nearest.build_nearest_search(VECTORS, 10, "auto")[0] == "faiss"
    assert nearest.build_nearest_search(VECTORS, 2048, "auto")[0] == "brute"
    install(monkeypatch)
    assert nearest.build_nearest_search(VECTORS, 10, "auto")[0] == "brute"
