"""Parts are written in order by many threads, and one thread's failure ends them all."""

from __future__ import annotations

import gc
import json
import threading
import time

import pytest

from cpu_fallback import NumpyBackend, PartWriter
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.outputs import part_writer
from gpu_dcgen.outputs.part_writer import _interleave_blocks
from gpu_dcgen.outputs.parts import Part
from tests.dataset_generator.test_against_reference import read
from tests.support.shops import random_shop, tiny_config, write_shop


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetConfig, "n_threads", property(lambda self: 5))
    return write_shop(random_shop(1, n_users=16, n_items=24, n_rows=260), tmp_path / "input")


def test_blocks_of_parts_side_by_side_come_in_order_within_each(tmp_path):
    laid_out = [
        Part(0, 0, 7, tmp_path, "a"),
        Part(0, 7, 10, tmp_path, "b"),
        Part(1, 0, 4, tmp_path, "c"),
    ]
    blocks = [
        (laid_out.index(part), rows.start, rows.stop)
        for part, rows in _interleave_blocks(laid_out, 2, 3)
    ]
    assert blocks == [(0, 0, 3), (1, 7, 10), (0, 3, 6), (0, 6, 7), (2, 0, 3), (2, 3, 4)]


def test_blocks_that_are_ready_out_of_turn_are_written_in_order(shop, tmp_path, monkeypatch):
    gather, calls = part_writer.gather_groups, []

    def slow(positives, rows, *rest):
        calls.append(rows.start)
        time.sleep(0.01 * (len(calls) % 4))
        return gather(positives, rows, *rest)

    expected = build(shop, tmp_path / "straight", tiny_config(), backend="cpu").output
    monkeypatch.setattr(part_writer, "gather_groups", slow)
    output = build(
        shop, tmp_path / "hurried", tiny_config(resources={"batch_size": 1}), backend="cpu"
    ).output
    ids = read(output / "train_dataset.parquet")["sample_id"]
    assert ids == sorted(ids) == read(expected / "train_dataset.parquet")["sample_id"]


def test_nothing_is_held_of_parts_that_are_closed(shop, tmp_path, monkeypatch):
    """Thousands of them would fill the memory with what their writers have buffered."""
    require_rows, left = pipeline.require_rows, []
    gc.collect()  # writers that failed builds of other tests have left

    def count(written, config):
        left.append([part.name for part in written if part.writer is not None])
        left.append([thing for thing in gc.get_objects() if type(thing) is PartWriter])
        require_rows(written, config)

    monkeypatch.setattr(pipeline, "require_rows", count)
    build(shop, tmp_path / "output", tiny_config(output={"groups_per_part": 5}), backend="cpu")
    assert left == [[], []]


def test_a_checksum_does_not_hold_up_the_next_part(tmp_path, monkeypatch):
    """With one thread, as on a device, the second part is written before the first has one."""
    shop = write_shop(random_shop(1, n_users=16, n_items=24, n_rows=260), tmp_path / "input")
    compute, draw = part_writer.sha256_of, part_writer.gather_groups
    hashing, drawn, order = threading.Event(), threading.Event(), []

    def wait(path):
        hashing.set()
        order.append(drawn.wait(timeout=60))
        return compute(path)

    def gather(*arguments):
        if hashing.is_set():
            drawn.set()
        return draw(*arguments)

    monkeypatch.setattr(part_writer, "sha256_of", wait)
    monkeypatch.setattr(part_writer, "gather_groups", gather)
    config = tiny_config(output={"groups_per_part": 5})
    output = build(shop, tmp_path / "output", config, backend=NumpyBackend(1)).output
    assert order[0] and len(order) > 3
    checksums = json.loads((output / "manifest.json").read_text())["checksums"]
    parts = [name for name in checksums if "part-" in name]
    assert len(parts) > 3
    assert all(checksums[name] == compute(output / name) for name in parts)


@pytest.mark.parametrize("failing", ["drawing", "writing", "checksums"])
def test_a_failing_thread_ends_the_build_and_closes_its_files(failing, shop, tmp_path, monkeypatch):
    owner, name = {
        "drawing": (part_writer, "gather_groups"),
        "writing": (PartWriter, "write"),
        "checksums": (part_writer, "sha256_of"),
    }[failing]
    original, calls = getattr(owner, name), []

    def fail_at_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("planted")
        return original(*arguments)

    monkeypatch.setattr(owner, name, fail_at_third)
    with pytest.raises(RuntimeError, match="planted"):
        config = tiny_config(resources={"batch_size": 1}, output={"groups_per_part": 5})
        build(shop, tmp_path / "output", config, backend="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".output.staging", "input"]
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith("samples")
    ]
