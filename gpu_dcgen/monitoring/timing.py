"""Measure time and memory of a build against the contract ("Performance Requirements")."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..backend.protocol import Backend
from ..config import count_usable_cores
from ..contract.budgets import CRITICAL_MEMORY_SHARE, MIN_RATED_SECONDS, evaluate_budgets
from ..contract.manifest import Budget, Performance, StageTiming
from .progress import Level, ProgressTracker

_CONSTRUCTION_STAGES = ("prepare", "samples", "tables", "flush")


class BuildTimer:
    """Times the stages of a build, records their memory, and reports warnings.

    Attributes:
        progress: The tracker to report to.
        warnings: The warnings so far, for the manifest.
        timings: The stages so far.
        current: The stage that began last.
        checking_share: Of the work of the stage `samples`, the share spent on checks and on counts
            for the gates.
    """

    def __init__(self, backend: Backend, progress: ProgressTracker) -> None:
        self.progress = progress
        self.warnings: list[str] = []
        self.timings: list[StageTiming] = []
        self.current = "start"
        self.checking_share = 0.0
        self._drawing_share = 0.0  # of the same work: drawing negatives
        self._restored_s = 0.0  # what another process spent on reused results
        self._backend = backend
        self._start_s, self._start_cpu_s = time.perf_counter(), time.process_time()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time a stage, and record the peak memory after it."""
        start_s, self.current = time.perf_counter(), name
        with self.progress.stage(name, total):
            yield
            self._backend.synchronize()
        self._record(name, time.perf_counter() - start_s)

    @property
    def restored_stages(self) -> list[str]:
        """Names of the stages that an earlier process computed."""
        return [timing.stage for timing in self.timings if timing.restored]

    @property
    def restored_s(self) -> float:
        """Seconds that an earlier process spent on the stages that were restored."""
        return self._restored_s

    def record_restored(self, name: str, seconds: float) -> None:
        """Record a stage, or a part of one, on which another process has spent `seconds`."""
        self._restored_s += seconds
        self._record(name, seconds, is_restored=True)

    def record_sampling(
        self, drawing_share: float, checking_share: float, restored_s: float
    ) -> None:
        """Record the shares of kinds of work in the stage `samples`.

        `restored_s` are the seconds that another process has spent on the stage.
        """
        self._drawing_share, self.checking_share = drawing_share, checking_share
        if restored_s:
            self.record_restored("samples", restored_s)

    def _record(self, name: str, seconds: float, *, is_restored: bool = False) -> None:
        timing = StageTiming(
            stage=name,
            seconds=round(seconds, 4),
            peak_bytes=self._backend.memory_usage()["peak_bytes"],
        )
        # The manifest has the key only where it is true.
        update = {"restored": True} if is_restored else {}
        self.timings.append(timing.model_copy(update=update))

    def warn(self, texts: tuple[str, ...], level: Level = "warning") -> None:
        """Report warnings, and keep them for the manifest."""
        for text in texts:
            self.warnings.append(text)
            self.progress.message(level, text)

    def report(
        self, n_rows: int, written_bytes: int, memory_limit: int | None = None
    ) -> Performance:
        """Return the time and resources of the build so far; warns of budgets that are exceeded.

        `n_rows` counts the samples, `written_bytes` the bytes of all files. Only the quality
        report, the manifest and the rename come after it.
        """
        elapsed_s = time.perf_counter() - self._start_s
        memory, total_s = self._backend.memory_usage(), elapsed_s + self._restored_s
        stage_s: dict[str, float] = {}
        for timing in self.timings:
            stage_s[timing.stage] = stage_s.get(timing.stage, 0.0) + timing.seconds
        drawing_s = self._drawing_share * stage_s.get("samples", 0.0)
        mining_s = stage_s.get("candidates", 0.0) + drawing_s
        construction_s = sum(stage_s.get(stage, 0.0) for stage in _CONSTRUCTION_STAGES)
        cpu_s = time.process_time() - self._start_cpu_s
        values = {
            "total_generation_time": total_s,
            "similarity_computation": stage_s.get("similarity", 0.0),
            "negative_sampling": mining_s,
            "dataset_construction": construction_s - drawing_s,
            "minimum_rate": n_rows / total_s,
            "target_rate": n_rows / total_s,
            "max_memory_usage": memory["peak_bytes"],
            "max_cpu_usage": cpu_s / elapsed_s / count_usable_cores(),
            "max_disk_io": written_bytes / total_s,
        }
        budgets = evaluate_budgets(values)
        self._warn_of_budgets(budgets, total_s)
        self._warn_of_memory(memory["peak_bytes"], memory_limit)
        return Performance(
            seconds=round(total_s, 3),
            restored_seconds=round(self._restored_s, 3),
            samples_per_s=round(n_rows / total_s),
            peak_memory_bytes=memory["peak_bytes"],
            written_bytes=written_bytes,
            halved_blocks=memory["n_out_of_memory"],
            budgets=budgets,
        )

    def _warn_of_budgets(self, budgets: Mapping[str, Budget], total_s: float) -> None:
        for name, budget in budgets.items():
            is_too_short = "rate" in name and total_s < MIN_RATED_SECONDS
            # Using all cores is what threads are for.
            if not budget.met and not is_too_short and name != "max_cpu_usage":
                self.warn(
                    (
                        f"performance: {name} is {budget.value:,} {budget.unit}; "
                        f"the contract asks for {budget.limit:,}",
                    )
                )

    def _warn_of_memory(self, peak_bytes: int, memory_limit: int | None) -> None:
        if memory_limit is not None and peak_bytes > CRITICAL_MEMORY_SHARE * memory_limit:
            text = (
                f"memory: the peak, {peak_bytes:,} bytes, is above {CRITICAL_MEMORY_SHARE:.0%} "
                f"of the limit of {memory_limit:,}"
            )
            self.warn((text,), "critical")
