"""Blocks that do not fit into a machine's memory are done in halves: the result is the same, the count is in the manifest."""

from __future__ import annotations

from typing import Callable, TypeVar

from ..errors import BackendError
from .protocol import Backend

Result = TypeVar("Result")
MOST_HALVINGS = 6  # a block of which a 64th does not fit is not what fills the memory


def split_on_out_of_memory(
    make: Callable[[int, int], Result],
    first: int,
    last: int,
    what: str,
    backend: Backend,
    halvings: int = MOST_HALVINGS,
) -> list[Result]:
    """[make(first, last)], or the results of its halves in order where that raises one of `backend.out_of_memory_errors`.

    `make` must leave nothing behind when it raises. BackendError names `what` and the size that still did not fit.
    """
    try:
        return [make(first, last)]
    except backend.out_of_memory_errors as error:
        if halvings == 0 or last - first < 2:
            raise BackendError(
                f"{what} {first}..{last - 1}: the memory of the {backend.name} machine is full ({error}).\n{backend.out_of_memory_hint}"
            ) from error
    backend.release_memory()  # out of the handler: its traceback held the arrays of what failed
    middle = (first + last) // 2
    parts = ((first, middle), (middle, last))
    return [
        result
        for part in parts
        for result in split_on_out_of_memory(make, *part, what, backend, halvings - 1)
    ]
