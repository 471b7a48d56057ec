"""Whether two backends agree: `is_same` compares results of stages to the last bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tests.support.strict_array import StrictArray


def is_same(left: Any, right: Any) -> bool:
    """Compare types and values, in tuples, lists, dicts and dataclasses too.

    Arrays are compared by dtype, shape and bytes, whichever backend they are on. A tuple equals
    the list of the same values.
    """
    left, right = _on_host(left), _on_host(right)
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        left, right = np.asarray(left), np.asarray(right)
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, (tuple, list)):
        return (
            isinstance(right, (tuple, list))
            and len(left) == len(right)
            and all(map(is_same, left, right))
        )
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(is_same(left[key], right[key]) for key in left)
        )
    if type(left) is not type(right):
        return False
    if dataclasses.is_dataclass(left):
        return all(
            is_same(getattr(left, field.name), getattr(right, field.name))
            for field in dataclasses.fields(left)
        )
    return bool(left == right)


def _on_host(value: Any) -> Any:
    if isinstance(value, StrictArray):
        return value.host
    return value.get() if type(value).__module__.partition(".")[0] == "cupy" else value
