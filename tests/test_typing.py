"""What a type checker sees of the package: mistakes in a user's script are reported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import gpu_dcgen

ROOT = Path(__file__).parents[1]

CORRECT = """
from pathlib import Path

import gpu_dcgen
from gpu_dcgen import BuildResult, ConfigError, DatasetConfig, DcgenError, ProgressTracker, build

config = DatasetConfig(seed=7)
train_share: float = config.split.train_share
try:
    result: BuildResult = build("tables", Path("dataset"), config, overwrite=True)
except ConfigError as error:
    raise SystemExit(error.exit_code) from error
except DcgenError:
    raise
output: Path | str = result.output
problems: list[str] = gpu_dcgen.validate(output, checksums=True)
page: Path = gpu_dcgen.report(Path("dataset"), overwrite=True)
gpu_dcgen.append("tables", Path("dataset"), progress=ProgressTracker())
gpu_dcgen.audit(Path("tables"), Path("dataset"))
loaded: DatasetConfig = gpu_dcgen.load_config(None, ["seed=3"])
version: str = gpu_dcgen.__version__
"""

MISTAKES = {
    "DatasetConfig(splitt=3)": 'Unexpected keyword argument "splitt" for "DatasetConfig"',
    'build("tables", "dataset", overwite=True)': (
        'Unexpected keyword argument "overwite" for "build"; did you mean "overwrite"?'
    ),
    'build("tables", "dataset").nonsense': '"BuildResult" has no attribute "nonsense"',
    "DatasetConfig().splitt": '"DatasetConfig" has no attribute "splitt"; maybe "split"?',
    "DatasetConfig().split.train_shar": '"SplitConfig" has no attribute "train_shar"',
    "gpu_dcgen.bild": 'Module has no attribute "bild"',
}
# Libraries that the package imports are not read: it would take minutes, and tell nothing more.
SETTINGS = """
[mypy]
strict = True
follow_imports = silent
ignore_missing_imports = True

[mypy-torch.*,numpy.*,scipy.*,pyarrow.*,numba.*,rich.*,typer.*,click.*,jinja2.*,yaml.*,psutil.*]
follow_imports = skip
"""
HEADER = "import gpu_dcgen\nfrom gpu_dcgen import DatasetConfig, build\n"


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> dict[str, dict[int, str]]:
    """By script and line, the errors that mypy reports."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed: pip install mypy")
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "correct.py").write_text(CORRECT)
    (folder / "mistakes.py").write_text(HEADER + "\n".join(MISTAKES) + "\n")
    (folder / "mypy.ini").write_text(SETTINGS)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-color-output", "correct.py", "mistakes.py"],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1) and not run.stderr, run.stdout + run.stderr
    errors: dict[str, dict[int, str]] = {"correct.py": {}, "mistakes.py": {}}
    for name, line, text in re.findall(r"^(\w+\.py):(\d+): error: (.*)$", run.stdout, re.M):
        errors[name][int(line)] = text
    return errors


def test_a_correct_script_has_no_error(reported):
    assert reported["correct.py"] == {}


@pytest.mark.parametrize(("line", "error"), list(enumerate(MISTAKES.values(), 3)), ids=MISTAKES)
def test_a_mistake_in_a_script_is_reported(reported, line, error):
    assert error in reported["mistakes.py"].get(line, "nothing")


def test_the_package_says_that_it_has_types():
    assert (ROOT / "gpu_dcgen" / "py.typed").exists()


def test_the_public_names_are_listed_and_exist():
    assert dir(gpu_dcgen) == sorted(gpu_dcgen.__all__)
    assert set(gpu_dcgen._HOMES) | {"__version__"} == set(gpu_dcgen.__all__)
    needs_torch = {name for name, (home, _) in gpu_dcgen._HOMES.items() if "training" in home}
    for name in gpu_dcgen.__all__:
        if name not in needs_torch or find_spec("torch") is not None:
            assert getattr(gpu_dcgen, name) is not None
    with pytest.raises(AttributeError, match="module 'gpu_dcgen' has no attribute 'bild'"):
        gpu_dcgen.bild  # noqa: B018 - the access is what is tested


def test_importing_a_package_hides_no_function():
    import gpu_dcgen.auditing
    import gpu_dcgen.reporting

    assert callable(gpu_dcgen.audit) and callable(gpu_dcgen.report)
