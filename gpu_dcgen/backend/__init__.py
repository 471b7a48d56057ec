"""The seam: `Backend`, its selection, and the GPU side (`cpu_fallback` is the CPU side)."""

from .protocol import Array, Backend, Column
from .select import select_backend

__all__ = ["Array", "Backend", "Column", "select_backend"]
