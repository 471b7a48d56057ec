"""What `python -m gpu_dcgen` prints to a terminal of 80 columns, a file or a shell."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_dcgen.cli import app
from gpu_dcgen.cli.console import show
from gpu_dcgen.cli.render_builds import render_plan
from gpu_dcgen.config import render_config
from gpu_dcgen.contract.schema import SPLITS
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.preflight.plan import Plan
from tests.support import command_line
from tests.support.shops import random_shop, tiny_config, write_shop

ROOT = Path(__file__).parents[2]
COMMANDS = [
    info.name or info.callback.__name__ for info in app.registered_commands if info.callback
]
ESCAPE = "\x1b"


def environment(**more: str) -> dict[str, str]:
    """This process' variables without those that change the output, at 80 columns."""
    ignored = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TERM")
    names = {name: value for name, value in os.environ.items() if name not in ignored}
    return {**names, "COLUMNS": "80", "TERM": "xterm-256color", **more}


def run(*args: object, **more: str) -> str:
    """Run a command with its output in a pipe; return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu_dcgen", *map(str, args)],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert ESCAPE not in done.stdout + done.stderr
    return done.stdout


def run_on_terminal(*args: object, **more: str) -> str:
    """Run a command with stdout and stderr on a terminal; return both."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "gpu_dcgen", *map(str, args)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    chunks = []
    while True:
        try:
            chunk = os.read(parent, 65_536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(parent)
    text = b"".join(chunks).decode()
    assert process.wait(60) == 0, text
    return text


def check_lines(text: str, *, pasted: str = "python -c") -> None:
    """Check that lines fit 80 columns and have no trailing blanks.

    Only a command to paste, which holds `pasted`, may be longer.
    """
    assert text
    for line in text.split("\n"):
        assert line == line.rstrip(), repr(line)
        assert len(line) <= 80 or pasted in line, line


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A small shop in input/, and the dataset built from it in output/."""
    folder = tmp_path_factory.mktemp("shop")
    tables = random_shop(3, n_users=20, n_items=26, n_rows=400, minutes=True)
    write_shop(tables, folder / "input")
    build(folder / "input", folder / "output", tiny_config(), backend="cpu")
    (folder / "tiny.yaml").write_text(render_config(tiny_config()))
    return folder


def test_help_lists_every_command_with_its_whole_summary():
    text = run("--help")
    check_lines(text)
    assert "..." not in text.replace("[ARGS]...", "")
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*\.$", text, re.MULTILINE), command
    assert "    gpu-dcgen build data/processed data/training    from your tables\n" in text
    assert "    2    unusable input, configuration, backend or output\n" in text


@pytest.mark.parametrize("args", [(), ("-h",)])
def test_help_is_shown_without_a_command_and_for_the_short_option(args):
    done = subprocess.run(
        [sys.executable, "-m", "gpu_dcgen", *args],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert "Usage: gpu-dcgen [OPTIONS] COMMAND" in done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_arguments_and_values_plainly(command):
    text = run(command, "--help")
    check_lines(text)
    assert f"Usage: gpu-dcgen {command} [OPTIONS]" in text
    assert not re.search(r"[<>{}]|\bAny\b", re.sub("x>=[01]", "", text))


def test_an_explanation_fits_80_columns(shop):
    command = ("explain", shop / "output", "train-0000000004-02", "--inputs", shop / "input")
    text = run(*command)
    check_lines(text)
    assert text.startswith("How train-0000000004-02 came about\n")


@pytest.mark.parametrize(
    "command",
    [
        "build SHOP/input SHOP/again --backend cpu --config SHOP/tiny.yaml",
        "append SHOP/input SHOP/again --backend cpu",
        "audit SHOP/input SHOP/output --sample 2",
        "doctor SHOP/input",
        "synth SHOP/synthetic --scale 0.0001",
    ],
)
def test_results_fit_80_columns(shop, command, monkeypatch):
    monkeypatch.chdir(shop)
    result = command_line.run(*command.replace("SHOP/", "").split(), columns=80)
    assert result.exit_code == 0, result.output
    assert ESCAPE not in result.output
    check_lines(result.stdout)


def test_a_plan_fits_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    plan = Plan(
        backend="cpu",
        threads=16,
        transactions=31_788_324,
        share=0.0377,
        positives=dict.fromkeys(SPLITS, 5_000_000),
        rows=dict.fromkeys(SPLITS, 80_000_000),
        pairs=10_000_000,
        bytes={f"{split}_dataset": 10**10 for split in SPLITS}
        | {"item_similarity_matrix": 10**9, "user_sequences": 10**9},
        seconds={"similarity": 1000.0, "samples": 10_000.0},
        peak_bytes=10**10,
        free_bytes=10**9,
        budgets={},
        planning_s=13.9,
    )
    show(render_plan(plan))
    check_lines(capsys.readouterr().out)


def test_a_terminal_gets_styles_and_bars_unless_no_color_is_set(tmp_path):
    command = ("synth", tmp_path / "shop", "--scale", "0.0001", "--overwrite")
    assert ESCAPE in run_on_terminal(*command)
    assert ESCAPE not in run_on_terminal(*command, NO_COLOR="1")


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    text = run(
        _GPU_DCGEN_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(["gpu-dcgen", *words]),
        COMP_CWORD=str(len(words)),
    )
    return text.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("va",), ["validate"]),
        (("build", "--mem"), ["--memory-limit"]),
        (("build", "in", "out", "--on-bad-rows", ""), ["fail", "reject"]),
        (("build", "--backend", "g"), ["gpu"]),
        (("build", "--profile", "cl"), ["cloud_processing"]),
        (("export", "--format", ""), ["inter", "tuples"]),
        (("build", "ta"), []),  # left to the shell, which offers files
    ],
)
def test_the_shell_completes_commands_options_and_choices(words, offered):
    assert complete(*words) == offered


def test_every_command_is_completed():
    assert complete("") == COMMANDS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_shown(shell):
    assert "_GPU_DCGEN_COMPLETE" in run(_GPU_DCGEN_COMPLETE=f"source_{shell}")


def test_completion_is_offered_as_options():
    text = run("--help")
    assert "--install-completion" in text and "--show-completion" in text
