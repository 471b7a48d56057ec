"""The rules of the architecture, read from the sources: who imports whom, what no file holds."""

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
# The rooms of the package, from the data of the contract up to the command line. An import goes
# from a room to one that stands on an earlier line, never sideways into a circle or upwards.
FLOORS = (
    {"errors", "kernels", "thrift"},
    {"contract"},
    {"backend", "config"},
    {"digest", "monitoring", "resources", "tallies"},
    {"auditing", "example_data", "inputs", "storage"},
    {"cards", "context", "preparation", "reporting", "training"},
    {"sequence_builder", "similarity_computer"},
    {"negative_sampler"},
    {"samples"},
    {"quality_validator"},
    {"outputs"},
    {"cluster"},
    {"dataset_generator"},
    {"preflight"},
    {"cli"},
    {"__main__"},
)
MAX_FLOORS = 16
STAGES = (  # in the order in which a build runs them
    "inputs",
    "preparation",
    "similarity_computer",
    "sequence_builder",
    "negative_sampler",
    "samples",
    "quality_validator",
    "outputs",
    "dataset_generator",
)
GPU_LIBRARIES = {"cupy", "cupyx", "cudf", "cuml", "faiss", "cuvs", "pylibcudf", "rmm"}
MAY_IMPORT_NUMPY = {
    "gpu_dcgen.preparation.split_search": "decides on a few large users, on the host",
    "gpu_dcgen.kernels.rng": "scalars of uint64 are typed the same for numba, NumPy and CuPy",
    "gpu_dcgen.kernels": "kernels name NumPy's scalar types, which numba compiles for CPU and GPU",
    "gpu_dcgen.digest": "hashes of host strings, and null values as uint64 scalars",
    "gpu_dcgen.example_data.fashion_shop": "makes tables on the host, before any backend is opened",
    "gpu_dcgen.tallies": "sums what blocks have brought to the host",
    "gpu_dcgen.storage.checkpoints": "writes and maps arrays of the host",
    "gpu_dcgen.example_data.complete_journey": "makes tables on the host",
    "gpu_dcgen.backend.gpu": "the GPU backend carries arrays to and from the host",
    "gpu_dcgen.auditing": "proves finished files on the host, without stages and their backends",
    "gpu_dcgen.training": "reads finished files on the host, and hands them to torch",
}
# What the audit may import: it is worth something only as a second writing.
AUDIT_MAY_IMPORT = {"__version__", "auditing", "config", "contract", "errors", "monitoring"}
TRAINING_MAY_IMPORT = {"contract", "errors", "storage", "training"}
HEAVY = ("numpy", "numba", "pyarrow", "pandas", "torch", "scipy")
# Last bits of these depend on the processor's vector instructions, and so would the example tables.
UNPORTABLE = re.compile(
    r"exp2?|expm1|log(2|10|1p|addexp2?)?|pow(er)?|float_power|cbrt|hypot"
    r"|(a|arc)?(sin|cos|tan)h?|a(rc)?tan2|v?dot|inner|matmul|matvec|vecmat|vecdot|tensordot"
    r"|einsum|linalg|fft|convolve|correlate|cov|corrcoef|poly(fit|val)"
)
PORTABLE_MATH = "gpu_dcgen.example_data.fashion_shop.portable_math"
MAX_LINES = 430
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|tmp)/", re.MULTILINE)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Absolute names of what a module imports, in functions too; `from a import b` gives a.b."""
    targets = set()
    for node in ast.walk(skipping_type_checks(ast.parse(source))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                module.split(".")[: len(module.split(".")) - node.level + is_package]
                if node.level
                else []
            )
            base = ".".join([*base, *([node.module] if node.module else [])])
            targets |= {f"{base}.{alias.name}" for alias in node.names}
    return targets


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


def skipping_type_checks(tree: ast.Module) -> ast.Module:
    """The module without its `if TYPE_CHECKING` blocks, which never run."""
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
    ]
    return tree


def room_of(module: str) -> str:
    """The package or file below gpu_dcgen that the module is in."""
    return module.split(".")[1]


def arrows(imported: dict[str, set[str]], group) -> dict[str, set[str]]:
    """For each group of modules, the other groups that it imports: rooms, or single modules."""
    modules, graph = set(imported), {}
    for module, names in imported.items():
        if module == "gpu_dcgen":
            continue  # the door to everything; it imports lazily
        source = graph.setdefault(group(module), set())
        for name in names:
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules - {"gpu_dcgen"} and group(target) != group(module):
                source.add(group(target))
    return graph


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each node: 1 without imports, else one above the highest that it imports."""
    known: dict[str, int] = {}

    def floor(node: str, path: tuple[str, ...]) -> int:
        assert node not in path, "a circle: " + " -> ".join((*path[path.index(node) :], node))
        if node not in known:
            known[node] = 1 + max((floor(n, (*path, node)) for n in graph[node]), default=0)
        return known[node]

    for node in graph:
        floor(node, ())
    return known


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
    source = (
        "import numpy as np\nfrom . import rng\nfrom .users import a\n"
        "def f():\n    from ..other import b\n"
    )
    assert imports(source, "gpu_dcgen.kernels.draws") == {
        "numpy",
        "gpu_dcgen.kernels.rng",
        "gpu_dcgen.kernels.users.a",
        "gpu_dcgen.other.b",
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
        if not inside(module, {"gpu_dcgen.backend.gpu", "gpu_dcgen.training.gpu_row_groups"}):
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


def test_training_reads_datasets_and_knows_nothing_of_the_build():
    modules = package_imports("gpu_dcgen")
    for module, imported in modules.items():
        if inside(module, {"gpu_dcgen.training"}):
            others = {n for n in imported if n.partition(".")[0] not in sys.stdlib_module_names}
            # a reader of row groups on the device, which `stream` imports when it is asked for
            if module != "gpu_dcgen.training.gpu_row_groups":
                allowed = {"gpu_dcgen", "numpy", "pyarrow", "torch"}
                assert not {name for name in others if not inside(name, allowed)}, module
                rooms = {room_of(name) for name in others if inside(name, {"gpu_dcgen"})}
                assert rooms <= TRAINING_MAY_IMPORT, module
        else:
            assert not {name for name in imported if inside(name, {"torch"})}, module
            used = {name for name in imported if inside(name, {"gpu_dcgen.training"})}
            assert inside(module, {"gpu_dcgen.cli"}) or not used, module


def test_no_stage_is_excused_from_backend_xp():
    """But for a search among a few dozen numbers, which both backends bring to the host."""
    stages = {f"gpu_dcgen.{stage}" for stage in STAGES}
    excused = [module for module in MAY_IMPORT_NUMPY if inside(module, stages)]
    assert excused == ["gpu_dcgen.preparation.split_search"]


def unportable(source: str) -> list[int]:
    """Lines with a function, operator or option whose last bits depend on the processor."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=value, attr=name) if UNPORTABLE.fullmatch(name):
                is_unportable = ast.unparse(value) != "portable_math"
            case ast.ImportFrom(names=aliases):
                is_unportable = any(UNPORTABLE.fullmatch(alias.name) for alias in aliases)
            case ast.BinOp(op=ast.Pow(), left=ast.Constant(), right=ast.Constant()):
                is_unportable = False  # a number, to Python
            case ast.BinOp(op=operator) | ast.AugAssign(op=operator):
                is_unportable = isinstance(operator, ast.MatMult | ast.Pow)
            case ast.keyword(arg="fastmath"):
                is_unportable = True
            case _:
                is_unportable = False
        if is_unportable:
            lines.append(node.lineno)
    return sorted(lines)


def test_example_tables_depend_on_no_vector_instructions():
    paths = {module_name(p): p for p in (ROOT / "gpu_dcgen" / "example_data").rglob("*.py")}
    assert PORTABLE_MATH in paths
    assert not {
        f"{module}:{line}"
        for module, path in paths.items()
        if module != PORTABLE_MATH
        for line in unportable(path.read_text("utf-8"))
    }


def test_each_unportable_form_is_found():
    forms = (
        "np.exp(x)",
        "x.dot(y)",
        "from numpy import log",
        "x ** 1.5",
        "x @ y",
        "x **= 2",
        "numba.njit(fastmath=True)",
        "np.linalg.norm(x)",
    )
    assert unportable("\n".join(forms)) == [*range(1, len(forms) + 1)]
    portable = (
        "portable_math.exp(x)\n2.0**53\nf(**x)\nnp.sqrt(x) * np.add.reduce(y)\nrng.exponential()"
    )
    assert not unportable(portable)


def test_rooms_import_downwards_only():
    graph = arrows(package_imports("gpu_dcgen"), room_of)
    declared = {room: floor for floor, rooms in enumerate(FLOORS, 1) for room in rooms}
    assert graph.keys() == declared.keys(), "FLOORS lists each room once"
    assert not [
        f"{room} -> {other}"
        for room, others in graph.items()
        for other in others
        if declared[other] >= declared[room]
    ]
    assert max(floors(graph).values()) <= len(FLOORS) <= MAX_FLOORS


def test_modules_import_each_other_in_no_circle():
    assert max(floors(arrows(package_imports("gpu_dcgen"), str)).values()) > len(FLOORS)


def test_stages_stand_in_the_order_of_a_build():
    place = [next(n for n, rooms in enumerate(FLOORS) if stage in rooms) for stage in STAGES]
    assert place == sorted(place)


def test_a_circle_an_arrow_and_a_floor_are_found():
    modules = {
        "gpu_dcgen.a.x": {"gpu_dcgen.b.f"},
        "gpu_dcgen.b": {"gpu_dcgen.c"},
        "gpu_dcgen.c": set(),
    }
    assert arrows(modules, room_of) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert floors(arrows(modules, room_of)) == {"a": 3, "b": 2, "c": 1}
    with pytest.raises(AssertionError, match="a circle: a -> b -> a"):
        floors({"a": {"b"}, "b": {"a"}})
    skipped = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import c\n"
    assert imports(skipped, "gpu_dcgen.a") == {"typing.TYPE_CHECKING"}


def test_the_audit_knows_nothing_of_the_build():
    modules = package_imports("gpu_dcgen")
    audits = {m: names for m, names in modules.items() if inside(m, {"gpu_dcgen.auditing"})}
    assert len(audits) > 10
    ours = {name for names in audits.values() for name in names if inside(name, {"gpu_dcgen"})}
    assert {room_of(name) for name in ours} <= AUDIT_MAY_IMPORT
    assert not {
        name for names in audits.values() for name in names if inside(name, {"cpu_fallback"})
    }


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
    assert not {path: n for path, n in lines.items() if n >= MAX_LINES}


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


if __name__ == "__main__":  # python -m tests.test_architecture: the rooms as they are
    for number, room in sorted(
        (n, room) for room, n in floors(arrows(package_imports("gpu_dcgen"), room_of)).items()
    ):
        print(f"{number:3}  {room}")
