"""Stage 9: every planted fault is counted under its own name, and a dataset with one is not
published (D20).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cpu_fallback import NumpyBackend
from gpu_dcgen import samples
from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import GateError
from gpu_dcgen.kernels.checks import VIOLATIONS
from gpu_dcgen.quality_validator.metrics import QualityMetrics
from gpu_dcgen.samples import Group, StageResults, collect_results, gather_groups
from gpu_dcgen.sequence_builder import build_calendar
from tests.support.shops import TINY_SETTINGS, random_shop, set_options, tiny_config, write_shop
from tests.support.stage_shops import Stages

N_HARD = 2
CPU = NumpyBackend()


@dataclass
class Finished:
    """A finished block of train groups, and what it was made of."""

    stages: Stages
    results: StageResults
    group: Group

    def found(self, group: Group) -> dict[str, int]:
        metrics = QualityMetrics()
        metrics.add(group, self.results, self.stages.config, CPU)
        return {name: n for name, n in metrics.violations.items() if n}

    def with_item(self, row: int, slot: int, item: int) -> Group:
        items = self.group.item.copy()
        items[row, slot] = item
        return replace(self.group, item=items)

    def first(self, slot: int, wanted: Callable[[int, int, set[int], set[int]], bool]) -> Group:
        """The group with the first item in `slot` of the first row for which wanted(row, item,
        owned, on sale).
        """
        s, group = self.stages, self.group
        for row, user in enumerate(group.user.tolist()):
            owned = s.oracle.owned(user, group.positives.window_end)
            on_sale = set(s.oracle_snapshots.on_sale(group.negatives.snapshot[row]))
            for item in set(range(s.log.n_items)) - set(group.item[row].tolist()):
                if wanted(group.item[row, 0], item, owned, on_sale):
                    return self.with_item(row, slot, item)
        raise LookupError("no such item: choose another shop")


@pytest.fixture(scope="module")
def finished() -> Finished:
    s = Stages(CPU, random_shop(5, n_users=14, n_items=26, n_rows=280, minutes=True), tiny_config())
    calendar = build_calendar(s.log.first_time, s.log.last_time, s.config, CPU)
    results = collect_results(s.sampler_inputs, s.plan, None, calendar, 0, s.config, CPU)
    return Finished(
        s,
        results,
        gather_groups(
            s.plan.positives[0], slice(0, len(s.plan.positives[0])), results, s.config, CPU
        ),
    )


def out_of_the_vocabulary(f: Finished) -> Group:
    return f.with_item(3, 4, f.stages.log.n_items)


def below_the_vocabulary(f: Finished) -> Group:
    return f.with_item(3, 4, -1)


def twice(f: Finished) -> Group:
    return f.with_item(2, 5, int(f.group.item[2, 4]))


def owned(f: Finished) -> Group:
    return f.first(5, lambda i, j, owned, on_sale: j in owned and j in on_sale)


def owned_hard(f: Finished) -> Group:
    return f.first(
        1,
        lambda i, j, owned, on_sale: (
            j in owned and j in on_sale and not f.stages.oracle.siblings(i, j)
        ),
    )


def off_sale(f: Finished) -> Group:
    return f.first(5, lambda i, j, owned, on_sale: j not in owned and j not in on_sale)


def sibling(f: Finished) -> Group:
    return f.first(
        2,
        lambda i, j, owned, on_sale: (
            j not in owned and j in on_sale and f.stages.oracle.siblings(i, j)
        ),
    )


def of_another_window(f: Finished) -> Group:
    """The positive becomes a later purchase of its item by its user."""
    rows, log = f.group.row.copy(), f.stages.expected_log
    for place, row in enumerate(rows.tolist()):
        later = [
            r
            for r, e in enumerate(log)
            if e[:2] == log[row][:2] and e.time >= f.group.positives.window_end
        ]
        if later:
            rows[place] = later[0]
            return replace(f.group, row=rows)
    raise LookupError("nobody bought again: choose another shop")


def another_item(f: Finished) -> Group:
    """The positive's item is not the one that was bought: neither owned nor off sale."""
    return f.first(
        0, lambda i, j, owned, on_sale: j in on_sale and not f.stages.oracle.siblings(i, j)
    )


def own_basket(f: Finished) -> Group:
    return replace(
        f.group,
        history_length=f.group.history_length + (np.arange(len(f.group.row)) == 4).astype(np.int32),
    )


def anothers_history(f: Finished) -> Group:
    start, length = f.group.history_start.copy(), f.group.history_length.copy()
    place = next(p for p, user in enumerate(f.group.user.tolist()) if user > 0)
    length[place] += (
        start[place] - f.stages.host(f.stages.log.user_offsets)[f.group.user[place]] + 1
    )
    start[place] = f.stages.host(f.stages.log.user_offsets)[f.group.user[place]] - 1
    return replace(f.group, history_start=start, history_length=length)


RANGE, TWICE, OWNED, NOT_ON_SALE, WINDOW, HISTORY, SIBLING = VIOLATIONS
FAULTS = {
    out_of_the_vocabulary: RANGE,
    below_the_vocabulary: RANGE,
    twice: TWICE,
    owned: OWNED,
    owned_hard: OWNED,
    off_sale: NOT_ON_SALE,
    of_another_window: WINDOW,
    another_item: WINDOW,
    own_basket: HISTORY,
    anothers_history: HISTORY,
    sibling: SIBLING,
}


def test_every_rule_has_a_planted_fault():
    assert set(FAULTS.values()) == set(VIOLATIONS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_counted_under_its_name_alone(fault, finished):
    assert finished.found(finished.group) == {}
    assert finished.found(fault(finished)) == {FAULTS[fault]: 1}


def test_a_sibling_among_the_random_ones_is_no_fault(finished):
    assert (
        finished.found(
            finished.first(5, lambda i, j, owned, on_sale: j not in owned and j in on_sale)
        )
        == {}
    )


def test_blocks_add_up_to_the_whole(finished):
    """Counts of groups, sources, relaxed choices and faults, merged in any order."""
    s, positives = finished.stages, finished.stages.plan.positives[0]
    blocks = []
    for first in range(0, len(positives), 7):
        rows = slice(first, min(len(positives), first + 7))
        blocks.append(QualityMetrics())
        blocks[-1].add(
            gather_groups(positives, rows, finished.results, s.config, CPU),
            finished.results,
            s.config,
            CPU,
        )
    blocks[1].add(twice(finished), finished.results, finished.stages.config, CPU)
    whole, forward, backward = QualityMetrics(), QualityMetrics(), QualityMetrics()
    whole.add(twice(finished), finished.results, finished.stages.config, CPU)
    whole.add(finished.group, finished.results, finished.stages.config, CPU)
    for block in blocks:
        forward.merge(block)
    for block in reversed(blocks):
        backward.merge(block)
    assert forward == backward == whole
    assert whole.groups == 2 * len(positives)
    assert whole.negatives_verified == 5 * whole.groups
    assert sum(whole.hard_by_source.values()) == N_HARD * whole.groups
    assert whole.violations[TWICE] == 1


def an_item_twice(*arguments):
    drawn = sample_negatives(*arguments)
    drawn.item[0, -1] = drawn.item[0, 0]
    return drawn


sample_negatives = samples.sample_negatives


def staged(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in ("input", "output")]


def test_a_faulty_data_set_is_kept_aside_and_not_published(tmp_path, monkeypatch):
    write_shop(random_shop(3, n_users=16, n_items=24, n_rows=260), tmp_path / "input")
    monkeypatch.setattr(samples, "sample_negatives", an_item_twice)
    with pytest.raises(
        GateError, match=r"no_duplicates: groups with an item twice is \d+, expected <= 0"
    ) as caught:
        build(tmp_path / "input", tmp_path / "output", tiny_config(), backend="cpu")
    folder = staged(tmp_path)[0] / "data"
    assert str(folder) in str(caught.value)
    assert (folder / "train_dataset.parquet").exists()
    assert json.loads((folder / "quality_report.json").read_text())["verdict"] == "failed"
    assert not (folder / "manifest.json").exists()
    assert not (tmp_path / "output").exists()


def test_the_command_says_so_and_exits_with_3(tmp_path, monkeypatch):
    write_shop(random_shop(3, n_users=16, n_items=24, n_rows=260), tmp_path / "input")
    sets = set_options(TINY_SETTINGS)
    command = [
        "build",
        str(tmp_path / "input"),
        str(tmp_path / "output"),
        "--quiet",
        "--overwrite",
        *sets,
    ]
    assert CliRunner().invoke(app, command).exit_code == 0
    before = json.loads((tmp_path / "output" / "manifest.json").read_text())
    monkeypatch.setattr(samples, "sample_negatives", an_item_twice)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3, result.output
    (folder,) = staged(tmp_path)
    message = "".join(result.stderr.split())
    assert str(folder) in message
    assert "no_duplicates" in message
    assert "Traceback" not in result.stderr
    assert json.loads((tmp_path / "output" / "manifest.json").read_text()) == before
