"""The machines that tests run on: the CPU's, its strict twin, and a GPU where one answers."""

from __future__ import annotations

import functools
from typing import Any

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.select import select_backend
from gpu_dcgen.errors import BackendError
from tests.support.strict_backend import StrictBackend


@functools.cache
def gpu() -> tuple[Any, str]:
    """The GPU machine (one a process: it takes over the allocators), or None and the reason why there is none."""
    try:
        return select_backend("gpu")[0], ""
    except BackendError as error:
        return None, str(error).splitlines()[0]


def every_machine() -> dict[str, Any]:
    """Makers of the machines that stages must run on alike, by name."""
    makers: dict[str, Any] = {"cpu": NumpyBackend, "strict": StrictBackend}
    if gpu()[0] is not None:
        makers["gpu"] = lambda: gpu()[0]
    return makers
