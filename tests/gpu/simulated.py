"""A build whose kernels run in numba's CUDA simulator, as `python -m tests.gpu.simulated INPUT
OUTPUT CONFIG`.

NUMBA_ENABLE_CUDASIM=1 turns it on. The machine is the CPU's but for its kernels, the configuration
`tests.support.shops.tiny_config` with CONFIG (JSON) laid over it. Prints the content digest, the
kernels that ran and how often as JSON. The simulator runs device code as Python, a thread a CUDA
thread.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

from cpu_fallback import NumpyBackend
from cpu_fallback.vectors import Limits
from gpu_dcgen.backend.gpu import launch, similarity
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.kernels import map_arrays
from tests.support.shops import tiny_config

LANES, BLOCK_THREADS = 8, 4


class SimulatedBackend(NumpyBackend):
    """The CPU machine with row kernels and similarity as simulated CUDA grids."""

    name = "simulated"
    scratch_order = "F"

    def __init__(self) -> None:
        super().__init__(1)
        self.ran: list[str] = []

    def single_threaded(self) -> "SimulatedBackend":
        return self

    def count_lanes(self, lane_bytes: int) -> int:
        return LANES

    def for_each(self, kernel: Any, n: int, *arrays: Any, lanes: int = 1) -> None:
        self.ran.append(kernel.python.__name__)
        shared = [map_arrays(_as_device_array, array) for array in arrays]
        launch.run(kernel, n, *shared, lanes=lanes, block_threads=BLOCK_THREADS)

    def find_similar_items(
        self, first: int, last: int, matrix: Any, *, min_common_users: int, top_k: int
    ) -> Any:
        self.ran.append("find_neighbors")
        grid = similarity.Grid(np, 2, block_threads=32, as_argument=_as_device_array)
        limits = Limits(min_common_users, top_k, matrix.packed)
        return similarity.find_similar_items(grid, first, last, matrix, limits)


def _as_device_array(value: Any) -> Any:
    """An array as one of the simulated device, not copied."""
    return FakeCUDAArray(value) if isinstance(value, np.ndarray) else value


def widen_integers() -> None:
    """Let arrays give int64 for narrower integers, as numba types what is computed from them; NumPy
    would stay narrow.
    """
    narrow = FakeCUDAArray.__getitem__

    def wide(self: FakeCUDAArray, index: Any) -> Any:
        value = narrow(self, index)
        return (
            np.int64(value) if isinstance(value, np.integer) and value.dtype != np.uint64 else value
        )

    FakeCUDAArray.__getitem__ = wide


def main(inputs: Path, output: Path, config: dict[str, Any]) -> None:
    widen_integers()
    warnings.filterwarnings(
        "ignore", "overflow encountered in scalar", RuntimeWarning
    )  # hashes wrap on purpose
    machine = SimulatedBackend()
    manifest = build(inputs, output, tiny_config(**config), backend=machine).manifest.to_dict()
    found = {
        "content_digest": manifest["content_digest"],
        "kernels": sorted(set(machine.ran)),
        "grids": len(machine.ran),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
