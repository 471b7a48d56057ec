"""`--workers` and `--scheduler` become settings, or are refused."""

from __future__ import annotations

import pytest

from tests.support.command_line import run


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--workers", "3"], (True, 3, None)),
        (["--workers", "gpus"], (True, 4, "gpus")),
        (["--scheduler", "tcp://host:8786"], (True, 4, "tcp://host:8786")),
        (["--scheduler", "tcp://host:8786", "--threads", "2"], (True, 2, "tcp://host:8786")),
    ],
)
def test_worker_processes_are_settings_of_resources(options, expected, fake_build):
    assert run("build", "in", "out", *options).exit_code == 0
    resources = fake_build.call.config.resources
    assert (
        resources.distributed_processing,
        resources.num_workers,
        resources.scheduler,
    ) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--workers", "0"], "--workers: expected a number from 1, or gpus, found '0'"),
        (["--workers", "many"], "--workers: expected a number from 1, or gpus, found 'many'"),
        (["--workers", "2", "--threads", "3"], "--workers 2 and --threads 3 are both given"),
        (
            ["--workers", "2", "--scheduler", "tcp://a:1"],
            "--workers 2 and --scheduler tcp://a:1 are both given",
        ),
        (["--scheduler", "host"], "resources.scheduler"),
    ],
)
def test_worker_processes_that_cannot_be_are_refused(options, text, fake_build):
    result = run("build", "in", "out", *options)
    assert result.exit_code == 2
    assert text in result.output
