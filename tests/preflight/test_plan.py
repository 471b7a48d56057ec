"""A plan predicts what a build writes, from all that some customers bought."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cpu_fallback import NumpyBackend
from gpu_dcgen.cli import app
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError
from gpu_dcgen.example_data.fashion_shop import generate
from gpu_dcgen.inputs.sources import find_sources
from gpu_dcgen.preflight import plan as planning
from gpu_dcgen.preflight.log_sample import write_log_sample
from gpu_dcgen.preflight.trial import Trial
from tests.benchmarks.planning import comparison

WITHIN = 0.30


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """The tables of a made-up shop of 300,000 transactions."""
    folder = tmp_path_factory.mktemp("planned") / "shop"
    generate(folder, scale=0.01)
    return folder


@pytest.fixture(scope="module")
def manifest(shop) -> dict:
    return build(
        shop, shop.parent / "dataset", backend=NumpyBackend(n_threads=2)
    ).manifest.to_dict()


@pytest.fixture(scope="module")
def whole(shop) -> dict:
    """The plan with default settings."""
    return plan(shop)


def plan(shop: Path, **settings) -> dict:
    return asdict(planning.plan(shop, DatasetConfig(**settings), NumpyBackend(n_threads=2)))


def errors(plan: dict, manifest: dict) -> dict[str, float]:
    return {name: predicted / true - 1 for name, predicted, true in comparison(plan, manifest)}


def test_rows_are_exact_where_everyone_is_tried(whole, manifest):
    assert whole["share"] == 1
    assert whole["rows"] == {split: counts["rows"] for split, counts in manifest["counts"].items()}
    assert whole["pairs"] == manifest["similarity"]["pairs"]


def test_bytes_are_near_where_everyone_is_tried(whole, manifest):
    bytes_errors = {
        name: error for name, error in errors(whole, manifest).items() if name.startswith("bytes")
    }
    assert len(bytes_errors) == 7
    assert {name: error for name, error in bytes_errors.items() if abs(error) > WITHIN} == {}


def test_every_stage_of_a_build_has_its_time_after_the_start_of_any_build(whole, manifest):
    assert list(whole["seconds"]) == ["start", *(timing["stage"] for timing in manifest["timings"])]
    assert min(whole["seconds"].values()) > 0


def test_a_plan_has_the_budgets_of_a_manifest(whole, manifest):
    budgets = manifest["performance"]["budgets"]
    assert {name: budget["limit"] for name, budget in whole["budgets"].items()} == {
        name: budgets[name]["limit"] for name in whole["budgets"]
    }
    assert whole["budgets"]["max_memory_usage"]["value"] == whole["peak_bytes"]
    assert whole["budgets"]["total_generation_time"]["value"] == pytest.approx(
        sum(whole["seconds"].values()), abs=1e-3
    )


def test_memory_holds_the_log_and_what_every_build_holds(whole):
    assert whole["peak_bytes"] > 300 * 10**6 + 40 * whole["transactions"]


@pytest.mark.parametrize("n_rows", [60_000, 150_000])
def test_a_fifth_and_a_half_of_the_customers_tell_rows_and_bytes(
    shop, manifest, monkeypatch, n_rows
):
    monkeypatch.setattr(planning, "SAMPLE_ROWS", n_rows)
    estimate = plan(shop)
    assert estimate["share"] == pytest.approx(n_rows / estimate["transactions"], rel=0.2)
    far = {name: error for name, error in errors(estimate, manifest).items() if abs(error) > WITHIN}
    assert not far.keys() & {
        "rows",
        "rows, train",
        "rows, val",
        "rows, test",
        "bytes",
        "bytes, user_sequences",
    }


def trial_of_a_quarter() -> Trial:
    """What was tried of a log of 8,000 rows with 2,000 of them."""
    return Trial(
        n_rows=2_000,
        positives={"train": 80, "val": 6, "test": 4},
        pairs_by_item=np.array([0, 2, 8]),
        seconds={"load": 1.0, "samples": 3.0, "tables": 1.0, "flush": 0.5},
        n_written=50,
        sample_bytes=5_000,
        table_bytes={"item_similarity_matrix": 100, "user_sequences": 300, "item_vocabulary": 40},
        n_lists=20,
        n_on_sale=50,
        drawing_share=0.5,
        base_bytes=1_000,
        stage_bytes=1_000 + 600 + 24 * 10 + 2_000,
        block_bytes=70,
        snapshot_bytes=600,
    )


def test_memory_grows_with_rows_and_pairs_but_not_the_process_and_the_snapshots():
    peak = planning._estimate_peak(trial_of_a_quarter(), 0.25, pairs=30)
    assert peak == 1_000 + 600 + 4 * 2_000 + 24 * 30 + 70


def test_pairs_of_an_item_grow_with_its_buyers_up_to_the_most_that_are_listed():
    config = DatasetConfig(similarity={"min_common_users": 8, "top_k": 2})
    # Two buyers in common are asked for instead of eight: a quarter, as of the customers.
    assert planning._min_common_users(0.25, config) == 2
    pairs = planning._estimate_pairs(trial_of_a_quarter(), 0.25, config, NumpyBackend())
    assert pairs == 0 + 2 + 2


def test_bytes_and_seconds_follow_what_they_depend_on():
    positives = {"train": 320, "val": 24, "test": 16}
    files = planning._estimate_bytes(trial_of_a_quarter(), 0.25, positives, pairs=30)
    assert files == {
        "train_dataset": 32_000,
        "val_dataset": 2_400,
        "test_dataset": 1_600,
        "item_similarity_matrix": 300,
        "user_sequences": 1_200,
        "item_vocabulary": 40,
    }
    seconds = planning._estimate_seconds(trial_of_a_quarter(), 0.25, positives, files)
    assert seconds["load"] == 4.0
    assert seconds["samples"] == pytest.approx(3.0 * 360 / 50)
    assert seconds["tables"] == pytest.approx(1_540 / 440)


def test_lists_grow_with_the_log_until_every_item_on_sale_has_one():
    positives = {"train": 320, "val": 24, "test": 16}
    trial = replace(trial_of_a_quarter(), table_bytes={"hard_candidates": 200})
    # 20 lists of 50 items on sale: at most 2.5 times as many, although the log is 4 times as long.
    assert planning._estimate_bytes(trial, 0.25, positives, pairs=30)["hard_candidates"] == 500
    assert planning._estimate_bytes(trial, 0.5, positives, pairs=30)["hard_candidates"] == 400


def test_a_fault_seen_in_a_sample_is_told_as_such(shop, tmp_path, monkeypatch):
    log = pq.read_table(shop / "transactions.parquet")
    prices = pa.array([-1.0] * log.num_rows)
    (spoilt := tmp_path / "spoilt").mkdir()
    pq.write_table(
        log.set_column(log.column_names.index("price"), "price", prices),
        spoilt / "transactions.parquet",
    )
    for name in ("articles", "customers"):
        (spoilt / f"{name}.parquet").symlink_to(shop / f"{name}.parquet")
    with pytest.raises(InputError, match="price") as whole:
        plan(spoilt)
    assert "sample" not in str(whole.value)
    monkeypatch.setattr(planning, "SAMPLE_ROWS", 60_000)
    with pytest.raises(InputError, match=r"(?s)price.*Seen in a sample of [12]\d\.\d% of the log"):
        plan(spoilt)


def test_nothing_stays_behind(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "SAMPLE_ROWS", 60_000)
    monkeypatch.setattr(planning.tempfile, "tempdir", str(tmp_path))
    before = sorted(shop.iterdir())
    plan(shop)
    assert list(tmp_path.iterdir()) == []
    assert sorted(shop.iterdir()) == before


def test_a_sample_is_all_that_its_customers_bought(shop, tmp_path):
    sources = find_sources(shop, DatasetConfig().inputs)
    larger = write_log_sample(sources, tmp_path / "larger", 0.2)
    smaller = write_log_sample(sources, tmp_path / "smaller", 0.05)
    log, sample, fewer = (
        pq.read_table(folder / "transactions.parquet")
        for folder in (shop, larger.tables.folder, smaller.tables.folder)
    )
    users = set(sample["customer_id"].to_pylist())
    everything = log.filter(pa.array([user in users for user in log["customer_id"].to_pylist()]))
    assert sample.select(sorted(sample.column_names)).equals(
        everything.select(sorted(sample.column_names))
    )
    assert set(fewer["customer_id"].to_pylist()) < users
    assert users <= set(
        pq.read_table(larger.tables.folder / "customers.parquet")["customer_id"].to_pylist()
    )
    assert larger.share == sample.num_rows / log.num_rows == pytest.approx(0.2, rel=0.2)


def test_customers_are_found_again_whatever_type_their_ids_have(tmp_path):
    ids = list(range(1000, 1400))
    tables = {
        "articles": {"article_id": ["a"], "product_group_name": ["g"]},
        "customers": {"customer_id": pa.array(ids, pa.int64())},
        "transactions": {
            "t_dat": ["2020-01-01"] * 400,
            "customer_id": pa.array(ids, pa.int32()),
            "article_id": pa.array(["a"] * 400).dictionary_encode(),
            "price": [1.0] * 400,
        },
    }
    (shop := tmp_path / "shop").mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), shop / f"{name}.parquet")
    sample = write_log_sample(find_sources(shop, DatasetConfig().inputs), tmp_path / "sample", 0.5)
    bought = pq.read_table(sample.tables.folder / "transactions.parquet")["customer_id"].to_pylist()
    assert 100 < len(bought) < 300
    assert (
        bought
        == pq.read_table(sample.tables.folder / "customers.parquet")["customer_id"].to_pylist()
    )


def test_the_command_prints_a_plan(shop):
    run = CliRunner().invoke(app, ["plan", str(shop), "--threads", "2", "--backend", "cpu"])
    assert run.exit_code == 0, run.output
    assert "A build will make about" in run.output
    assert "performance budgets met" in run.output


def test_a_plan_for_programs_is_one_json_object(shop):
    run = CliRunner().invoke(
        app, ["plan", str(shop), "--json", "--backend", "cpu", "--set", "output.shape=triplet"]
    )
    last = json.loads(run.stdout.splitlines()[-1])
    assert last["event"] == "planned"
    assert last["plan"]["rows"] == last["plan"]["positives"]


def test_inputs_that_cannot_be_used_have_no_plan(tmp_path):
    run = CliRunner().invoke(app, ["plan", str(tmp_path), "--backend", "cpu"])
    assert run.exit_code == 2
    assert "transactions.parquet" in run.output
