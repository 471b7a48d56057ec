"""The machines that the GPU's code is tested on: a device where one answers, and a stand-in
everywhere.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest

import gpu_dcgen.backend.gpu
from gpu_dcgen.backend.gpu.transfers import Transfers
from tests.support import libcudf_stand_in
from tests.support.strict_array import StrictArray, Syncs
from tests.support.strict_functions import StrictNamespace


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


class StrictTransfers(Transfers):
    """Transfers to the arrays of `StrictBackend`, which refuse what CuPy refuses."""

    def __init__(self) -> None:
        self._syncs = Syncs()
        super().__init__(StrictNamespace(self._syncs))

    def upload(self, values):
        self.to_device += np.asarray(values).nbytes
        return StrictArray(np.array(values), self._syncs)

    def download(self, array):
        self.to_host += array.nbytes
        return array.host.copy()


@pytest.fixture(params=["strict", "device"], scope="module")
def transfers(request):
    """Transfers to the device, or to strict arrays with `libcudf_stand_in` in libcudf's place."""
    if request.param == "device":
        yield Transfers(request.getfixturevalue("device"))
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_dcgen.backend.gpu, "libcudf", libcudf_stand_in, raising=False)
        yield StrictTransfers()
