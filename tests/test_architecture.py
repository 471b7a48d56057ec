"""Who may import whom, and what no file may hold: the rules of the architecture, read from the sources."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.protocol import Backend
from tests.support.strict_backend import StrictBackend

ROOT = Path(__file__).parents[1]
STAGES = (
    "inputs",
    "interactions",
    "features",
    "splits",
    "similarity_computer",
    "sequence_builder",
    "negative_sampler",
    "samples",
    "quality_validator",
    "outputs",
    "dataset_generator",
    "cli",
)
GPU_LIBRARIES = {"cupy", "cupyx", "cudf", "cuml", "faiss", "cuvs", "pylibcudf", "rmm"}
MAY_IMPORT_NUMPY = {
    "gpu_dcgen.kernels.rng": "scalars of uint64 are typed the same for numba, NumPy and CuPy",
    "gpu_dcgen.kernels": "kernels name NumPy's scalar types, which numba compiles for both machines",
    "gpu_dcgen.digest": "hashes of host strings, and null values as uint64 scalars",
    "gpu_dcgen.example_data.fashion_shop": "makes tables on the host, before any backend is opened",
    "gpu_dcgen.storage.checkpoints": "writes and maps arrays of the host",
    "gpu_dcgen.example_data.complete_journey": "makes tables on the host",
    "gpu_dcgen.backend.gpu": "the GPU backend carries arrays to and from the host",
    "gpu_dcgen.audit": "proves finished files on the host, without the stages and their backends",
    "gpu_dcgen.audit.explain": "reads finished files on the host",
    "gpu_dcgen.training": "reads finished files on the host, and hands them to torch",
}
THE_BUILD = {"cpu_fallback"} | {
    f"gpu_dcgen.{module}"
    for module in (*STAGES, "backend", "balancing", "blocks", "cluster", "descriptions", "digest", "gpu", "input_checks",
                   "input_columns", "input_files", "input_footers", "kernels", "limits", "parts", "rng", "segments")
}  # fmt: skip
HEAVY = ("numpy", "numba", "pyarrow", "pandas", "torch", "scipy")
MOST_LINES = 380
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|tmp)/", re.MULTILINE)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Absolute names of all that a module imports anywhere, functions included; `from a import b` gives a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                module.split(".")[: len(module.split(".")) - node.level + is_package]
                if node.level
                else []
            )
            base = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def package_imports(package: str) -> dict[str, set[str]]:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, f"{package} has no modules"
    return {
        module_name(p): imports(
            p.read_text("utf-8"), module_name(p), is_package=p.name == "__init__.py"
        )
        for p in paths
    }


def inside(name: str, modules: set[str] | dict[str, str]) -> bool:
    """Whether the dotted name is one of the modules or lies within one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def later_stages(module: str, imported: set[str]) -> set[str]:
    """The imported stages that do not come before the stage `module`."""
    place = STAGES.index(module.split(".")[1])
    later = {f"gpu_dcgen.{stage}" for stage in STAGES[place + 1 :]}
    return {name for name in imported if inside(name, later)}


def tracked_texts() -> dict[Path, str]:
    """The repository's text files: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        try:
            texts[Path(name)] = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # binary, or deleted and not yet committed
    return texts


def test_imports_are_found_in_all_their_forms():
    source = "import numpy as np\nfrom . import rng\nfrom .kernels.users import a\ndef f():\n    from ..other import b\n"
    assert imports(source, "gpu_dcgen.preparation.splits") == {
        "numpy",
        "gpu_dcgen.kernels.rng",
        "gpu_dcgen.kernels.users.a",
        "other.b",
    }
    assert imports("from . import a\nfrom ..b import c", "x.y", is_package=True) == {
        "x.y.a",
        "x.b.c",
    }


def test_cpu_fallback_does_not_know_gpu_dcgen():
    for module, imported in package_imports("cpu_fallback").items():
        assert not {name for name in imported if inside(name, {"gpu_dcgen"})}, module


def test_only_the_gpu_package_names_gpu_libraries():
    for module, imported in package_imports("gpu_dcgen").items():
        if not inside(module, {"gpu_dcgen.backend.gpu"}):
            assert not {name for name in imported if inside(name, GPU_LIBRARIES)}, module


def test_numpy_is_imported_only_where_there_is_a_reason():
    for module, imported in package_imports("gpu_dcgen").items():
        if {name for name in imported if inside(name, {"numpy"})}:
            assert inside(module, MAY_IMPORT_NUMPY), (
                f"{module} imports numpy: use backend.xp, or give a reason here"
            )


def test_only_the_cluster_package_names_dask():
    seen = set()
    for module, imported in package_imports("gpu_dcgen").items():
        if {name for name in imported if inside(name, {"dask", "distributed", "dask_cuda"})}:
            seen.add(module)
    assert seen and all(inside(module, {"gpu_dcgen.cluster"}) for module in seen)


def test_training_reads_data_sets_and_knows_nothing_of_the_build():
    # a reader of row groups, which `stream` imports when it is asked for
    on_a_device = "gpu_dcgen.training.gpu_row_groups"
    ours = {
        f"gpu_dcgen.{name}" for name in ("training", "contract", "errors", "json_files", "places")
    }
    allowed = ours | {"numpy", "pyarrow", "torch", on_a_device}
    for module, imported in package_imports("gpu_dcgen").items():
        if inside(module, {"gpu_dcgen.training"}):
            others = {
                name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names
            }
            assert not {name for name in others if not inside(name, allowed)}, module
        elif module != on_a_device:
            assert not {name for name in imported if inside(name, {"torch"})}, module
            used = {name for name in imported if inside(name, {"gpu_dcgen.training"})}
            assert module == "gpu_dcgen.cli.build_commands.dataset_commands" or not used, module


def test_no_stage_is_excused_from_backend_xp():
    assert not [stage for stage in STAGES if inside(f"gpu_dcgen.{stage}", MAY_IMPORT_NUMPY)]


def test_no_stage_imports_a_later_one():
    seen = set()
    for module, imported in package_imports("gpu_dcgen").items():
        if inside(module, {f"gpu_dcgen.{stage}" for stage in STAGES}):
            seen.add(module)
            assert not later_stages(module, imported), module
    assert "gpu_dcgen.preparation.interactions" in seen
    assert later_stages(
        "gpu_dcgen.inputs.shop", {"gpu_dcgen.preparation.splits.plan", "gpu_dcgen.inputs.shop.x"}
    ) == {"gpu_dcgen.preparation.splits.plan"}
    assert not later_stages(
        "gpu_dcgen.preparation.features", {"gpu_dcgen.inputs.shop.Shop", "gpu_dcgen.splitting.x"}
    )


def test_the_audit_knows_nothing_of_the_build():
    """It is worth something only as a second writing: it may read the contract, the settings and what was written."""
    audits = {
        module: names
        for module, names in package_imports("gpu_dcgen").items()
        if inside(module, {"gpu_dcgen.audit"})
    }
    assert len(audits) > 10
    for module, imported in audits.items():
        assert not {name for name in imported if inside(name, THE_BUILD)}, module
    allowed = {"audit", "config", "contract", "errors", "progress", "__version__"}
    ours = {
        name.split(".")[1]
        for imported in audits.values()
        for name in imported
        if name.startswith("gpu_dcgen.")
    }
    assert ours <= allowed


def test_importing_the_package_loads_nothing_heavy():
    program = f"import sys, gpu_dcgen; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


def test_files_fit_a_reader():
    lines = {
        path: text.count("\n") for path, text in tracked_texts().items() if path.suffix == ".py"
    }
    assert not {path: n for path, n in lines.items() if n >= MOST_LINES}


def test_no_text_names_a_path_of_the_machine_it_was_written_on():
    named = {
        f"{path}: {hit.group()}"
        for path, text in tracked_texts().items()
        for hit in MACHINE_PATH.finditer(text)
    }
    assert not named
    assert MACHINE_PATH.search("see /" + "work/main")
    assert not MACHINE_PATH.search("a relative/" + "work/folder")


def protocol_methods() -> dict[str, list[str]]:
    functions = inspect.getmembers(Backend, inspect.isfunction)
    return {name: parameters(function) for name, function in functions if not name.startswith("_")}


def parameters(function) -> list[str]:
    """Names, with the stars of variable ones."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(p.kind, "") + p.name for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("backend", [NumpyBackend, StrictBackend])
def test_backends_spell_the_protocol_alike(backend):
    methods = protocol_methods()
    assert {"for_each", "single_threaded", "to_host"} <= methods.keys()
    assert {name: parameters(getattr(backend, name, lambda: None)) for name in methods} == methods
    opened = backend()
    assert not [name for name in Backend.__annotations__ if not hasattr(opened, name)]
    assert isinstance(opened, Backend)


def test_a_backend_with_another_parameter_name_is_told_apart():
    class Other(NumpyBackend):
        def for_each(self, kernel, count, *arrays):
            pass

    assert parameters(Other.for_each) != protocol_methods()["for_each"]
