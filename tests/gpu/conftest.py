"""The machines that the GPU's code is tested on: a device where one answers, and a stand-in
everywhere.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

import gpu_dcgen.backend.gpu
from gpu_dcgen.backend.gpu.transfers import Transfers
from tests.gpu.machines import StrictTransfers
from tests.support import libcudf_stand_in


@pytest.fixture(scope="session")
def device() -> ModuleType:
    """CuPy, with a device behind it; skips aloud where there is none."""
    for name in ("cupy", "pylibcudf"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no GPU tested here: {name} is not installed")
    import cupy

    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU tested here: {error}")
    if not n_devices:
        pytest.skip("no GPU tested here: the driver answers, but has no device")
    return cupy


@pytest.fixture(params=["strict", "device"], scope="module")
def transfers(request):
    """Transfers to the device, or to strict arrays with `libcudf_stand_in` in libcudf's place."""
    if request.param == "device":
        yield Transfers(request.getfixturevalue("device"))
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_dcgen.backend.gpu, "libcudf", libcudf_stand_in, raising=False)
        yield StrictTransfers()
