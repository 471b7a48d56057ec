"""Run builds from tables to a published dataset (contract module): `build` and `append`."""

from .builder import BuildResult, append, build, select

__all__ = ["BuildResult", "append", "build", "select"]
