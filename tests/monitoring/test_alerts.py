"""Events reach the log, the event file and the webhook, and none of them can fail a build."""

from __future__ import annotations

import errno
import json
import logging
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gpu_dcgen.config import MonitoringConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.monitoring.alerts import EventFile, TrackerGroup, Webhook, open_sinks
from gpu_dcgen.monitoring.progress import ProgressTracker
from tests.support.builds import RecordingTracker
from tests.support.shops import tiny_config


@pytest.fixture
def receiver():
    """A webhook on this machine: `bodies` were posted to it, `status` is its answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.bodies, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_hears_alerts_and_milestones_and_not_every_word(receiver):
    hook = Webhook(f"http://127.0.0.1:{receiver.server_port}/secret", RecordingTracker())
    group = TrackerGroup(ProgressTracker(), [hook])
    group.message("info", "backend: cpu")
    group.message("warning", "low_negative_diversity: 0.5")
    with group.stage("samples", 10):
        group.advance(6)
    assert [(body["level"], body["text"].split(":")[0]) for body in receiver.bodies] == [
        ("warning", "low_negative_diversity"),
        ("info", "milestone_reached"),
    ]
    assert group.alerts == [{"level": "warning", "text": "low_negative_diversity: 0.5"}]


def test_a_webhook_that_refuses_is_disabled_and_its_url_stays_secret(receiver):
    tracker, receiver.status = RecordingTracker(), 500
    hook = Webhook(f"http://127.0.0.1:{receiver.server_port}/secret", tracker)
    hook.message("critical", "disk full")
    hook.message("critical", "disk full")
    assert len(receiver.bodies) == 1
    assert tracker.messages == [
        ("warning", "monitoring: webhook failed (status 500); disabled for this run.")
    ]


def test_a_webhook_that_does_not_speak_http_is_disabled():
    tracker = RecordingTracker()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"what?\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/secret", tracker)
        hook.message("critical", "disk full")
        thread.join()
    assert tracker.messages == [
        ("warning", "monitoring: webhook failed (BadStatusLine); disabled for this run.")
    ]


class FullDisk:
    """A file on a disk that takes no more."""

    def write(self, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_event_file_that_cannot_be_written_is_disabled(tmp_path, monkeypatch):
    tracker = RecordingTracker()
    monkeypatch.setattr(Path, "open", lambda *_, **__: FullDisk())
    with EventFile(tmp_path / "events.jsonl", tracker) as file:
        file.message("info", "one")
        file.message("info", "two")
    assert tracker.messages == [
        (
            "warning",
            f"monitoring: {tmp_path / 'events.jsonl'} cannot be written (No space left on device); "
            "disabled for this run.",
        )
    ]


def test_a_build_writes_its_event_file_and_the_log(inputs, tmp_path, caplog):
    config = tiny_config(monitoring={"events": str(tmp_path / "events.jsonl")})
    with caplog.at_level(logging.INFO, "gpu_dcgen"):
        build(inputs, tmp_path / "output", config, backend="cpu")
        events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        assert events[-1]["text"].startswith("generation_completion")
        assert {"stage_began", "stage_ended", "milestone"} <= {event["event"] for event in events}
        assert (tmp_path / "output" / "build_log.jsonl").read_text().count("stage_ended") >= 8
        messages = [event for event in events if event["event"] == "message"]
        logged = [
            (record.levelname.lower(), record.getMessage())
            for record in caplog.records
            if record.name == "gpu_dcgen"
        ]
        assert [(event["level"], event["text"]) for event in messages] == [
            entry for entry in logged if not entry[1].startswith(("stage_", "milestone_"))
        ]
        assert ("info", "stage_began: samples") in logged
        assert ("info", "milestone_reached: samples: 50%") in logged
        caplog.clear()
        with pytest.raises(InputError):
            build(tmp_path, tmp_path / "other", config, backend="cpu")
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert last["level"] == "critical" and last["text"].startswith("generation_failure: InputError")
    failure = caplog.records[-1]
    assert (failure.levelno, failure.getMessage()) == (logging.CRITICAL, last["text"])


LIBRARY = """
from contextlib import ExitStack
from gpu_dcgen.config import MonitoringConfig
from gpu_dcgen.monitoring.alerts import TrackerGroup, open_sinks
from gpu_dcgen.monitoring.progress import ProgressTracker
with ExitStack() as files:
    tracker = ProgressTracker()
    group = TrackerGroup(tracker, open_sinks(MonitoringConfig(), tracker, files))
    group.message("critical", "disk full")
"""


def test_without_a_handler_of_the_application_the_log_prints_nothing():
    """Else each warning would appear twice on a terminal."""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", LIBRARY], cwd=root, capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("", "")


def test_a_sink_that_fails_is_reported_to_the_caller_and_the_log(caplog):
    tracker = RecordingTracker()
    with ExitStack() as files, pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOOK", "http://127.0.0.1:9/secret")
        settings = MonitoringConfig(webhook_variable="HOOK")
        group = TrackerGroup(tracker, open_sinks(settings, tracker, files))
        group.message("warning", "low_negative_diversity: 0.5")
    text = "monitoring: webhook failed (URLError); disabled for this run."
    assert ("warning", text) in tracker.messages
    assert ("gpu_dcgen", logging.WARNING, text) in caplog.record_tuples


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"webhook_variable": "NO_SUCH_VARIABLE"}, r"NO_SUCH_VARIABLE does not hold an http\(s\)"),
        ({"events": "no/such/folder/events.jsonl"}, "cannot be written to"),
        ({"prometheus": "metrics.txt"}, r"ending in \.prom"),
    ],
)
def test_a_sink_that_cannot_work_is_refused_before_the_build(settings, text):
    with ExitStack() as files, pytest.raises(ConfigError, match=text):
        open_sinks(MonitoringConfig.model_validate(settings), ProgressTracker(), files)
