"""Run the stages of a build on a share of the customers, and measure them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..context import BuildContext
from ..dataset_generator.pipeline import PreparedStages, run_stages, write_items, write_tables
from ..inputs.origins import InputTables
from ..monitoring.progress import ProgressTracker
from ..monitoring.timing import BuildTimer
from ..outputs.parts import lay_out_parts
from ..outputs.samples import write_samples
from ..storage.staging import Staging

_BLOCKS_PER_THREAD = 2  # of samples that are written
_INTERVAL_S = 0.01  # between two looks at the memory


@dataclass(frozen=True)
class Trial:
    """What the stages computed and wrote of a log, and what they took."""

    n_rows: int  # transactions
    positives: dict[str, int]  # by split
    pairs_by_item: Array  # (I,) int64  pairs of neighbors
    seconds: dict[str, float]  # by stage; of `samples` for those that were written
    n_written: int  # positives
    sample_bytes: int  # of their files
    table_bytes: dict[str, int]  # by file
    n_lists: int  # of candidates, one for each item and snapshot of a positive
    n_on_sale: int  # items on sale, over all snapshots
    drawing_share: float  # of the seconds in `samples`
    base_bytes: int  # of memory, before the stages
    stage_bytes: int  # peak of the stages before the samples
    block_bytes: int  # what writing samples and tables added to it
    snapshot_bytes: int  # which grow with items, not with rows

    @property
    def n_pairs(self) -> int:
        """Pairs of neighbors."""
        return int(self.pairs_by_item.sum())


def run_trial(
    inputs: InputTables | Path, folder: Path, config: DatasetConfig, backend: Backend
) -> Trial:
    """Run the stages on the tables in `inputs`, and write below `folder`.

    All tables are written, and a few blocks of samples. Errors are those of a build.
    """
    timer = BuildTimer(backend, ProgressTracker())
    context = BuildContext(config, backend, timer)
    staging = Staging(folder, overwrite=False)
    with _PeakMemory() as stages:
        prepared = run_stages(inputs, context)
    few = _choose_positives(prepared, context)
    with _PeakMemory() as writing:
        with timer.stage("samples"):
            settings = _with_a_part_per_thread(few.n_groups, config, backend)
            parts = lay_out_parts(staging.path, few.results, settings)
            written = write_samples(parts, few.results, context)
        sample_bytes = _size(staging.path)
        with timer.stage("tables"):
            write_tables(staging.path, prepared.results, context)
            write_items(staging.path, prepared.results, written.metrics, context)
        with timer.stage("flush"):
            staging.flush()
    files = {file.stem: file.stat().st_size for file in staging.path.glob("*.parquet")}
    neighbors, snapshots = prepared.results.neighbors, prepared.results.features.snapshots
    by_item = (
        snapshots.popularity,
        snapshots.price,
        snapshots.price_category,
        snapshots.on_sale,
    )
    return Trial(
        n_rows=prepared.report.rows["transactions"].read,
        positives={p.split: len(p) for p in prepared.results.plan.positives},
        pairs_by_item=neighbors.offsets[1:] - neighbors.offsets[:-1],
        seconds={timing.stage: timing.seconds for timing in timer.timings},
        n_written=few.n_groups,
        sample_bytes=sample_bytes,
        table_bytes={name: n for name, n in files.items() if not name.endswith("_dataset")},
        n_lists=int(prepared.results.candidates.lists.key.shape[0]),
        n_on_sale=int(snapshots.on_sale.sum()),
        drawing_share=written.drawing_share,
        base_bytes=stages.start_bytes,
        stage_bytes=stages.peak_bytes,
        block_bytes=writing.peak_bytes - writing.start_bytes,
        snapshot_bytes=sum(int(array.nbytes) for array in by_item),
    )


def _with_a_part_per_thread(
    n_groups: int, config: DatasetConfig, backend: Backend
) -> DatasetConfig:
    size = max(1, -(-n_groups // backend.n_threads))
    output = config.output.model_copy(update={"groups_per_part": size})
    return config.model_copy(update={"output": output})


def _choose_positives(prepared: PreparedStages, context: BuildContext) -> PreparedStages:
    """Return the stages with a few blocks of train positives, spread over time."""
    xp, results = context.backend.xp, prepared.results
    train = results.plan.positives[0]
    n = len(train)
    size = min(context.config.resources.batch_size, n)
    n_blocks = max(1, min(context.backend.n_threads * _BLOCKS_PER_THREAD, n // max(1, size)))
    starts = [(n - size) * k // max(1, n_blocks - 1) for k in range(n_blocks)]
    chosen = xp.concatenate([xp.arange(start, start + size) for start in starts])
    few = [replace(train, row=train.row[chosen], copy=train.copy[chosen])]
    few += [replace(p, row=p.row[:0], copy=p.copy[:0]) for p in results.plan.positives[1:]]
    plan = replace(results.plan, positives=tuple(few))
    return replace(prepared, results=replace(results, plan=plan))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class _PeakMemory:
    """The most memory of this process while the context lasts, seen from a thread."""

    def __enter__(self) -> _PeakMemory:
        self._process, self._ended = psutil.Process(), threading.Event()
        self.start_bytes = self.peak_bytes = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
