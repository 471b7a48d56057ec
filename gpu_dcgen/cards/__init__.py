"""Cards of a finished dataset for catalogs and for people, all from the schema in `contract.py` and from its own JSON files.

described.py    the dataset's tables with their columns, types, files and rows
readme.py       README.md, a Hugging Face dataset card
croissant.py    croissant.json, MLCommons Croissant
odcs.py         datacontract.yaml, Open Data Contract Standard

The same dataset gives the same cards, to the byte. They name nothing of the inputs: no file, no path, no value of a category.
"""

from __future__ import annotations

from pathlib import Path

from ..contract.schema import CARDS
from ..errors import OutputError


def write_cards(
    dataset: Path, output: Path | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Write the `CARDS` into the dataset's folder, or into `output`, and return their paths.

    Their own paths are relative to the dataset's folder. InputError: no dataset; OutputError: a card is there, or cannot be
    written.
    """
    from . import croissant, odcs, readme
    from .described import describe

    folder = Path(output or dataset)
    paths = [folder / name for name in CARDS]
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise OutputError(
            f"{there[0]} is there already.\nChoose another folder with --output, or replace it with --overwrite."
        )
    described = describe(Path(dataset))
    texts = [readme.render(described), croissant.render(described), odcs.render(described)]
    for path, text in zip(paths, texts, strict=True):
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            remedy = "Choose another folder with --output."
            raise OutputError(
                f"{path}: cannot be written to ({error.strerror}).\n{remedy}"
            ) from error
    return paths
