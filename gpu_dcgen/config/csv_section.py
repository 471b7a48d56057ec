"""The section `inputs.csv`: how files of comma-separated values are written."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from .section import Section

DELIMITERS = (",", ";", "\t", "|")  # that `auto` tells apart, the usual ones first


def _require_encoding(name: str) -> str:
    try:
        text = codecs.decode(b"", name)
    except (LookupError, ValueError) as error:
        raise ValueError(f"found {name!r}; expected an encoding such as utf-8 or cp1252") from error
    if not isinstance(text, str):  # base64, for example, is a codec of bytes
        raise ValueError(f"found {name!r}; expected an encoding of text such as utf-8 or cp1252")
    return name


Character = Annotated[str, Field(pattern=r"^[\x00-\x7f]$")]  # one, in ASCII
Encoding = Annotated[str, AfterValidator(_require_encoding)]


class CsvConfig(Section):
    """How CSV files are written: those that end in .csv or .tsv, compressed or not."""

    delimiter: Literal["auto"] | Character = "auto"
    """Character between fields. `auto`: a tab in .tsv files; in others, the one of comma,
    semicolon, tab and vertical bar that the header has most often outside of quotes."""
    quote: Character | None = '"'
    """Character around fields that hold delimiters or line breaks; within them it is doubled.
    Null: there are no quotes."""
    escape: Character | None = None
    """Character that takes the meaning from the next one, as in MySQL's exports. Null: none."""
    encoding: Encoding = "utf-8"
    """Encoding of the text, by Python's name; Excel may write cp1252 or utf-16. A byte-order mark
    is no part of the text."""
    decimal_point: Literal[".", ","] = "."
    """Character before the decimals of numbers."""
    null_values: tuple[str, ...] = ("",)
    """Texts that stand for no value, in every column. The default is the empty text alone: `None`
    and `NA` are values in some logs."""

    @model_validator(mode="after")
    def _require_different_characters(self) -> Self:
        characters = [self.delimiter, self.quote, self.escape]
        given = [character for character in characters if character is not None]
        if len(set(given)) < len(given) or {"\n", "\r"} & set(given):
            raise ValueError(
                f"found delimiter {self.delimiter!r}, quote {self.quote!r} and escape "
                f"{self.escape!r}; expected different characters, none of them a line break"
            )
        return self
