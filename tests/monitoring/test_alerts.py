"""Alerts reach those who asked for them, and none of them can fail a build."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gpu_dcgen.config import MonitoringConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.monitoring.alerts import TrackerGroup, Webhook, open_sinks, write_prometheus
from gpu_dcgen.monitoring.progress import ProgressTracker
from tests.support.shops import random_shop, tiny_config, write_shop


class Heard(ProgressTracker):
    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def message(self, level, text):
        self.messages.append((level, text))


@pytest.fixture
def receiver():
    """A webhook on this machine; `bodies` is what was posted to it, `status` what it answers."""

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
    hook = Webhook(f"http://127.0.0.1:{receiver.server_port}/secret", Heard())
    watch = TrackerGroup(ProgressTracker(), [hook])
    watch.message("info", "backend: cpu")
    watch.message("warning", "low_negative_diversity: 0.5")
    hook.milestone("samples", 0.5)
    assert [(body["level"], body["text"].split(":")[0]) for body in receiver.bodies] == [
        ("warning", "low_negative_diversity"),
        ("info", "milestone_reached"),
    ]
    assert watch.alerts == [{"level": "warning", "text": "low_negative_diversity: 0.5"}]


def test_a_webhook_that_refuses_is_told_nothing_more_and_its_url_stays_secret(receiver):
    heard, receiver.status = Heard(), 500
    hook = Webhook(f"http://127.0.0.1:{receiver.server_port}/secret", heard)
    hook.message("critical", "disk full")
    hook.message("critical", "disk full")
    assert len(receiver.bodies) == 1
    assert heard.messages == [
        ("warning", "monitoring: the webhook took no alert (status 500); it is told nothing more.")
    ]


def test_a_build_tells_its_event_file_and_prometheus(tmp_path):
    pytest.importorskip("prometheus_client", reason="pip install '.[monitoring]'")
    write_shop(random_shop(3, n_users=16, n_items=24, n_rows=260), tmp_path / "input")
    monitoring = {
        "events": str(tmp_path / "events.jsonl"),
        "prometheus": str(tmp_path / "build.prom"),
    }
    build(
        tmp_path / "input", tmp_path / "output", tiny_config(monitoring=monitoring), backend="cpu"
    )
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1]["text"].startswith("generation_completion")
    assert {"stage_began", "stage_ended", "milestone"} <= {event["event"] for event in events}
    assert (tmp_path / "output" / "build_log.jsonl").read_text().count("stage_ended") >= 8
    metrics = (tmp_path / "build.prom").read_text()
    assert (
        "gpu_dcgen_build_success 1.0" in metrics
        and 'gpu_dcgen_gate_passed{gate="no_user_overlap"' in metrics
    )
    with pytest.raises(InputError):
        build(tmp_path, tmp_path / "other", tiny_config(monitoring=monitoring), backend="cpu")
    assert "gpu_dcgen_build_success 0.0" in (tmp_path / "build.prom").read_text()
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert last["level"] == "critical" and last["text"].startswith("generation_failure: InputError")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"webhook_variable": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE holds no http"),
        ({"events": "no/such/folder/events.jsonl"}, "cannot be written to"),
        ({"prometheus": "metrics.txt"}, r"ending in \.prom"),
    ],
)
def test_a_sink_that_cannot_work_is_refused_before_the_build(settings, told):
    with ExitStack() as files, pytest.raises(ConfigError, match=told):
        open_sinks(MonitoringConfig.model_validate(settings), ProgressTracker(), files)


def test_a_failed_build_leaves_prometheus_a_zero(tmp_path):
    pytest.importorskip("prometheus_client", reason="pip install '.[monitoring]'")
    write_prometheus(tmp_path / "a.prom", None, None)
    assert "gpu_dcgen_build_success 0.0" in (tmp_path / "a.prom").read_text()
