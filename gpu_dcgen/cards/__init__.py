"""Describe a finished dataset in cards for catalogs and for people.

They are written from the schema in `contract` and the dataset's own JSON files.

description.py  the dataset's tables with their columns, types, files and rows
readme.py       README.md, a Hugging Face dataset card
croissant.py    croissant.json, MLCommons Croissant
odcs.py         datacontract.yaml, Open Data Contract Standard

The same dataset gives the same cards, to the byte. They name nothing of the inputs: no file, no
path, no value of a category.
"""

from __future__ import annotations

from pathlib import Path

from ..contract.schema import CARDS
from ..errors import spell_option
from ..storage.text_files import require_absent, write_text


def write_cards(
    dataset: Path, output: Path | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Write the `CARDS` into the dataset's folder, or into `output`, and return their paths.

    Paths in the cards are relative to the dataset's folder. Raises InputError where there is no
    dataset, OutputError where a card exists or cannot be written.
    """
    from . import croissant, odcs, readme
    from .description import describe

    folder = Path(output or dataset)
    paths = [folder / name for name in CARDS]
    other_output = f"Choose another folder with {spell_option('output')}"
    require_absent(paths, overwrite, other_output)
    description = describe(Path(dataset))
    texts = [card.render(description) for card in (readme, croissant, odcs)]
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text, other_output)
    return paths
