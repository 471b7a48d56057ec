"""Small shops that are built and audited, and what an audit says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import build
from tests.support.shops import Tables, random_shop, tiny_config, write_shop


def shop_with_views(seed: int = 2) -> Tables:
    return random_shop(seed, n_users=18, n_items=26, n_rows=320, minutes=True, views=True)


def build_shop(tables: Tables | None, folder: Path, config: DatasetConfig | None = None) -> Path:
    """Write the tables to folder/input, unless it has some, and build folder/output."""
    if tables is not None:
        write_shop(tables, folder / "input")
    config = config or tiny_config()
    return build(folder / "input", folder / "output", config, backend="cpu", overwrite=True).output


def get_check(certificate: dict[str, Any], rule: str) -> dict[str, Any]:
    (check,) = [check for check in certificate["checks"] if check["name"] == rule]
    return check


def get_faults(certificate: dict[str, Any]) -> dict[str, list]:
    """The first offenders of each rule that fails."""
    return {
        check["name"]: check["offenders"]
        for check in certificate["checks"]
        if check["verdict"] == "fails"
    }
