"""Read tables once for several builds, each of which takes the rows of its own period."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..errors import OutputError
from ..inputs.origins import InputTables
from ..inputs.shop import InputFile, Shop, accept_rows, read_shop
from ..storage.checkpoints import Checkpoints
from .build_key import hash_inputs, require_unchanged_inputs

_NAME = "tables"


@dataclass(frozen=True)
class SharedTables:
    """Decoded tables in files: a build maps them, and none is in memory between two builds."""

    label: str  # of the tables, for messages
    files: tuple[InputFile, ...]
    store: Checkpoints

    def load(self, config: DatasetConfig, backend: Backend, rejects: Path | None) -> Shop:
        """Return the shop of a period, as `load_shop` would load it from the tables.

        InputError for bad rows; OutputError where the decoded tables could not be written, or are
        damaged.
        """
        decoded = self.store.load(_NAME)
        if decoded is None:
            raise OutputError(
                f"{self.store.folder}: the decoded tables cannot be read back.\n"
                "Free some space on the disk of OUTPUT, and build again."
            )
        return accept_rows(decoded, self.label, config, backend, rejects=rejects)


def share_tables(
    tables: InputTables, config: DatasetConfig, backend: Backend, folder: Path
) -> tuple[Shop, SharedTables]:
    """Read tables, and write them decoded below `folder`; also return the shop of all rows.

    InputError as `load_shop`, and where a file changed while it was read.
    """
    before = hash_inputs(tables, config)
    shop, decoded = read_shop(tables, config, backend)
    require_unchanged_inputs({"inputs": before}, shop.report)
    store = Checkpoints(folder, backend)
    store.open({"inputs": before})
    store.save(_NAME, decoded)
    store.close(save_pending=True)
    return shop, SharedTables(tables.label, decoded.files, store)
