"""The GPU backend: cuDF, CuPy and numba-cuda behind `gpu_dcgen.backend.Backend`.

Importing this package loads none of them: `device` finds out whether they work, `cuda_backend`
uses them. Compiled, simulated and checked against the libraries' signatures, but not yet run on a
GPU.
"""
