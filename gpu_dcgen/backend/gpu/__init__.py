"""The GPU machine: cuDF, CuPy and numba-cuda behind the interface of `gpu_dcgen.backend.Backend`.

Importing this package loads none of them: `device` finds out whether they work, `machine` uses them.
"""
