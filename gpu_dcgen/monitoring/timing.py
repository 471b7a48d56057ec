"""What a build takes: seconds and memory by stage, and its margins to the contract ("Performance Requirements")."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any, Iterator

from ..backend.protocol import Backend
from ..config import count_usable_cores
from ..contract.budgets import CRITICAL_MEMORY_SHARE, evaluate_budgets
from .progress import Level, ProgressTracker

_TELLING_S = 60  # a build of less than a minute says nothing about rates


class BuildTimer:
    """Times stages, watches memory, and hands warnings on as they come."""

    def __init__(self, backend: Backend, progress: ProgressTracker) -> None:
        self.progress = progress
        self.warnings: list[str] = []
        self.current = "start"  # the stage that began last
        # of the stage that makes samples: what went into proving and counting for the gates
        self.checking_share = 0.0
        self._drawing_share = 0.0  # of the same stage: drawing negatives
        self._before = 0.0  # seconds that another process spent on what was restored
        self._backend, self._timings = backend, []
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time a stage; its seconds and the peak memory after it are kept."""
        began, self.current = time.perf_counter(), name
        with self.progress.stage(name, total):
            yield
            self._backend.synchronize()
        seconds = time.perf_counter() - began
        self._timings.append(
            {
                "stage": name,
                "seconds": round(seconds, 4),
                "peak_bytes": self._backend.memory_usage()["peak_bytes"],
            }
        )

    def record_restored(self, name: str, seconds: float) -> None:
        """A stage, or a part of one, that another process has done in so many seconds."""
        self._before += seconds
        found = {
            "stage": name,
            "seconds": round(seconds, 4),
            "peak_bytes": self._backend.memory_usage()["peak_bytes"],
        }
        self._timings.append({**found, "restored": True})

    def record_sampling(self, drawing_share: float, checking_share: float, before: float) -> None:
        """Of the stage that makes samples: shares of its kinds of work, seconds that another process spent on it."""
        self._drawing_share, self.checking_share = drawing_share, checking_share
        if before:
            self.record_restored("samples", before)

    def warn(self, texts: tuple[str, ...], level: Level = "warning") -> None:
        """Hand texts on, and keep them for the manifest."""
        for text in texts:
            self.warnings.append(text)
            self.progress.message(level, text)

    def report(
        self, counts: dict[str, dict[str, int]], written_bytes: int, memory_limit: int | None = None
    ) -> dict[str, Any]:
        """Timings per stage, samples (rows) per second of the whole build, and budgets; warns of those that are exceeded.

        Left out are only this report and a rename. `written_bytes` is the size of all files.
        """
        elapsed, memory = time.perf_counter() - self._began, self._backend.memory_usage()
        seconds = elapsed + self._before
        rate = sum(split["rows"] for split in counts.values()) / seconds
        spent: dict[str, float] = {}
        for timing in self._timings:
            spent[timing["stage"]] = spent.get(timing["stage"], 0.0) + timing["seconds"]
        drawing = self._drawing_share * spent.get("samples", 0.0)
        building = (
            sum(spent.get(stage, 0.0) for stage in ("prepare", "samples", "tables", "flush"))
            - drawing
        )
        cpu_seconds = time.process_time() - self._cpu_began
        budgets = evaluate_budgets(
            {
                "total_generation_time": seconds,
                "similarity_computation": spent.get("similarity", 0.0),
                "negative_sampling": drawing,
                "dataset_construction": building,
                "minimum_rate": rate,
                "target_rate": rate,
                "max_memory_usage": memory["peak_bytes"],
                "max_cpu_usage": cpu_seconds / elapsed / count_usable_cores(),
                "max_disk_io": written_bytes / seconds,
            }
        )
        self._alert(budgets, seconds, memory["peak_bytes"], memory_limit)
        performance = {
            "seconds": round(seconds, 3),
            "restored_seconds": round(self._before, 3),
            "samples_per_s": round(rate),
            "peak_memory_bytes": memory["peak_bytes"],
            "written_bytes": written_bytes,
            "halved_blocks": memory["n_out_of_memory"],
            "budgets": budgets,
        }
        return {"timings": self._timings, "performance": performance}

    def _alert(
        self,
        budgets: dict[str, dict[str, Any]],
        seconds: float,
        peak_bytes: int,
        memory_limit: int | None,
    ) -> None:
        for name, budget in budgets.items():
            too_short = "rate" in name and seconds < _TELLING_S
            if (
                not budget["met"] and not too_short and name != "max_cpu_usage"
            ):  # all cores at work is what threads are for
                text = f"performance: {name} is {budget['value']:,} {budget['unit']}; the contract asks for {budget['limit']:,}"
                self.warn((text,))
        if memory_limit is not None and peak_bytes > CRITICAL_MEMORY_SHARE * memory_limit:
            self.warn(
                (
                    f"memory: the peak, {peak_bytes:,} bytes, is above 90 % of the limit of {memory_limit:,}",
                ),
                "critical",
            )
