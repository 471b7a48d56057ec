"""Output of the commands: consoles, progress trackers, error messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console, RenderableType

from ..errors import DcgenError, OutputError, command_line_errors
from ..monitoring.progress import JsonLinesTracker, RichTracker

CommandTracker = RichTracker | JsonLinesTracker


class Terminated(BaseException):
    """SIGTERM was received; raised so that a command cleans up before it exits."""


def is_color_disabled() -> bool:
    """Return whether NO_COLOR is set (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def make_console(*, stderr: bool = False) -> Console:
    """Make a console on stdout or stderr that emits no escape codes when NO_COLOR is set."""
    if is_color_disabled():
        # rich's own `no_color` still emits codes for bold and dim text and for progress bars.
        return Console(stderr=stderr, force_terminal=False, color_system=None)
    return Console(stderr=stderr)


def show(content: RenderableType) -> None:
    """Print to stdout; without trailing blanks unless stdout is a terminal."""
    console = make_console()
    if console.is_terminal:
        console.print(content, crop=False)
        return
    with console.capture() as capture:
        console.print(content, crop=False)
    typer.echo("\n".join(line.rstrip() for line in capture.get().split("\n")), nl=False)


def make_tracker(as_json: bool, quiet: bool = False) -> CommandTracker:
    """Make the progress tracker: JSON lines on stdout, or text on stderr."""
    if as_json:
        return JsonLinesTracker(sys.stdout, quiet=quiet)
    return RichTracker(make_console(stderr=True), quiet=quiet)


def require_absent(paths: list[Path], overwrite: bool) -> None:
    """Raise OutputError if one of the paths exists, unless `overwrite` is set."""
    if not overwrite and (existing := [path for path in paths if path.exists()]):
        raise OutputError(
            f"{existing[0]} already exists.\nChoose another folder, or replace it with --overwrite."
        )


@contextmanager
def handle_errors(debug: bool, tracker: CommandTracker | None = None) -> Iterator[None]:
    """Print an error raised inside to stderr and exit with its code.

    With `debug` the traceback is printed as well. A JSON tracker also writes an `error` event.
    """
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        with command_line_errors():
            yield
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        text, code = "Interrupted.", 130
    except Terminated:
        text, code = "Terminated.", 128 + signal.SIGTERM
    except Exception as error:
        text, code = _describe_error(error)
        if debug:
            traceback.print_exc()
    else:
        return
    finally:
        signal.signal(signal.SIGTERM, previous)
    typer.echo(text, err=True)
    if isinstance(tracker, JsonLinesTracker):
        tracker.write("error", exit_code=code, text=text)
    raise typer.Exit(code)


def _raise_terminated(*_: object) -> None:
    # A second SIGTERM ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _describe_error(error: Exception) -> tuple[str, int]:
    """Return the text and the exit code of an error."""
    if isinstance(error, DcgenError):
        return str(error), error.exit_code
    return f"Unexpected {type(error).__name__}: {error}\nRerun with --debug for a traceback.", 1
