"""What stages move is counted rightly, and stays as little as it was made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cpu_fallback.entries import measure_entries
from gpu_dcgen.backend.blocks import Block, Codes, Lists, Values
from gpu_dcgen.backend.gpu.layout import lay_out
from gpu_dcgen.contract import schema as contract
from gpu_dcgen.digest import ContentDigest, vocabulary
from tests.gpu import traffic
from tests.support.shops import random_shop, write_shop

ROOT = Path(__file__).parents[2]
MAX_WAITS = 8  # a part: at most six of its checks and counts, one of its digest, one of its file


@pytest.fixture
def counting(monkeypatch):
    """A counter, and a backend of arrays that it counts."""
    counter = traffic.Counter()
    traffic.count_into(counter, monkeypatch)
    return counter, counter.open_machine()


def test_an_operation_counts_with_all_that_it_reads_and_writes(counting):
    counter, backend = counting
    a = backend.from_host(np.arange(1000, dtype=np.int64))
    with counter.stage("sum"):
        _ = a + 1
    assert (counter.stages["sum"].operations, counter.stages["sum"].n_bytes) == (1, 16_000)
    with counter.stage("view"):
        _ = a[10:20]
    assert counter.stages["view"] == traffic.Traffic()
    with counter.stage("gather"):
        _ = a[a]
    assert (counter.stages["gather"].operations, counter.stages["gather"].n_bytes) == (1, 24_000)
    with counter.stage("sort"):
        backend.stable_argsort(a, 10)
    assert counter.stages["sort"].n_bytes == traffic.SORT_PASSES * 12_000  # places: 32 bits
    with counter.stage("wait"):
        int(a.sum())
    assert counter.stages["wait"].syncs == 1
    assert counter.stages["sum"].syncs == 0


def test_lists_are_copied_once_into_a_file(counting):
    """Two passes over the elements, and some over the offsets, which are fewer."""
    counter, backend = counting
    rng, n, repeats = np.random.default_rng(1), 200, 16
    history = rng.integers(1, 99, 5000).astype(np.int32)
    starts, lengths = rng.integers(0, 4000, n), rng.integers(40, 60, n).astype(np.int32)
    column = Lists(*map(backend.from_host, (history, starts, lengths)), repeats)
    type_ = contract.make_arrow_schema("train_dataset").field("user_interaction_sequence").type
    with counter.stage("lists"):
        to_host = backend._transfers.download_integers
        [entries] = measure_entries({"x": column}, {"x": [slice(0, n)]}, backend.xp, to_host)["x"]
        laid_out = lay_out(type_, column, entries, backend._transfers, backend.for_each)
    expected = [history[s : s + k] for s, k in zip(starts, lengths, strict=True)]
    expected = [values for values in expected for _ in range(repeats)]
    assert backend.to_host(laid_out.elements.values).tolist() == np.concatenate(expected).tolist()
    assert np.diff(backend.to_host(laid_out.offsets)).tolist() == [len(v) for v in expected]
    n_elements = int(lengths.sum()) * repeats
    assert counter.stages["lists"].n_bytes < 12 * n_elements


def test_a_value_is_hashed_in_one_pass_and_not_repeated(counting):
    counter, backend = counting
    n, repeats = 4000, 16
    words = vocabulary(["a", "b", "c"], backend)
    values = backend.from_host(np.arange(n, dtype=np.int32))
    codes = backend.from_host(np.arange(n // repeats, dtype=np.int32) % 3)
    block = Block(0, n, {"x": Values(values), "y": Codes(codes, words, repeats)})
    with counter.stage("digest"):
        ContentDigest().add(block, backend)
    row_positions = 200 * n  # mixed once for all columns
    assert counter.stages["digest"].n_bytes - row_positions < 40 * n


@pytest.mark.slow
def test_the_stages_of_a_build_are_told_apart(tmp_path):
    shop = random_shop(3, n_users=60, n_items=30, n_rows=2500)
    tables = write_shop(shop, tmp_path / "input")
    counter = traffic.Counter()
    manifest = traffic.measure(tables, tmp_path / "output", counter)
    assert sum(counts.groups for counts in manifest.counts.values()) > 0
    assert {"load", "interactions", "features", "similarity", "samples: draw"} <= set(
        counter.stages
    )
    for name in ("load", "interactions", *(f"samples: {words}" for *_, words in traffic.PARTS)):
        assert counter.stages[name].operations > 0 and counter.stages[name].n_bytes > 0, name
    assert counter.stages["samples: draw"].kernels > 0
    # A number that is asked for each column would be some 40 waits more.
    n_parts = traffic.count_parts({split: n.groups for split, n in manifest.counts.items()})
    waits = {name: t.syncs for name, t in counter.stages.items() if name.startswith("samples: ")}
    assert sum(waits.values()) <= MAX_WAITS * n_parts, waits


def test_the_page_has_the_table_of_what_was_counted():
    page = (ROOT / "docs" / "explanation" / "gpu-cost.md").read_text("utf-8")
    counts = json.loads((ROOT / "tests/benchmarks/results/gpu_traffic.json").read_text())
    table = traffic.render(counts)
    shown = page.partition("<!-- reckoned: begin -->\n")[2].partition("<!-- reckoned: end -->")[0]
    assert shown == table
    # A whole of a table by hand: bytes in proportion, calls by parts.
    growth = traffic.HM_TRANSACTIONS / counts["transactions"]
    digest = counts["stages"]["samples: digest"]
    (row,) = [line for line in table.splitlines() if line.startswith("| samples: digest ")]
    assert row.split(" | ")[1] == f"{digest['n_bytes'] * growth / 1e9:,.0f}"


def test_parts_are_counted_as_they_are_laid_out():
    assert traffic.count_parts({"train": 65_536, "val": 65_537, "test": 98_305}) == 1 + 3 + 4
