"""Locations are local paths or URLs; what no file could name is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu_dcgen import build
from gpu_dcgen.cli import app
from gpu_dcgen.errors import ConfigError
from gpu_dcgen.storage.locations import parse_location
from tests.support.input_tables import write_tables

BAD = os.fsdecode(b"folder\xff")


@pytest.mark.parametrize("location", [BAD, Path(BAD), f"{BAD}/sub", f"file:///data/{BAD}"])
def test_paths_that_are_not_utf8_are_refused(location):
    with pytest.raises(ConfigError, match=r"folder\\udcff.*: the path is not UTF-8\.\nRename the"):
        parse_location(location)


def test_other_paths_are_as_they_were():
    assert parse_location("a/b") == Path("a/b")
    assert parse_location("größe") == Path("größe")
    assert parse_location("s3://bucket/x/") == "s3://bucket/x"


@pytest.mark.parametrize("where", ["input", "output", "working directory"])
def test_a_build_refuses_them_before_it_begins(tmp_path, monkeypatch, where):
    inputs, output = write_tables(tmp_path / "input"), tmp_path / "output"
    if where == "input":
        inputs = inputs.rename(tmp_path / BAD)
    elif where == "output":
        output = tmp_path / BAD
    else:
        (tmp_path / BAD).mkdir()
        monkeypatch.chdir(tmp_path / BAD)
        output = Path("output")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        build(inputs, output)
    result = CliRunner().invoke(app, ["build", str(inputs), str(output)])
    assert result.exit_code == 2 and "UTF-8" in result.stderr
    assert sorted(os.listdir(tmp_path)) == before
