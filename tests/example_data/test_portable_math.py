"""Tables of one seed and scale are the same with and without the processor's vector instructions.

`python -m tests.example_data.test_portable_math FOLDER` prints a digest of each array and table.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from gpu_dcgen.example_data.fashion_shop import generate, portable_math
from gpu_dcgen.example_data.fashion_shop.articles import fit_category_shares, plan_assortment
from gpu_dcgen.example_data.fashion_shop.customers import compute_visit_intensity, draw_customers
from gpu_dcgen.example_data.fashion_shop.demand import plan_demand
from gpu_dcgen.example_data.fashion_shop.marginals import draw_daily_rows, scale_sizes
from gpu_dcgen.example_data.fashion_shop.prices import plan_prices

ROOT = Path(__file__).parents[2]
SCALE, SEED = 0.01, 42
TABLES = ("articles", "customers", "transactions")


def compute_arrays() -> dict[str, np.ndarray]:
    """The arrays that lines are drawn from, and a few customers, by name."""
    size = scale_sizes(SCALE)
    days = draw_daily_rows(SEED)
    assortment = plan_assortment(size["articles"], size["transactions"], SEED)
    demand = plan_demand(assortment, days, SEED)
    intensity = compute_visit_intensity(days)
    results = {
        "assortment": assortment,
        "demand": demand,
        "prices": plan_prices(assortment, demand, days, SEED),
        "customers": draw_customers(0, 2_000, intensity, demand, assortment.style_group, SEED),
    }
    arrays = {"days": days, "categories": fit_category_shares(), "intensity": intensity}
    for name, result in results.items():
        for field in fields(result):
            arrays[f"{name}.{field.name}"] = np.asarray(getattr(result, field.name))
    return arrays


def digest_shop(folder: Path) -> dict[str, str]:
    """SHA-256 of each array's bytes, and of each table's file."""
    generate(folder, scale=SCALE, seed=SEED)
    content = {name: array.tobytes() for name, array in compute_arrays().items()}
    content |= {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}
    return {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


def run_elsewhere(folder: Path, **variables: str) -> dict[str, str]:
    """`digest_shop` in a process with these environment variables."""
    run = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def hide_vector_instructions() -> dict[str, str]:
    """Variables with which NumPy, OpenBLAS and numba run as on an old processor of this kind."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    variables = {"NPY_DISABLE_CPU_FEATURES": " ".join(found)} if found else {}
    if platform.machine() == "x86_64":
        variables |= {"OPENBLAS_CORETYPE": "Nehalem"}
    return variables | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}


def test_tables_are_the_same_without_vector_instructions(tmp_path):
    here = run_elsewhere(tmp_path / "here")
    without = run_elsewhere(tmp_path / "without", **hide_vector_instructions())
    assert {*TABLES, "demand.share", "prices.cents", "assortment.life"} < here.keys()
    assert not {name for name in here if here[name] != without[name]}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names features of x86-64")
def test_vector_instructions_are_hidden():
    program = (
        "import json, numba, numpy as np\n"
        "x = np.linspace(0.1, 9, 999, dtype=np.float32)\n"
        "found = np.show_config(mode='dicts')['SIMD Extensions'].get('found', [])\n"
        "print(json.dumps([found, numba.config.CPU_NAME, np.exp(x).tobytes().hex()]))"
    )
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this processor has no more than NumPy's baseline")
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | hide_vector_instructions(),
        capture_output=True,
        text=True,
        check=True,
    )
    hidden, processor, exponentials = json.loads(run.stdout)
    assert (hidden, processor) == ([], "generic")
    own = np.exp(np.linspace(0.1, 9, 999, dtype=np.float32)).tobytes().hex()
    assert exponentials != own  # the test above notices functions that use them


@pytest.mark.parametrize("name", ["exp", "log", "cos"])
def test_functions_are_those_of_python(name):
    x = np.random.default_rng(0).uniform(0.01, 9, (50, 7))
    function = getattr(math, name)
    expected = [[function(value) for value in row] for row in x.tolist()]
    assert np.array_equal(getattr(portable_math, name)(x), expected)
    assert getattr(portable_math, name)(x[:, ::2]).shape == (50, 4)


def test_powers_of_doubles_are_those_of_python():
    x = np.append(np.random.default_rng(0).uniform(0, 100, 99), 0.0)
    powers = portable_math.power(x, 1.24)
    assert (powers.dtype, powers[-1]) == (np.float64, 0.0)
    assert np.array_equal(powers, [math.pow(value, 1.24) for value in x.tolist()])


def test_powers_of_single_precision_are_those_of_the_c_library():
    library = ctypes.util.find_library("m")
    if library is None:
        pytest.skip("no C library of mathematical functions under its usual name")
    powf = ctypes.CDLL(library).powf
    powf.restype, powf.argtypes = ctypes.c_float, [ctypes.c_float, ctypes.c_float]
    x = np.random.default_rng(0).uniform(0.02, 0.98, (600, 5)).astype(np.float32)
    powers = portable_math.power(x, 3.0)
    assert (powers.dtype, powers.shape) == (np.float32, (600, 5))
    assert np.array_equal(powers.ravel(), np.float32([powf(value, 3.0) for value in x.ravel()]))


if __name__ == "__main__":
    print(json.dumps(digest_shop(Path(sys.argv[1]))))
