"""What a plan predicts, a build then makes; and a sample of a log is all that some customers
bought.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cpu_fallback import NumpyBackend
from gpu_dcgen.cli import app
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import BackendError, InputError
from gpu_dcgen.example_data.fashion_shop import generate
from gpu_dcgen.inputs.sources import find_sources
from gpu_dcgen.preflight import plan as planning
from gpu_dcgen.preflight.log_sample import write_log_samples
from gpu_dcgen.preflight.trial import Trial, measure_fixed_cost
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
    found = {
        name: error for name, error in errors(whole, manifest).items() if name.startswith("bytes")
    }
    assert len(found) == 7
    assert {name: error for name, error in found.items() if abs(error) > WITHIN} == {}


def test_every_stage_of_a_build_has_its_time_after_the_start_of_any_build(whole, manifest):
    assert list(whole["seconds"]) == ["start", *(timing["stage"] for timing in manifest["timings"])]
    assert min(whole["seconds"].values()) > 0


def test_a_plan_has_the_budgets_of_a_manifest(whole, manifest):
    said = manifest["performance"]["budgets"]
    assert {name: budget["limit"] for name, budget in whole["budgets"].items()} == {
        name: said[name]["limit"] for name in whole["budgets"]
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
    found = plan(shop)
    assert found["share"] == pytest.approx(n_rows / found["transactions"], rel=0.2)
    far = {name: error for name, error in errors(found, manifest).items() if abs(error) > WITHIN}
    assert not far.keys() & {
        "rows",
        "rows, train",
        "rows, val",
        "rows, test",
        "bytes",
        "bytes, user_sequences",
    }


def growth() -> planning._Growth:
    """A log of 8,000 rows, tried with 2,000 and 500."""
    trial = Trial(
        n_rows=2_000,
        n_items=50,
        positives={"train": 80, "val": 6, "test": 4},
        n_unfit=10,
        n_pairs=400,
        seconds={"load": 1.0},
        peaks={"load": 300, "samples": 200},
    )
    few = replace(
        trial, n_rows=500, positives={"train": 16, "val": 2, "test": 2}, n_unfit=5, n_pairs=100
    )
    return planning._Growth(few, trial, share=0.25, n_rows=8_000)


def test_a_figure_with_a_part_that_does_not_grow_follows_its_line():
    assert growth().line(100 + 500, 100 + 2_000) == 100 + 8_000
    assert growth().line(9, 7) == 7  # noise does not shrink what a longer log holds


def test_a_figure_follows_its_power_of_the_length():
    assert growth().power(500**2, 2_000**2) == pytest.approx(2)
    assert growth().power(0, 5) == 0


def test_positives_lost_in_a_sample_come_back_with_the_other_customers():
    # 20 % of 25 were lost, then 10 % of 100: of the whole log's 400, 5 % will be.
    assert planning._positives(growth()) == {
        split: round(400 * 0.95 * n / 90) for split, n in growth().trial.positives.items()
    }


def test_a_build_that_cannot_start_is_told_with_its_words(tmp_path, monkeypatch):
    (python := tmp_path / "python").write_text("#!/bin/sh\necho no libgomp here >&2\nexit 7\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(
        BackendError, match="(?s)tiny made-up shop failed, exit code 7.*no libgomp here"
    ):
        measure_fixed_cost(tmp_path / "tiny", DatasetConfig(), NumpyBackend(n_threads=1))


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
    larger, smaller = write_log_samples(
        sources, (tmp_path / "larger", tmp_path / "smaller"), (0.2, 0.05)
    )
    log, kept, fewer = (
        pq.read_table(folder / "transactions.parquet")
        for folder in (shop, larger.folder, smaller.folder)
    )
    users = set(kept["customer_id"].to_pylist())
    everything = log.filter(pa.array([user in users for user in log["customer_id"].to_pylist()]))
    assert kept.select(sorted(kept.column_names)).equals(
        everything.select(sorted(kept.column_names))
    )
    assert set(fewer["customer_id"].to_pylist()) < users
    assert users <= set(
        pq.read_table(larger.folder / "customers.parquet")["customer_id"].to_pylist()
    )
    assert larger.share == kept.num_rows / log.num_rows == pytest.approx(0.2, rel=0.2)


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
    (sample,) = write_log_samples(
        find_sources(shop, DatasetConfig().inputs), [tmp_path / "sample"], [0.5]
    )
    bought = pq.read_table(sample.folder / "transactions.parquet")["customer_id"].to_pylist()
    assert 100 < len(bought) < 300
    assert bought == pq.read_table(sample.folder / "customers.parquet")["customer_id"].to_pylist()


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
    assert "articles.parquet" in run.output
