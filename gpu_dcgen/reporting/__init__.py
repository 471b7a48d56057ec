"""One HTML page on a finished dataset, made from its files alone: no network, no script, charts as SVG.

documents.py  the JSON files, and counts from the Parquet files that no JSON file holds
numbers.py    numbers with the place that they come from, names made fit for a page
samples.py    a few groups, read by row groups
pictures.py   charts
page.py       what the page says, section by section
page.html     how it stands on the page
style.css     how it looks, in light, in dark and on paper
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingPackageError, OutputError

if missing := [name for name in ("jinja2", "markupsafe", "vl_convert") if find_spec(name) is None]:
    raise MissingPackageError(
        f"A report needs a package that is not installed: no {missing[0]} was found.\nInstall it: pip install 'gpu-dcgen[report]'"
    )

N_SAMPLES = 6


def write_report(
    dataset: Path,
    output: Path | None = None,
    *,
    n_samples: int = N_SAMPLES,
    overwrite: bool = False,
) -> Path:
    """Write the page, and return its path: `output`, or a file beside the dataset (inside, an audit would not know it).

    Memory: one row group of samples at a time. InputError: no dataset; OutputError: the file is there, or cannot be written.
    """
    from .documents import read_documents
    from .page import render

    dataset = Path(dataset)
    path = (
        Path(output)
        if output
        else dataset.resolve().with_name(f"{dataset.resolve().name}.report.html")
    )
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} is there already.\nChoose another file with --output, or replace it with --overwrite."
        )
    text = render(read_documents(dataset), n_samples)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written to ({error.strerror}).\nChoose another file with --output."
        ) from error
    return path
