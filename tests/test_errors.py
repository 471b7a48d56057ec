"""Texts name options as their caller writes them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from gpu_dcgen import build
from gpu_dcgen.cli import app
from gpu_dcgen.errors import OutputError, command_line_errors, spell_option


@pytest.mark.parametrize(
    ("option", "value", "python", "command_line"),
    [
        ("overwrite", None, "overwrite=True", "--overwrite"),
        ("resume", None, "resume=True", "--resume"),
        ("backend", "cpu", 'backend="cpu"', "--backend cpu"),
        ("output", None, "output", "--output"),
        ("staging", None, "workplace", "--staging"),
        ("gpu-memory-limit", None, "resources.gpu_memory_limit", "--gpu-memory-limit"),
        (
            "on-bad-rows",
            "reject",
            'DatasetConfig(inputs={"on_bad_rows": "reject"})',
            "--on-bad-rows reject",
        ),
    ],
)
def test_an_option_is_spelled_for_its_caller(option, value, python, command_line):
    assert spell_option(option, value) == python
    with command_line_errors():
        assert spell_option(option, value) == command_line
    assert spell_option(option, value) == python


def test_the_remedy_of_an_existing_output_can_be_pasted(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="replace it with overwrite=True"):
        build(tmp_path, output)
    shown = CliRunner().invoke(app, ["build", str(tmp_path), str(output)])
    assert "replace it with --overwrite" in shown.stderr
    with pytest.raises(OutputError, match="replace it with overwrite=True"):
        build(tmp_path, output)
