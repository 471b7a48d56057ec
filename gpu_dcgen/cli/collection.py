"""Keep the garbage collector away from the objects of modules.

The modules of a build consist of 190,000 objects that live as long as the process. To look through
them again and again while they are imported takes a tenth of a second, and once more at the end a
third.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# The interpreter looks through all objects before it ends. The system frees their memory anyway.
atexit.register(gc.freeze)


@contextmanager
def keep_objects() -> Iterator[None]:
    """Collect nothing while the context lasts, and nothing that is there at its first end."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once a process: later garbage is to be collected
            gc.freeze()
        gc.enable()
