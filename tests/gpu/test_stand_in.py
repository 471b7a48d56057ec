"""The stand-in for libcudf offers what the module that it stands in for offers, and no more."""

from __future__ import annotations

import ast
from pathlib import Path

import gpu_dcgen.backend.gpu
from tests.support import libcudf_stand_in

REAL = Path(gpu_dcgen.backend.gpu.__file__).parent / "libcudf.py"
OWN = {"as_stored", "on_device", "libcudf_type", "Column", "RowGroupWriter.as_arrow"}


def signatures(path: Path) -> dict[str, list[str]]:
    """Parameters of the public functions and methods of a file, by name."""
    parameters_by_name = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            parameters_by_name[node.name] = parameters(node)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    parameters_by_name[f"{node.name}.{method.name}"] = parameters(method)
    private = {name for name in parameters_by_name if name.rpartition(".")[2].startswith("_")}
    return {
        name: arguments
        for name, arguments in parameters_by_name.items()
        if name not in private or name.endswith(".__init__")
    }


def parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]


def test_it_has_no_function_that_libcudf_lacks():
    real = signatures(REAL)
    assert {"read_pieces", "to_arrays", "RowGroupWriter.write"} <= set(real)
    for name, arguments in signatures(Path(libcudf_stand_in.__file__)).items():
        if name in OWN or name.partition(".")[0] == "Column" or name.endswith(".__init__"):
            continue
        assert arguments == real[name], name
