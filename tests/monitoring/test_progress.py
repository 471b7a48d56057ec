"""What a build reports, and what the trackers print of it."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from gpu_dcgen import ProgressTracker
from gpu_dcgen.monitoring.progress import CountingTracker, JsonLinesTracker, RichTracker

ROOT = Path(__file__).parents[2]


def watch_a_build(tracker):
    with tracker.stage("similarity"):
        tracker.message("info", "12 items")
    with tracker.stage("samples", total=100):
        for _ in range(10):
            tracker.advance(10)
        tracker.message("warning", "few hard negatives [0.3, 0.8]")


def plain_console():
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def test_the_base_tracker_accepts_everything_and_says_nothing(capsys):
    tracker = ProgressTracker()
    watch_a_build(tracker)
    tracker.milestone("samples", 0.5)
    assert capsys.readouterr() == ("", "")


def test_plain_lines_name_each_stage_its_milestones_and_warnings():
    console = plain_console()
    watch_a_build(RichTracker(console))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "  12 items"
    assert lines[1].startswith("similarity") and lines[1].endswith(" s")
    assert lines[2:4] == ["  samples: 50% done", "  samples: 75% done"]
    assert lines[4] == "warning: few hard negatives [0.3, 0.8]"
    assert lines[5].startswith("samples") and " 100 " in lines[5] and lines[5].endswith("/s")
    assert len(lines) == 6


def test_plain_lines_hold_no_escape_codes_and_are_never_wrapped():
    console = plain_console()
    RichTracker(console).message("warning", "word " * 60)
    text = console.file.getvalue()
    assert "\x1b" not in text and text.count("\n") == 1


def test_quiet_keeps_warnings_and_critical_messages():
    console = plain_console()
    tracker = RichTracker(console, quiet=True)
    watch_a_build(tracker)
    tracker.message("critical", "disk full")
    assert console.file.getvalue().splitlines() == [
        "warning: few hard negatives [0.3, 0.8]",
        "critical: disk full",
    ]


def terminal(**options):
    options = {"color_system": "standard", "width": 140, "_environ": {}, **options}
    return Console(file=io.StringIO(), force_terminal=True, **options)


def test_a_terminal_sees_bar_rate_time_left_and_color():
    tracker = RichTracker(console := terminal())
    with tracker.stage("samples", total=100):
        tracker.advance(40)
        tracker._bars.refresh()
        tracker.message("warning", "few hard negatives")
    text = console.file.getvalue()
    assert " 40%" in text and "/s" in text and "left" in text
    assert "\x1b[33m" in text  # the warning's yellow
    assert tracker._bars is None and not tracker._tasks


def test_a_terminal_without_color_sees_plain_lines():
    """NO_COLOR: neither colors nor the escape codes that move the cursor of a bar."""
    plain, no_color = plain_console(), terminal(no_color=True)
    for console in (plain, no_color):
        tracker = RichTracker(console)
        with tracker.stage("samples", total=100):
            tracker.advance(100)
            tracker.message("critical", "disk full")
    lines = [console.file.getvalue().splitlines()[:3] for console in (plain, no_color)]
    assert (
        lines[0]
        == lines[1]
        == ["  samples: 50% done", "  samples: 75% done", "critical: disk full"]
    )
    assert "\x1b" not in no_color.file.getvalue()


BUILD = """
from gpu_dcgen.cli.console import make_tracker
tracker = make_tracker(as_json=False)
with tracker.stage("similarity"):
    tracker.message("info", "12 items  ")
with tracker.stage("samples", total=100):
    for _ in range(10):
        tracker.advance(10)
    tracker.message("warning", "few hard negatives " + "word " * 60)
tracker.message("critical", "disk full")
"""


def run_on_a_terminal(environment: dict[str, str]) -> bytes:
    """What a terminal of 80 columns receives on stderr."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals on Windows")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD], cwd=ROOT, env=environment, stderr=follower
    )
    os.close(follower)
    received = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # Linux: the other end is closed
            chunk = b""
        if not chunk:
            break
        received += chunk
    os.close(leader)
    assert process.wait() == 0
    return received


def environment(**variables: str) -> dict[str, str]:
    hidden = {"NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERM", "COLUMNS"}
    visible = {name: value for name, value in os.environ.items() if name not in hidden}
    return visible | {"TERM": "xterm-256color", "COLUMNS": "80"} | variables


def test_a_pipe_receives_lines_without_trailing_blanks_carriage_returns_or_escape_codes():
    run = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=ROOT, env=environment(), capture_output=True, check=True
    )
    assert run.stdout == b""
    assert not {b"\r", b"\x1b"} & {run.stderr[i : i + 1] for i in range(len(run.stderr))}
    lines = run.stderr.decode().split("\n")
    assert lines == [line.rstrip() for line in lines]
    assert lines[0] == "  12 items" and lines[-2:] == ["critical: disk full", ""]
    assert len(lines) == 8, "no line is wrapped"


def test_a_terminal_with_no_color_receives_what_a_pipe_does():
    received = run_on_a_terminal(environment(NO_COLOR="1"))
    assert b"\x1b" not in received
    lines = received.decode().split("\r\n")  # the terminal itself adds the carriage returns
    assert "\r" not in "".join(lines)
    assert lines == [line.rstrip() for line in lines]
    assert lines[0] == "  12 items" and lines[-2:] == ["critical: disk full", ""]


def test_a_terminal_receives_bars_and_color():
    received = run_on_a_terminal(environment())
    assert b"\x1b[33m" in received and b"\x1b[2K" in received


def test_a_stage_that_fails_is_closed_and_not_reported_as_done():
    console = plain_console()
    tracker = RichTracker(console)
    with pytest.raises(ZeroDivisionError), tracker.stage("similarity"):
        raise ZeroDivisionError
    assert console.file.getvalue() == ""
    with tracker.stage("samples", total=1):
        tracker.advance(1)
    assert console.file.getvalue().count("similarity") == 0


def test_milestones_are_reported_once_each_even_when_one_advance_passes_both():
    milestones = []

    class Watcher(CountingTracker):
        def milestone(self, name, share):
            milestones.append((name, share))

    tracker = Watcher()
    with tracker.stage("samples", total=4):
        tracker.advance(1)
        tracker.advance(3)
        tracker.advance(1)
    with tracker.stage("unknown length"):
        tracker.advance(10)
    assert milestones == [("samples", 0.5), ("samples", 0.75)]


def test_advances_from_many_threads_are_all_counted():
    class Watcher(CountingTracker):
        def stage_ended(self, stage, completed):
            self.done = stage.done

    tracker = Watcher()
    with tracker.stage("samples", total=8000):
        threads = [
            threading.Thread(target=lambda: [tracker.advance(1) for _ in range(1000)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tracker.done == 8000


def test_stages_nest_and_an_advance_belongs_to_the_innermost():
    ended = {}

    class Watcher(CountingTracker):
        def stage_ended(self, stage, completed):
            ended[stage.name] = stage.done

    tracker = Watcher()
    with tracker.stage("outer"), tracker.stage("inner"):
        tracker.advance(3)
    assert ended == {"inner": 3, "outer": 0}
    with pytest.raises(RuntimeError, match="no stage is open"):
        tracker.advance(1)


def test_json_lines_are_one_object_each_in_the_order_of_events():
    stream = io.StringIO()
    watch_a_build(JsonLinesTracker(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    events = [line["event"] for line in lines]
    assert events == [
        "stage_began",
        "message",
        "stage_ended",
        "stage_began",
        "milestone",
        "milestone",
        "message",
        "stage_ended",
    ]
    assert lines[4] == {
        "event": "milestone",
        "elapsed_s": lines[4]["elapsed_s"],
        "stage": "samples",
        "share": 0.5,
    }
    assert lines[-1]["done"] == 100 and lines[-1]["completed"] is True
    assert [line["elapsed_s"] for line in lines] == sorted(line["elapsed_s"] for line in lines)


def test_json_progress_is_printed_at_most_once_an_interval(monkeypatch):
    monkeypatch.setattr("gpu_dcgen.monitoring.progress.JSON_INTERVAL_S", 0.0)
    stream = io.StringIO()
    watch_a_build(JsonLinesTracker(stream))
    assert stream.getvalue().count('"progress"') == 10
    monkeypatch.setattr("gpu_dcgen.monitoring.progress.JSON_INTERVAL_S", 3600.0)
    stream = io.StringIO()
    watch_a_build(JsonLinesTracker(stream))
    assert stream.getvalue().count('"progress"') == 0


def test_quiet_json_keeps_warnings_and_what_the_caller_writes():
    stream = io.StringIO()
    tracker = JsonLinesTracker(stream, quiet=True)
    watch_a_build(tracker)
    tracker.write("built", output="out")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "message",
        "built",
    ]
