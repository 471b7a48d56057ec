"""The Typer application and the layout of its help.

Results go to stdout; progress, warnings and errors go to stderr. With --json, events go to stdout.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer
from typer.core import TyperCommand

from .console import is_color_disabled

if TYPE_CHECKING:
    # Typer ships its own copy of Click; these are the types of the methods overridden below.
    from typer._click import Context, HelpFormatter

if is_color_disabled():
    # numba formats errors with colorama, which writes an escape code when the process ends.
    os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

# A paragraph that begins with \b is printed without rewrapping; lines fit 76 columns.
_EPILOG = """\b
Examples:
  gpu-dcgen demo                                  build a real dataset
  gpu-dcgen build data/processed data/training    from your tables
  gpu-dcgen build tables out --seed 7 --set split.train_share=0.7
  gpu-dcgen append data/processed data/training   after the log has grown
  gpu-dcgen config > mine.yaml                    settings for --config
  gpu-dcgen doctor tables --output out            is everything ready?
  gpu-dcgen plan tables                           how large, how long?
  gpu-dcgen audit data/processed data/training    prove that nothing leaks
  gpu-dcgen report data/training                  one HTML page
  gpu-dcgen cards data/training                   metadata for catalogs
  gpu-dcgen probe data/training                   what does a model learn?

\b
Exit codes:
  0    success
  1    unexpected error
  2    unusable input, configuration, backend or output
  3    a critical quality gate failed, or a dataset or certificate is wrong
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)
"""


class Command(TyperCommand):
    """A command with arguments that are named by their metavars alone, as in `INPUT`."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Name required arguments without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def get_help_sections(self, ctx: Context) -> dict[str, list[tuple[str, str]]]:
        """Return names and help texts of the arguments and of the options, by heading."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is None:
                continue
            if param.param_type_name == "argument":
                name = param.metavar or param.name.upper()
                sections["Arguments"].append((name, record[1]))
            else:
                sections["Options"].append(record)
        return {title: records for title, records in sections.items() if records}

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the sections of arguments and of options."""
        for title, records in self.get_help_sections(ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)


app = typer.Typer(
    name="gpu-dcgen",
    help="Contrastive training data from a shop's purchase log.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "color": False if is_color_disabled() else None,
    },
)
