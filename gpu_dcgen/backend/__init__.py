"""The devices that stages run on: `Backend`, its selection, and the GPU implementation.

The CPU implementation is the package `cpu_fallback`.
"""

from .protocol import Array, Backend, Column
from .select import select_backend

__all__ = ["Array", "Backend", "Column", "select_backend"]
