"""The base of the models of a dataset's JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import InputError
from .json_files import as_json, read_json

Number = int | float  # a union, so that 1 stays 1 and 1.0 stays 1.0 when a file is read and written


class Section(BaseModel):
    """An object in a JSON file of a dataset.

    Only keys that were given are written, so that a file that is read comes out as it was. Keys of
    other versions are allowed, and are written after those that this version knows.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        populate_by_name=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the object as it is in JSON."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Document(Section):
    """A JSON file of a dataset."""

    @classmethod
    def load(cls, path: Path, remedy: str = "Build the dataset again with this version.") -> Self:
        """Read the file. InputError where it is missing or not what this version needs.

        `remedy` is the advice at the end of that error.
        """
        return cls.parse(read_json(path, remedy), path, remedy)

    @classmethod
    def parse(
        cls,
        content: Mapping[str, Any],
        path: Path,
        remedy: str = "Build the dataset again with this version.",
    ) -> Self:
        """Check the JSON object that was read from `path`. InputError as of `load`."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{path}: is no {cls.__name__.lower()} of this version "
                f"({place}: {first['msg']}).\n{remedy}"
            ) from error

    def to_json(self) -> str:
        """Return the content of the file."""
        return as_json(self.to_dict())

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(self.to_json(), encoding="utf-8")
