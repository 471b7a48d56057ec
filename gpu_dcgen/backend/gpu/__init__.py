"""The GPU backend: cuDF, CuPy and numba-cuda behind `gpu_dcgen.backend.Backend`.

Importing this package loads none of them: `device` finds out whether they work, `cuda_backend`
uses them. It has been opened with the libraries' own wheels, and its kernels run on the host from
the code that NVVM gets, but not yet on a GPU.
"""
