"""Output of the commands: consoles, progress trackers, error messages and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import typer
from rich.console import Console, RenderableType

from ..errors import DcgenError, OutputError, command_line_errors
from ..monitoring.progress import JsonLinesTracker, RichTracker
from .streams import ResilientStream, open_closed_streams, print_error

CommandTracker = RichTracker | JsonLinesTracker


class Terminated(BaseException):
    """SIGTERM was received; raised so that a command cleans up before it exits."""


def is_color_disabled() -> bool:
    """Return whether NO_COLOR is set (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def make_console(stream: ResilientStream) -> Console:
    """Make a console on a stream; it emits no escape codes when NO_COLOR is set."""
    file = cast(TextIO, stream)
    if is_color_disabled():
        # rich's own `no_color` still emits codes for bold and dim text and for progress bars.
        return Console(file=file, force_terminal=False, color_system=None)
    return Console(file=file)


def show(content: RenderableType) -> None:
    """Print to stdout; without trailing blanks unless stdout is a terminal.

    OutputError where stdout cannot be written to.
    """
    _show(content, _require_stdout)


def show_result(content: RenderableType) -> None:
    """Print what a command has written to files; a stdout that fails is a warning.

    The files are there, and tell the same.
    """
    _show(content, _warn_of_stdout)


def show_line(text: str) -> None:
    """Print a line about files that were written, as `show_result` does."""
    stream = ResilientStream(sys.stdout, _warn_of_stdout)
    stream.write(f"{text}\n")
    stream.flush()


def _show(content: RenderableType, handle: Callable[[OSError], None]) -> None:
    stream = ResilientStream(sys.stdout, handle)
    console = make_console(stream)
    if console.is_terminal:
        console.print(content, crop=False)
    else:
        with console.capture() as capture:
            console.print(content, crop=False)
        stream.write("\n".join(line.rstrip() for line in capture.get().split("\n")))
    stream.flush()


def _require_stdout(error: OSError) -> None:
    if error.errno != errno.EPIPE:
        raise OutputError(
            f"stdout: cannot be written to ({error.strerror}).\nRedirect it to another file."
        )
    # Whoever reads has read enough, as `head` does.
    raise typer.Exit(1)


def _warn_of_stdout(error: OSError) -> None:
    print_error(f"warning: stdout cannot be written to ({error.strerror}): nothing more is printed")


def make_tracker(as_json: bool, quiet: bool = False) -> CommandTracker:
    """Make the progress tracker: JSON lines on stdout, or text on stderr."""
    if as_json:
        stream = ResilientStream(sys.stdout, _warn_of_stdout)
        return JsonLinesTracker(cast(TextIO, stream), quiet=quiet)
    return make_text_tracker(quiet)


def make_text_tracker(quiet: bool = False) -> RichTracker:
    """Make the progress tracker that prints text on stderr."""
    return RichTracker(make_console(ResilientStream(sys.stderr)), quiet=quiet)


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
    open_closed_streams()
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
            print_error(traceback.format_exc().rstrip())
    else:
        return
    finally:
        signal.signal(signal.SIGTERM, previous)
    print_error(text)
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
