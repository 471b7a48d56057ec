"""The backends that tests run on: the CPU's, its strict twin, and a GPU's if available."""

from __future__ import annotations

import functools
from typing import Any

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend import select_backend
from gpu_dcgen.errors import BackendError
from tests.support.strict_backend import StrictBackend


@functools.cache
def open_gpu() -> tuple[Any, str]:
    """Return the GPU backend, or None, and the reason why there is none.

    One per process: it takes over the allocators.
    """
    try:
        return select_backend("gpu")[0], ""
    except BackendError as error:
        return None, str(error).splitlines()[0]


def list_backends() -> dict[str, Any]:
    """Return makers of the backends on which stages must agree, by name."""
    makers: dict[str, Any] = {"cpu": NumpyBackend, "strict": StrictBackend}
    if open_gpu()[0] is not None:
        makers["gpu"] = lambda: open_gpu()[0]
    return makers
