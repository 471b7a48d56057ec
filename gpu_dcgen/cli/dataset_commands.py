"""Commands on finished datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import GateError, OutputError
from ..monitoring.progress import JsonLinesTracker
from .app import Command, app
from .console import handle_errors, make_tracker, show, show_line, show_result
from .options import (
    DatasetArgument,
    DebugOption,
    InputArgument,
    JsonOption,
    KeyOption,
    OverwriteOption,
    PathOrUrl,
    QuietOption,
    load_settings,
    local_path,
    path_or_url,
)


@app.command(cls=Command)
def probe(
    dataset: DatasetArgument,
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training steps of each model.")
    ] = 150,
    positives: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Positives of val and of test to rank, about."),
    ] = 6_000,
    seeds: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Models of each recipe, with seeds of their own."),
    ] = 5,
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Same dataset, options and machine: same figures."),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; else DATASET/probe.json."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train small models and compare them with simple rankings.

    Trains a two-tower model by each recipe: random negatives, in-batch negatives, the default
    recipe, with each source of hard negatives. Recall and NDCG are shown for all targets, new items
    and repurchases, beside those of popularity, item-item similarity and repurchase. An effect is
    called one only if its interval excludes 0 on val and test. Takes minutes on two cores.

    Needs PyTorch: pip install "gpu-dcgen[torch]"
    """
    tracker = make_tracker(as_json, quiet)
    with handle_errors(debug, tracker):
        from ..training.probe import probe as run_probe
        from ..training.recipes import TrainSettings
        from .render_datasets import render_probe

        result = run_probe(
            dataset,
            settings=TrainSettings(steps=steps),
            n_positives=positives,
            n_seeds=seeds,
            seed=seed,
            notify=lambda text: tracker.message("info", text),
        )
        path = output or dataset / "probe.json"
        path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("probed", **result)
        else:
            show(render_probe(result))


@app.command(cls=Command)
def export(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", parser=local_path, help="File to write.")
    ],
    form: Annotated[
        Literal["inter", "tuples"],
        typer.Option(
            "--format",
            metavar="inter|tuples",
            help="RecBole's atomic file, or tuples of texts.",
        ),
    ],
    split: Annotated[
        Literal["train", "val", "test"],
        typer.Option(metavar="train|val|test", help="Split to write."),
    ] = "train",
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a split in the format of another trainer.

    inter is RecBole's format; tuples (anchor, positive, negative_1, ...) are a Parquet file for
    sentence-transformers.

    Needs PyTorch: pip install "gpu-dcgen[torch]"
    """
    with handle_errors(debug):
        from ..training.exporters import export as run_export

        n_rows = run_export(dataset, output, form, split=split, overwrite=overwrite)
        show_line(f"Wrote {n_rows:,} rows to {output}.")


@app.command(cls=Command)
def audit(
    inputs: InputArgument,
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET", parser=local_path, help="The dataset that was built from INPUT."
        ),
    ],
    sample: Annotated[
        int, typer.Option(metavar="N", min=1, help="Groups per split to draw negatives for again.")
    ] = 500,
    parts: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Files per split to read, of a split in parts; else all."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of their choice.")] = 0,
    key: KeyOption = None,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; else DATASET/certificate.json."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory limit, such as 8GB; large arrays beyond it go to files beside the "
            "certificate.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check every rule of a dataset with independent code.

    Derives the dataset again from INPUT and writes a signed certificate of the rules that hold.
    Exits with code 3 if a rule does not hold.
    """
    tracker = make_tracker(as_json, quiet)
    with handle_errors(debug, tracker):
        from ..auditing import audit as run_audit
        from ..auditing import read_key
        from .render_datasets import render_audit

        path = certificate or dataset / "certificate.json"
        with _hold_arrays(path.parent, memory_limit):
            content = run_audit(
                inputs,
                dataset,
                sample=sample,
                parts=parts,
                seed=seed,
                key=read_key(key),
                certificate=path,
                progress=tracker,
            )
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("audited", certificate=content)
        elif not quiet:
            show_result(render_audit(content, path))
        if content["verdict"] != "holds":
            raise typer.Exit(GateError.exit_code)


@contextmanager
def _hold_arrays(folder: Path, memory_limit: str | None) -> Iterator[None]:
    """Keep the arrays of this thread within a limit, or in available memory; others are files.

    OutputError where the folder cannot be written or its disk is full.
    """
    from ..backend import select_backend
    from ..resources import available_memory

    settings = load_settings(None, None, {"resources.memory_limit": memory_limit})
    backend, _ = select_backend("cpu", memory_limit=settings.resources.memory_limit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with backend.hold_arrays(folder, available_memory()):
            yield
    except OSError as error:
        raise OutputError(
            f"{folder}: large arrays cannot be in files there ({error}).\n"
            "Name a place with room: --certificate FILE."
        ) from error


@app.command(cls=Command)
def explain(
    dataset: DatasetArgument,
    sample_id: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLE_ID", help="A sample of the dataset, such as train-0000000012-03."
        ),
    ],
    inputs: Annotated[
        Path,
        typer.Option(
            "--inputs",
            metavar="FOLDER",
            parser=local_path,
            help="The folder that the dataset was built from.",
        ),
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Explain how a positive got its negatives.

    Shows the candidates, their scores and how probable each was, and why others were refused.
    Exits with code 3 if the derived negatives differ from the dataset's.
    """
    with handle_errors(debug):
        import dataclasses
        import json

        from ..auditing import explain as run_explain
        from .render_datasets import render_explanation

        explanation = run_explain(dataset, sample_id, inputs)
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(explanation), ensure_ascii=False))
        else:
            show(render_explanation(explanation))
        if not explanation.agrees:
            raise typer.Exit(GateError.exit_code)


@app.command(cls=Command)
def verify(
    certificate: Annotated[
        Path,
        typer.Argument(
            metavar="CERTIFICATE", help="A certificate.json written by 'gpu-dcgen audit'."
        ),
    ],
    dataset: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The dataset that it covers.")
    ] = None,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Check a certificate and the files that it covers.

    Exits with code 3 if the certificate or a file was changed, or if a rule did not hold.
    """
    with handle_errors(debug):
        from ..auditing import read_key
        from ..auditing import verify as run_verify

        if problems := run_verify(certificate, dataset, read_key(key)):
            typer.echo("\n".join(problems))
            raise typer.Exit(GateError.exit_code)
        covered = f", and so is every file of {dataset}." if dataset else "."
        typer.echo(f"{certificate}: unchanged{covered}")


@app.command(cls=Command)
def report(
    dataset: DatasetArgument,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; else DATASET.report.html."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", min=0, help="Samples to show.")] = 6,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Write an HTML page about a dataset.

    Verdict, gates, losses of transactions by reason, splits, negatives and a few samples, without
    network access or scripts.

    Needs two more packages: pip install "gpu-dcgen[report]"
    """
    with handle_errors(debug):
        from ..reporting import write_report

        path = write_report(dataset, output, n_samples=samples, overwrite=overwrite)
        show_line(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB).")


@app.command(cls=Command)
def cards(
    dataset: DatasetArgument,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write to; else DATASET."),
    ] = None,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Describe a dataset for catalogs and for people.

    Writes README.md (a Hugging Face dataset card), croissant.json (MLCommons Croissant) and
    datacontract.yaml (Open Data Contract Standard).
    """
    with handle_errors(debug):
        from ..cards import write_cards

        paths = write_cards(dataset, output, overwrite=overwrite)
        show_line(f"Wrote {', '.join(map(str, paths))}.")


@app.command(cls=Command)
def validate(
    dataset: Annotated[
        PathOrUrl,
        typer.Argument(metavar="DATASET", parser=path_or_url, help="Folder or URL of a dataset."),
    ],
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Read every byte, to find a single flipped bit.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Check that a dataset's files are those that were published.

    Compares the size of every file and the footer of every Parquet file. Exits with code 3 if one
    is missing or damaged.
    """
    with handle_errors(debug):
        from ..storage.integrity import validate as find_problems

        if problems := find_problems(dataset, checksums=checksums):
            typer.echo("\n".join(problems))
            raise typer.Exit(GateError.exit_code)
        state = "present and unchanged." if checksums else "present and readable."
        typer.echo(f"{dataset}: every file is {state}")
