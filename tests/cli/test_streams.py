"""Closed, full and abandoned standard streams end no build, and lose no exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shops import TINY_SETTINGS, random_shop, set_options, write_shop

FULL = Path("/dev/full")
CLOSE = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-"}

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    tables = random_shop(3, n_users=40, n_items=30, n_rows=900, dates=(30, 90), minutes=True)
    return write_shop(tables, tmp_path_factory.mktemp("shop"))


@pytest.fixture
def abandoned() -> Iterator[int]:
    """A pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "gpu_dcgen", *map(str, words)]


def build_words(inputs: Path, output: Path, *more: str) -> list[str]:
    return command("build", inputs, output, *set_options(TINY_SETTINGS), *more)


def require_dataset(output: Path) -> None:
    assert json.loads((output / "manifest.json").read_text())["content_digest"]
    for file in output.glob("*.parquet"):
        assert file.read_bytes()[:4] == file.read_bytes()[-4:] == b"PAR1"


@pytest.mark.parametrize("more", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_a_pipe_that_nobody_reads_ends_no_build(more, inputs, abandoned, tmp_path):
    """With --json it fails at the first event, otherwise at the summary."""
    done = subprocess.run(
        build_words(inputs, tmp_path / "out", *more), stdout=abandoned, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"warning: stdout cannot be written to") == 1
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    require_dataset(tmp_path / "out")


def test_a_full_stdout_after_publishing_is_a_warning(inputs, tmp_path):
    with FULL.open("wb") as full:
        done = subprocess.run(
            build_words(inputs, tmp_path / "out"), stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 0, done.stderr
    assert b"stdout cannot be written to (No space left on device)" in done.stderr
    require_dataset(tmp_path / "out")


def test_an_abandoned_stderr_ends_no_build(inputs, abandoned, tmp_path):
    done = subprocess.run(
        build_words(inputs, tmp_path / "out"), stdout=subprocess.PIPE, stderr=abandoned
    )
    assert done.returncode == 0
    assert b"Built" in done.stdout
    require_dataset(tmp_path / "out")


def test_a_full_stderr_ends_no_build(inputs, tmp_path):
    with FULL.open("wb") as full:
        done = subprocess.run(
            build_words(inputs, tmp_path / "out"), stdout=subprocess.PIPE, stderr=full
        )
    assert done.returncode == 0
    require_dataset(tmp_path / "out")


@pytest.mark.parametrize("streams", CLOSE)
def test_streams_that_are_closed_from_the_start_are_no_files_of_the_dataset(
    streams, inputs, tmp_path
):
    """Otherwise a file would get the number of the stream, and what is printed."""
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {CLOSE[streams]}', "-", *build_words(inputs, tmp_path / "out")],
        capture_output=True,
    )
    assert done.returncode == 0
    require_dataset(tmp_path / "out")


def test_errors_keep_their_exit_code_without_stderr(abandoned, tmp_path):
    words = command("build", tmp_path / "nothing", tmp_path / "out")
    assert subprocess.run(words, stdout=subprocess.PIPE, stderr=abandoned).returncode == 2


def test_a_command_whose_output_is_lost_fails(inputs, tmp_path):
    """Of `plan`, nothing else remains."""
    with FULL.open("wb") as full:
        words = command("doctor")
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert b"stdout: cannot be written to" in done.stderr
