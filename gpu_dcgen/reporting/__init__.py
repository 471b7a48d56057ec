"""Report on a finished dataset as one HTML page, from its files alone.

The page has no script, loads nothing, and shows charts as SVG.

documents.py  the JSON files, and counts of the Parquet files that are in no JSON file
numbers.py    numbers with their place in the JSON files, and safe names
samples.py    a few groups, read by row groups
charts.py     charts as SVG
page.py       the content of the page, section by section
page.html     its layout
style.css     its style: light, dark and print
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingPackageError, spell_option
from ..storage.text_files import require_absent, write_text

if missing := [name for name in ("jinja2", "markupsafe", "vl_convert") if find_spec(name) is None]:
    raise MissingPackageError(
        f"A report needs a package that is not installed: {missing[0]}.\n"
        "Install it: pip install 'gpu-dcgen[report]'"
    )

N_SAMPLES = 6


def write_report(
    dataset: Path,
    output: Path | None = None,
    *,
    n_samples: int = N_SAMPLES,
    overwrite: bool = False,
) -> Path:
    """Write the page and return its path.

    The default `output` is a file beside the dataset; `gpu-dcgen audit` reports files that were
    added inside. Memory: one row group of samples at a time. Raises InputError where there is no
    dataset, OutputError where the file exists or cannot be written.
    """
    from .documents import read_documents
    from .page import render

    folder = Path(dataset).resolve()
    path = Path(output) if output else folder.with_name(f"{folder.name}.report.html")
    other_output = f"Choose another file with {spell_option('output')}"
    require_absent([path], overwrite, other_output)
    write_text(path, render(read_documents(Path(dataset)), n_samples), other_output)
    return path
