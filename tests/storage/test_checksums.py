"""The digest of the code covers what a build runs, and nothing else."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from gpu_dcgen.storage import checksums
from gpu_dcgen.storage.checksums import READERS, digest_of_code, digest_sources

PACKAGE = Path(checksums.__file__).parents[1]


def imports(file: Path) -> set[str]:
    """Packages and modules of gpu_dcgen, by their first name, that a file of it imports."""
    own = file.relative_to(PACKAGE.parent).parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else ()
            full = [*base, *(node.module or "").split(".")]
            names |= {".".join([*filter(None, full), alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("gpu_dcgen.")}


def test_no_module_of_a_build_imports_one_that_is_left_out():
    assert all((PACKAGE / name).is_dir() for name in READERS)
    assert "storage" in imports(PACKAGE / "dataset_generator" / "builder.py")
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).parts
        if len(parts) > 1 and parts[0] not in READERS:
            assert not imports(file) & READERS, file


@pytest.fixture
def copy(tmp_path) -> Path:
    """The package as it would be installed elsewhere."""
    for name in ("gpu_dcgen", "cpu_fallback"):
        shutil.copytree(PACKAGE.parent / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("gpu_dcgen/samples.py", True),
        ("gpu_dcgen/kernels/rng.py", True),
        ("cpu_fallback/sorting.py", True),
        ("gpu_dcgen/cli/options.py", False),
        ("gpu_dcgen/preflight/doctor.py", False),
    ],
)
def test_an_edit_changes_the_digest_only_where_a_build_may_differ(file, changes, copy):
    before = digest_sources(copy / "gpu_dcgen")
    with (copy / file).open("a") as source:
        source.write("# a comment\n")
    assert (digest_sources(copy / "gpu_dcgen") != before) == changes


def test_the_code_of_this_process_is_digested(copy):
    assert digest_of_code() == digest_sources(copy / "gpu_dcgen") == digest_of_code()


def test_a_module_that_is_new_or_renamed_changes_the_digest(copy):
    before = digest_sources(copy / "gpu_dcgen")
    (copy / "gpu_dcgen" / "new.py").write_text("")
    assert digest_sources(copy / "gpu_dcgen") != before
