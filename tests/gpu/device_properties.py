"""What a made-up device says of itself, as CuPy returns it; needs no library of RAPIDS."""

PROPERTIES = {
    "name": b"NVIDIA Test",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 132,
    "totalGlobalMem": 80 << 30,
}
