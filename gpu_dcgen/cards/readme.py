"""Render README.md, a Hugging Face dataset card.

The front matter has every column's type, without which `datasets` refuses Arrow's dictionaries. The
numbers are those of manifest.json and quality_report.json.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..contract.schema import SPLITS, Column
from ..errors import escape_controls
from .description import DatasetDescription, Table, get_value_type, is_list

_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
)
_MAX_LENGTH = 120  # characters of a cell
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def render(dataset: DatasetDescription) -> str:
    """Render front matter and body."""
    front = yaml.safe_dump(_front_matter(dataset), sort_keys=False, allow_unicode=True, width=120)
    body = [
        *_introduce(dataset),
        *_show_use(),
        *_list_files(dataset),
        *_describe_splits(dataset),
        *_describe_negatives(dataset),
        *_describe_leakage(dataset),
        *_describe_limits(dataset),
        *_list_columns(dataset),
        *_show_origin(dataset),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(body) + "\n"


def escape(value: Any) -> str:
    """Return a value as text of a Markdown table: one line, escaped, of bounded length."""
    text = " ".join(escape_controls(str(value)).split())
    text = text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
    return _MARKDOWN.sub(r"\\\1", text)


def _front_matter(dataset: DatasetDescription) -> dict[str, Any]:
    n_samples = sum(table.n_rows or 0 for table in dataset.split_tables)
    samples = [
        {"split": _SPLIT_NAMES[str(table.split)], "path": table.pattern}
        for table in dataset.split_tables
    ]
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
            *(
                {"config_name": table.name, "data_files": table.pattern}
                for table in dataset.other_tables
            ),
        ],
        "dataset_info": [
            {
                "config_name": "samples",
                "features": _list_features(dataset, dataset.split_tables[0]),
            },
            *(
                {"config_name": table.name, "features": _list_features(dataset, table)}
                for table in dataset.other_tables
            ),
        ],
    }


def _list_features(dataset: DatasetDescription, table: Table) -> list[dict[str, Any]]:
    def render_feature(column: Column) -> dict[str, Any]:
        name, length = get_value_type(column).hugging_face, dataset.list_length(column)
        if not is_list(column):
            return {"name": column.name, "dtype": name}
        return {"name": column.name, "list": name, **({"length": length} if length else {})}

    return [render_feature(column) for column in table.columns]


def _introduce(dataset: DatasetDescription) -> list[str]:
    manifest = dataset.manifest
    return [
        "# Contrastive training data from a shop's purchase log",
        "The purchases of three periods, each with negatives: items that could have been bought at "
        "that time. Features are as known at the time of the purchase. Built by gpu-dcgen "
        f"{escape(manifest.generator.version)} at {escape(manifest.generated_at)}, following data "
        f"contract {escape(manifest.contract)}.",
        "**To be completed by the owner of the log:** its origin, its license (`license` above), "
        "whom the ids stand for, and permitted uses of the data. gpu-dcgen does not know them.",
    ]


def _show_use() -> list[str]:
    return [
        "## Usage",
        "```python\nfrom datasets import load_dataset\n\n"
        'samples = load_dataset("FOLDER_OR_REPOSITORY", "samples", split="validation")\n```',
        "pyarrow, polars, pandas and DuckDB also read the Parquet files. `croissant.json` "
        "describes the same files for MLCommons Croissant, `datacontract.yaml` for `datacontract "
        "test`.",
    ]


def _list_files(dataset: DatasetDescription) -> list[str]:
    rows = [
        [
            f"`{table.name}.parquet`",
            escape(table.row),
            "" if table.n_rows is None else f"{table.n_rows:,}",
            len(table.files),
        ]
        for table in dataset.tables
    ]
    return [
        "## Files",
        _render_table(("file", "one row is", "rows", "files"), rows),
        "`manifest.json` lists every file with its size and SHA-256.",
    ]


def _describe_splits(dataset: DatasetDescription) -> list[str]:
    counts, split = dataset.manifest.counts, dataset.manifest.split
    spans = split.windows.spans
    rows = [
        [
            name,
            escape(spans[k][0]),
            escape(spans[k][1]),
            f"{counts[name].groups:,}",
            f"{counts[name].rows:,}",
            f"{split.shares[name].users:,}",
        ]
        for k, name in enumerate(SPLITS)
    ]
    return [
        "## Splits",
        _render_table(("split", "from", "until", "positives", "rows", "users"), rows),
        f"The strategy is {escape(split.strategy)}. Times are in UTC; `until` is excluded, except "
        "in the last period.",
    ]


def _describe_negatives(dataset: DatasetDescription) -> list[str]:
    negatives, sampling = dataset.manifest.negatives, dataset.config.negative_sampling
    corpus = (
        "Items on sale at the time are drawn from"
        if sampling.corpus == "live"
        else "All items are drawn from"
    )
    rows = [[escape(name), f"{number:,}"] for name, number in negatives.by_source.items()]
    has_groups = negatives.relaxed is not None
    crossing = ", and differ in product group" if has_groups else ""
    return [
        "## Negatives",
        f"Each positive has {sampling.hard_negatives_per_positive} hard and "
        f"{sampling.random_negatives_per_positive} random negatives. Random ones are drawn "
        "uniformly; hard ones are the best by similarity, purchases of other buyers, price and "
        f"popularity{crossing}. {corpus}, never one that the user owns by the end of the split's "
        "period, nor twice in a group.",
        _render_table(("hard negatives by", "number"), rows),
        f"{negatives.verified:,} negatives were checked; {negatives.violations:,} broke a rule.",
    ]


def _describe_leakage(dataset: DatasetDescription) -> list[str]:
    users = (
        "A user may be in several splits."
        if not dataset.config.split.is_disjoint
        else "No user is in two splits, and each split has purchases of its own period only."
    )
    period = (
        "Similarities and price edges know the whole log: the last purchases of each user are val "
        "and test (strategy leave_last), and train holds later ones of other users."
        if dataset.config.split.strategy == "leave_last"
        else "Similarities, price edges and weights are computed from the training period alone."
    )
    return [
        "## Protection against leakage",
        "- Features of a row are computed from data strictly before its timestamp; purchases at "
        "the same time are not in each other's features.\n"
        f"- {period}\n"
        "- The features of positives and negatives are computed in the same way.\n"
        f"- {users}\n"
        "- `gpu-dcgen audit` checks all this again from the log and these files, with independent "
        "code, and writes `certificate.json`.",
    ]


def _describe_limits(dataset: DatasetDescription) -> list[str]:
    report = dataset.quality_report
    failed = [gate for gate in report.gates if gate.verdict not in ("pass", "info")]
    paragraphs = [
        "## Known limits",
        "- Columns of the role metadata describe how a row was generated. They are no features: "
        "most give the label away.\n"
        "- Negatives are items that the user did not buy; whether the user dislikes them is not "
        "known.\n"
        "- An item in the history is never a negative, so a model can detect repurchases "
        "(`is_repurchase`).",
        f"Quality gates: {len(report.gates)}, the verdict is {escape(report.verdict)}."
        + (" Not passed:" if failed else ""),
    ]
    if failed:
        rows = [
            [
                escape(value)
                for value in (
                    gate.name,
                    gate.metric,
                    gate.value,
                    gate.relation,
                    gate.threshold,
                    gate.severity,
                )
            ]
            for gate in failed
        ]
        head = ("gate", "metric", "value", "expected", "threshold", "severity")
        paragraphs.append(_render_table(head, rows))
    losses = ", ".join(
        f"{escape(reason)} {n:,}" for reason, n in dataset.manifest.ledger.losses.items() if n
    )
    paragraphs.append(f"Purchases that became no positive, by reason: {losses}.")
    return paragraphs


def _list_columns(dataset: DatasetDescription) -> list[str]:
    paragraphs = ["## Columns"]
    for table in (dataset.split_tables[0], *dataset.other_tables):
        title = f"`{table.name}`" if table.split is None else "Samples (train, val, test)"
        rows = [
            [
                f"`{column.name}`",
                escape(column.type),
                column.role,
                "yes" if column.nullable else "",
                escape(column.description),
            ]
            for column in table.columns
        ]
        head = ("column", "type", "role", "null", "meaning")
        paragraphs += [f"### {title}", _render_table(head, rows)]
    return paragraphs


def _show_origin(dataset: DatasetDescription) -> list[str]:
    manifest = dataset.manifest
    return [
        "## Reproducibility",
        f"Seed {escape(manifest.seed)}; content digest `{escape(manifest.content_digest)}`. "
        "`manifest.json` has every setting and version; the same inputs and settings give the same "
        "rows.",
    ]


def _render_table(head: tuple[str, ...], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)
