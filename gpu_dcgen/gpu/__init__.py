"""The GPU machine: CuPy, libcudf and compiled kernels behind the interface of `gpu_dcgen.backend.Backend`."""
