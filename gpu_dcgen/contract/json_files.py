"""Read and write the JSON files of a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from .folds import suggest_fold

REBUILD = "Copy the dataset again, or build it again."


def read_json(path: Path, remedy: str = REBUILD) -> dict[str, Any]:
    """Read a JSON object of a dataset.

    Raises InputError where the file is missing, cannot be read or holds no object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        remedy = suggest_fold(path.parent, remedy)
        raise InputError(
            f"{path}: does not exist; expected a dataset that 'gpu-dcgen build' wrote.\n{remedy}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).\n{remedy}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}).\n{remedy}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a JSON object, found {type(content).__name__}.\n{remedy}"
        )
    return content


def as_json(content: Any) -> str:
    """Format JSON for people and programs: indented, Unicode as it is."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write a file of JSON as `as_json` formats it."""
    path.write_text(as_json(content), encoding="utf-8")
