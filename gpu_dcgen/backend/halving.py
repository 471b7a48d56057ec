"""Retry blocks that do not fit in memory at half size.

The result is the same; the number of halvings is in the manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import BackendError
from .protocol import Backend

Result = TypeVar("Result")
MAX_HALVINGS = 6  # if a 64th of a block does not fit, something else fills the memory


def split_on_out_of_memory(
    compute: Callable[[int, int], Result],
    first: int,
    last: int,
    description: str,
    backend: Backend,
    max_halvings: int = MAX_HALVINGS,
) -> list[Result]:
    """Return [compute(first, last)], or the results of its halves, in order, where it fails.

    A failure is one of `backend.out_of_memory_errors`; `compute` must leave nothing behind then.
    BackendError names `description` and the range that still did not fit.
    """
    try:
        return [compute(first, last)]
    except backend.out_of_memory_errors as error:
        if max_halvings == 0 or last - first < 2:
            raise BackendError(
                f"{description} {first}..{last - 1}: the {backend.name} backend ran out of memory "
                f"({error}).\n{backend.out_of_memory_hint}"
            ) from error
    # Outside of the handler, because the error's traceback holds the arrays of what failed.
    backend.release_memory()
    middle = (first + last) // 2
    return [
        result
        for half in ((first, middle), (middle, last))
        for result in split_on_out_of_memory(compute, *half, description, backend, max_halvings - 1)
    ]
