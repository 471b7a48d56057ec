"""Commands on finished datasets: prove, explain, report, describe, train a probe, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import GateError
from ..monitoring.progress import JsonLinesTracker
from .options import (
    Dataset,
    Debug,
    Inputs,
    Json,
    Key,
    Overwrite,
    Quiet,
    anywhere,
    app,
    exit_codes,
    here,
    show,
    tracker_for,
)


@app.command()
def probe(
    dataset: Dataset,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training split, for each kind of negatives.")
    ] = 3,
    positives: Annotated[
        int, typer.Option(min=1, help="Positives of val and of test to rank, at most.")
    ] = 10_000,
    seed: Annotated[
        int, typer.Option(min=0, help="Same dataset, options and machine: same figures.")
    ] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a small model and see what it learns.

    A two-tower model is trained with each kind of negatives, and its recall@50 and NDCG@10 stand beside those of
    popularity, item-item similarity and repurchase. Minutes on two cores. Needs PyTorch: pip install 'gpu-dcgen[torch]'.
    """
    tracker = tracker_for(as_json, quiet)
    with exit_codes(debug, tracker):
        from ..training.probe import probe as run
        from . import rendering as summary

        found = run(
            dataset,
            epochs=epochs,
            n_positives=positives,
            seed=seed,
            say=lambda text: tracker.message("info", text),
        )
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("probed", **found)
        else:
            show(summary.of_probe(found))


@app.command()
def export(
    dataset: Dataset,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", parser=here, help="File to write.")],
    form: Annotated[
        Literal["inter", "tuples"],
        typer.Option("--format", help="RecBole's atomic file, or tuples of texts."),
    ],
    split: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Which samples.")
    ] = "train",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Write a split for other trainers.

    inter is RecBole's; tuples (anchor, positive, negative_1, ...) are Parquet, as sentence-transformers takes them.
    Needs PyTorch: pip install 'gpu-dcgen[torch]'.
    """
    with exit_codes(debug):
        from ..training.exporters import export as write

        n_rows = write(dataset, output, form, split=split, overwrite=overwrite)
        typer.echo(f"Wrote {n_rows:,} rows to {output}.")


@app.command()
def audit(
    inputs: Inputs,
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", parser=here, help="The dataset that was built from INPUT."
        ),
    ],
    sample: Annotated[
        int, typer.Option(min=1, help="Groups a split whose negatives are drawn again.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Which groups these are.")] = 0,
    key: Key = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Where to write it; else OUTPUT/certificate.json.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Prove a dataset again, from its files and its inputs, by other code than the build's.

    Writes a signed certificate of what holds. Exit code 3 when a rule does not hold.
    """
    tracker = tracker_for(as_json, quiet)
    with exit_codes(debug, tracker):
        from ..auditing import audit, read_key
        from . import rendering as summary

        path = certificate or dataset / "certificate.json"
        found = audit(
            inputs,
            dataset,
            sample=sample,
            seed=seed,
            key=read_key(key),
            certificate=path,
            progress=tracker,
        )
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("audited", certificate=found)
        elif not quiet:
            show(summary.of_audit(found, path))
        if found["verdict"] != "holds":
            raise typer.Exit(GateError.exit_code)


@app.command()
def explain(
    dataset: Annotated[Path, typer.Argument(metavar="OUTPUT", parser=here, help="A dataset.")],
    sample_id: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLE_ID", help="One of its samples, such as train-0000000012-03."
        ),
    ],
    inputs: Annotated[
        Path,
        typer.Option(
            "--inputs", metavar="PATH", parser=here, help="The folder that it was built from."
        ),
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say why a positive got its negatives: candidates, scores, what was refused and why.

    Exit code 3 when what is derived again is not what was written.
    """
    with exit_codes(debug):
        import json

        from ..audit.explain import as_json as plain
        from ..audit.explain import explain
        from . import rendering as summary

        found = explain(dataset, sample_id, inputs)
        if as_json:
            typer.echo(json.dumps(plain(found), ensure_ascii=False))
        else:
            show(summary.of_explanation(found))
        if not found.agrees:
            raise typer.Exit(GateError.exit_code)


@app.command()
def verify(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="A certificate.json of 'gpu-dcgen audit'.")
    ],
    dataset: Annotated[
        Path | None, typer.Argument(metavar="[OUTPUT]", help="The dataset it speaks of.")
    ] = None,
    key: Key = None,
    debug: Debug = False,
) -> None:
    """Check a certificate's signature, and that the dataset's files are those that were audited.

    Exit code 3 when something was changed, or when the audit found a rule that does not hold.
    """
    with exit_codes(debug):
        from ..auditing import read_key, verify

        if found := verify(certificate, dataset, read_key(key)):
            typer.echo("\n".join(found))
            raise typer.Exit(GateError.exit_code)
        typer.echo(
            f"{certificate}: unchanged"
            + (f", and so is every file of {dataset}." if dataset else ".")
        )


@app.command()
def report(
    dataset: Dataset,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it; else DATASET.report.html."),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Samples to show.")] = 6,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page on a dataset.

    Verdict, gates, what became of every transaction, splits, negatives, and a few real samples; no network, no script.
    Needs two packages more: pip install 'gpu-dcgen[report]'.
    """
    with exit_codes(debug):
        from ..reporting import write_report

        path = write_report(dataset, output, n_samples=samples, overwrite=overwrite)
        typer.echo(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB).")


@app.command()
def cards(
    dataset: Dataset,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write them; else DATASET.")
    ] = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Describe a dataset for catalogs and for people.

    Writes README.md (a Hugging Face dataset card), croissant.json (MLCommons Croissant) and datacontract.yaml (Open Data
    Contract Standard), from the schema and the dataset's own JSON files.
    """
    with exit_codes(debug):
        from ..cards import write_cards

        typer.echo(
            "Wrote " + ", ".join(map(str, write_cards(dataset, output, overwrite=overwrite))) + "."
        )


@app.command()
def validate(
    dataset: Annotated[
        Any,
        typer.Argument(metavar="DATASET", parser=anywhere, help="Folder, or URL, of a dataset."),
    ],
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Read every byte: finds a single flipped bit.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Check that a dataset's files are those that were published.

    Looks at the size of every file and the footer of every Parquet file. Exit code 3 when one is missing or damaged.
    """
    with exit_codes(debug):
        from ..storage.integrity import validate as problems_of

        if problems := problems_of(dataset, checksums=checksums):
            typer.echo("\n".join(problems))
            raise typer.Exit(GateError.exit_code)
        typer.echo(
            f"{dataset}: every file is there"
            + (", and not a bit of it changed." if checksums else " and can be read.")
        )
