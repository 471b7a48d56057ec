"""Fixtures that many tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from gpu_dcgen.preflight import doctor
from tests.support.backends import list_backends, open_gpu
from tests.support.builds import NOW, write_small_shop
from tests.support.command_line import FakeBuild

# A busy machine is no failure: no example has a time limit.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Files with tests of a minute and more: begun first, they do not keep one worker busy at the end.
LONG_FILES = ("test_packaging.py", "test_host_kernels.py", "test_docs.py", "test_first_light.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


def pytest_report_header() -> str:
    """Whether this run tests the GPU, said aloud."""
    machine, reason = open_gpu()
    return f"GPU: {machine.device.name}" if machine else f"GPU: NOT TESTED in this run: {reason}"


@pytest.fixture(params=list_backends().values(), ids=list_backends().keys())
def backend(request):
    """The machines that every stage must run on alike."""
    return request.param()


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """The folder of the Online Retail tables (UCI, CC BY 4.0), 396,337 real transactions; skips
    where they are not.

    GPU_DCGEN_ONLINE_RETAIL names it; without, a folder beside the clone is looked into.
    """
    beside = Path(__file__).parents[1] / ".." / "shared" / "data" / "online_retail"
    folder = Path(os.environ.get("GPU_DCGEN_ONLINE_RETAIL", beside))
    if not (folder / "transactions.parquet").exists():
        pytest.skip(
            "no Online Retail here: convert it (https://doi.org/10.24432/C5BW33) to "
            "articles.parquet, customers.parquet and transactions.parquet, with the columns of "
            "docs/guide/inputs.md, and set GPU_DCGEN_ONLINE_RETAIL to their folder"
        )
    return folder


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """The tables of a small shop; every build of the test starts at the same time."""
    monkeypatch.setattr("time.time_ns", lambda: NOW)
    return write_small_shop(tmp_path / "input")


@pytest.fixture
def fake_build(monkeypatch) -> FakeBuild:
    """The build of the command line, replaced; it records how it was called."""
    module = ModuleType("gpu_dcgen.dataset_generator.builder")
    module.build = FakeBuild()
    monkeypatch.setitem(sys.modules, "gpu_dcgen.dataset_generator.builder", module)
    monkeypatch.setattr(doctor, "prebuild", lambda inputs, output, config: [])
    return module.build
