"""The base class of the configuration's sections, and the types that their fields share."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]  # 0..1, never per cent
Count = Annotated[int, Field(ge=1, le=2**62)]  # sums of a few counts still fit int64
Days = Annotated[int, Field(ge=1, le=100_000)]  # more days do not fit 64 bits as nanoseconds


class Section(BaseModel):
    """A section of the configuration: frozen, without unknown keys, a docstring per field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


def to_fraction(share: float) -> Fraction:
    """Return a setting as the decimal that was written, so that 0.29 of 100 is 29."""
    return Fraction(str(share))
