"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cpu_fallback import NumpyBackend
from tests.strict_backend import StrictBackend


@pytest.fixture(params=[NumpyBackend, StrictBackend], ids=["cpu", "strict"])
def backend(request):
    """The machines that every stage must run on alike."""
    return request.param()


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """The folder of the Online Retail tables (UCI, CC BY 4.0), 396,337 real transactions; skips where they are not."""
    default = Path(__file__).parents[1].parent / "shared" / "data" / "online_retail"
    folder = Path(os.environ.get("GPU_DCGEN_ONLINE_RETAIL", default))
    if not (folder / "transactions.parquet").exists():
        pytest.skip("Online Retail is not here: set GPU_DCGEN_ONLINE_RETAIL to the folder of its three Parquet tables")
    return folder
