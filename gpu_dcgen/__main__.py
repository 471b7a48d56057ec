"""`python -m gpu_dcgen` is `gpu-dcgen`."""

from .cli.build_commands import app

app(prog_name="gpu-dcgen")
