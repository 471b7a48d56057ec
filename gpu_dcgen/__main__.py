"""`python -m gpu_dcgen` is `gpu-dcgen`."""

from .cli import app

app(prog_name="gpu-dcgen")
