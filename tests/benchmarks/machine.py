"""What a measurement was taken on: processor, memory, system, packages, commit. No names of hosts, users or folders."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from gpu_dcgen.config import count_usable_cores

from .measure import ROOT


def describe() -> dict[str, Any]:
    """Everything that a figure depends on beside the data."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "commit": commit(),
        "processor": processor(),
        "cores": count_usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": dict(sorted((dist.name, dist.version) for dist in metadata.distributions())),
    }


def processor() -> str:
    """The processor's model, where the system tells it (Linux), else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(models)) or platform.processor() or platform.machine()


def commit() -> str:
    """The checkout's commit, with '+changes' if files differ from it; 'unknown' outside a checkout."""

    def git(*arguments: str) -> str | None:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return None if run.returncode else run.stdout.strip()

    if (head := git("rev-parse", "--short=12", "HEAD")) is None:
        return "unknown"
    return head + (
        "+changes"
        if git("status", "--porcelain", "--", "gpu_dcgen", "cpu_fallback", "tests")
        else ""
    )
