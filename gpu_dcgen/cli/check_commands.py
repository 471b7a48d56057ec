"""Commands that prepare builds: they check, estimate and configure.

What they do is implemented elsewhere, and imported when a command runs, so that help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..monitoring.progress import JsonLinesTracker
from .app import Command, app
from .console import handle_errors, make_tracker, require_absent, show
from .options import (
    BackendOption,
    ConfigOption,
    DebugOption,
    InputArgument,
    JsonOption,
    OverwriteOption,
    SetOption,
    ThreadsOption,
    load_settings,
    local_path,
)


@app.command(cls=Command)
def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", parser=local_path, help="Folder of CSV or Parquet files with a log."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; else the configuration is printed."),
    ] = None,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Suggest a configuration for a folder of tables.

    Known logs are recognized by their columns, others guessed by names, types and first rows. What
    could not be decided is in the comments.
    """
    with handle_errors(debug):
        from ..preflight.suggestion import suggest_config

        text = suggest_config(folder)
        if output is None:
            typer.echo(text, nl=False)
        else:
            require_absent([output], overwrite)
            output.write_text(text, "utf-8")


@app.command(cls=Command)
def doctor(
    inputs: Annotated[
        Path | None,
        typer.Argument(
            metavar="INPUT", parser=local_path, help="Folder with the tables of a build."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", parser=local_path, help="Output of the build; checks that disk."
        ),
    ] = None,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Check this machine, its packages and the inputs.

    Exits with code 2 if a build cannot work. Low resources are warnings.
    """
    with handle_errors(debug):
        from ..preflight import doctor as preflight
        from .render_builds import render_checks

        checks = preflight.checks(inputs, output, config)
        show(render_checks(checks))
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(InputError.exit_code)


@app.command(cls=Command)
def plan(
    inputs: InputArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", parser=local_path, help="Output of the build; checks that disk."
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Estimate size, time and memory of a build.

    Runs the stages of the build on a sample of the customers, in seconds; nothing is published.
    """
    tracker = make_tracker(as_json)
    with handle_errors(debug, tracker):
        from dataclasses import asdict

        from ..dataset_generator.builder import select
        from ..preflight import plan as preflight
        from .render_builds import render_plan

        loaded = load_settings(config, overrides, {"resources.num_workers": threads})
        opened, reason = select(backend, loaded)
        tracker.message("info", f"backend: {opened.name} ({reason})")
        with tracker.stage("plan"):
            estimate = preflight.plan(inputs, loaded, opened, output)
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("planned", plan=asdict(estimate))
        else:
            show(render_plan(estimate))


@app.command(cls=Command)
def config(
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check that FILE is valid.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the settings as YAML (the default).")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Print every setting with its default and meaning."""
    with handle_errors(debug):
        import json

        from ..config import DatasetConfig, load_config, render_config

        if check is not None:
            load_config(check)
            typer.echo(f"{check}: valid.")
        if schema:
            typer.echo(json.dumps(DatasetConfig.model_json_schema(), indent=2))
        if yaml or not (schema or check):
            typer.echo(render_config(DatasetConfig()), nl=False)
