"""Describe the machine of a measurement, without names of hosts, users or folders."""

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
    """Return what figures depend on besides the data."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "commit": find_commit(),
        "processor": find_processor(),
        "cores": count_usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": dict(sorted((dist.name, dist.version) for dist in metadata.distributions())),
    }


def find_processor() -> str:
    """Return the processor's model where the system has it (Linux), else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(models)) or platform.processor() or platform.machine()


def find_commit() -> str:
    """Return the commit, with '+changes' if files differ; 'unknown' outside a checkout."""

    def git(*arguments: str) -> str | None:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return None if run.returncode else run.stdout.strip()

    if (head := git("rev-parse", "--short=12", "HEAD")) is None:
        return "unknown"
    changes = git("status", "--porcelain", "--", "gpu_dcgen", "cpu_fallback", "tests")
    return f"{head}+changes" if changes else head
