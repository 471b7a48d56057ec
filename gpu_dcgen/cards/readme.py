"""README.md: a Hugging Face dataset card; its numbers are those of manifest.json and quality_report.json.

The front matter names every column's type: `datasets` would refuse Arrow's dictionaries without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from ..contract.schema import SPLITS, Column
from ..errors import escape_controls
from .described import Described, Table, is_list, value_type

_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"))  # fmt: skip
_LONGEST = 120  # characters of a cell
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def render(described: Described) -> str:
    """Front matter and body."""
    front = yaml.safe_dump(_front_matter(described), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{front}---\n\n" + "\n\n".join(_body(described)) + "\n"


def cell(value: Any) -> str:
    """A value as text of a Markdown table: one line, escaped, of bounded length."""
    text = " ".join(escape_controls(str(value)).split())
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return _MARKDOWN.sub(r"\\\1", text)


def _front_matter(described: Described) -> dict[str, Any]:
    n_samples = sum(table.n_rows or 0 for table in _splits(described))
    others = [table for table in described.tables if table not in _splits(described)]
    samples = [{"split": _split_name(table), "path": table.pattern} for table in _splits(described)]
    return {
        "license": "other",
        "license_name": "to-be-stated-by-the-owner-of-the-log",
        "pretty_name": "Contrastive training data from a shop's purchase log",
        "size_categories": [
            next((name for limit, name in _SIZES if n_samples < limit), "100B<n<1T")
        ],
        "task_categories": ["tabular-classification"],
        "tags": ["recommender-systems", "contrastive-learning", "hard-negatives", "gpu-dcgen"],
        "configs": [
            {"config_name": "samples", "default": True, "data_files": samples},
            *({"config_name": table.name, "data_files": table.pattern} for table in others),
        ],
        "dataset_info": [
            {"config_name": "samples", "features": _features(described, _splits(described)[0])},
            *(
                {"config_name": table.name, "features": _features(described, table)}
                for table in others
            ),
        ],
    }


def _splits(described: Described) -> list[Table]:
    return [table for table in described.tables if table.name.removesuffix("_dataset") in SPLITS]


def _split_name(table: Table) -> str:
    return _SPLIT_NAMES[table.name.removesuffix("_dataset")]


def _features(described: Described, table: Table) -> list[dict[str, Any]]:
    def feature(column: Column) -> dict[str, Any]:
        name, length = value_type(column).hugging_face, described.length(column)
        if not is_list(column):
            return {"name": column.name, "dtype": name}
        return {"name": column.name, "list": name, **({"length": length} if length else {})}

    return [feature(column) for column in table.columns]


def _body(described: Described) -> Iterable[str]:
    manifest, report, config = described.manifest, described.quality_report, described.config
    sampling = config.negative_sampling
    yield "# Contrastive training data from a shop's purchase log"
    yield (
        "Every purchase of three periods beside negatives that could have been bought at that moment, with features as they were "
        f"known then. Built by gpu-dcgen {cell(manifest['generator']['version'])} at {cell(manifest['generated_at'])} after the "
        f"data contract {cell(manifest['contract'])}."
    )
    yield (
        "**To be filled in by the owner of the log:** where it is from, its license (`license` above), whom its ids stand for, "
        "and what the data may be used for. gpu-dcgen knows none of it."
    )
    yield "## Load it"
    yield (
        "```python\nfrom datasets import load_dataset\n\n"
        'samples = load_dataset("FOLDER_OR_REPOSITORY", "samples", split="validation")\n```'
    )
    yield (
        "pyarrow, polars, pandas and DuckDB read the Parquet files as they are. `croissant.json` describes the same files for "
        "MLCommons Croissant, `datacontract.yaml` for `datacontract test`."
    )
    yield "## Files"
    rows = [[f"`{t.name}.parquet`", cell(t.row), "" if t.n_rows is None else f"{t.n_rows:,}", len(t.files)]
            for t in described.tables]  # fmt: skip
    yield _table(("file", "one row is", "rows", "files"), rows)
    yield "`manifest.json` lists every file with its size and SHA-256."
    yield "## Splits"
    yield _table(("split", "from", "until", "positives", "rows", "users"), _split_rows(described))
    yield f"The strategy is {cell(manifest['split']['strategy'])}; a period ends before its end, the last one with it (UTC)."
    yield "## Negatives"
    yield (
        f"Each positive has {sampling.hard_negatives_per_positive} hard and {sampling.random_negatives_per_positive} random "
        "negatives. Random ones are drawn uniformly; hard ones are the best by similarity, purchases of other buyers, price and "
        "popularity, and differ in product group. "
        + (
            "Items on sale at the time are drawn from"
            if sampling.corpus == "live"
            else "All items are drawn from"
        )
        + ", never one that the user owns by the end of the split's period, nor twice in a group."
    )
    by_source = manifest["negatives"]["by_source"]
    yield _table(
        ("hard negatives by", "number"),
        [[cell(name), f"{number:,}"] for name, number in by_source.items()],
    )
    yield f"{manifest['negatives']['verified']:,} negatives were checked; {manifest['negatives']['violations']:,} broke a rule."
    yield "## What holds against leakage"
    yield (
        "- Features of a row are of what was strictly before its timestamp; purchases at the same time do not see each other.\n"
        "- Similarities, price edges and weights are of the training period alone.\n"
        "- A positive's features are computed as a negative's are.\n"
        + (
            "- A user may be in several splits.\n"
            if config.split.strategy == "temporal"
            else "- No user is in two splits, and each split has purchases of its own period only.\n"
        )
        + "- `gpu-dcgen audit` proves this again from the log and these files, by other code, and writes `certificate.json`."
    )
    yield "## Known limits"
    yield (
        "- Columns of the role metadata say how a row was made. They are no features: most give the label away.\n"
        "- Negatives are items that the user did not buy; whether the user disliked them, nobody knows.\n"
        "- An item in the history is never a negative, so a model can tell repurchases (`is_repurchase`)."
    )
    short = [gate for gate in report["gates"] if gate["verdict"] not in ("pass", "info")]
    yield f"Quality gates: {len(report['gates'])}, the verdict is {cell(report['verdict'])}." + (
        " Not passed:" if short else ""
    )
    if short:
        names = ("name", "metric", "value", "relation", "threshold", "severity")
        yield _table(
            ("gate", "metric", "value", "expected", "threshold", "severity"),
            [[cell(g[n]) for n in names] for g in short],
        )
    yield "What became of the purchases: " + ", ".join(
        f"{cell(name)} {number:,}" for name, number in manifest["ledger"].items() if isinstance(number, int) and number
    ) + "."  # fmt: skip
    yield "## Columns"
    for table in [
        _splits(described)[0],
        *(t for t in described.tables if t not in _splits(described)),
    ]:
        title = "Samples (train, val, test)" if table in _splits(described) else f"`{table.name}`"
        rows = [
            [f"`{c.name}`", cell(c.type), c.role, "yes" if c.nullable else "", cell(c.description)]
            for c in table.columns
        ]
        yield f"### {title}"
        yield _table(("column", "type", "role", "null", "meaning"), rows)
    yield "## Repeat it"
    yield (
        f"Seed {cell(manifest['seed'])}; content digest `{cell(manifest['content_digest'])}`. "
        "`manifest.json` has every setting and version; the same inputs and settings give the same rows."
    )


def _split_rows(described: Described) -> list[list[Any]]:
    split, counts = described.manifest["split"], described.manifest["counts"]
    edges = [split["windows"][name] for name in ("first", "cut1", "cut2", "last")]
    found = []
    for k, name in enumerate(SPLITS):
        groups, rows, users = (
            counts[name]["groups"],
            counts[name]["rows"],
            split["shares"][name]["users"],
        )
        found.append(
            [name, cell(edges[k]), cell(edges[k + 1]), f"{groups:,}", f"{rows:,}", f"{users:,}"]
        )
    return found


def _table(head: tuple[str, ...], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)
