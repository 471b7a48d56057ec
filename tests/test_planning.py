"""What a plan predicts, a build then makes; and a sample of a log is all that some customers bought."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cpu_fallback import NumpyBackend
from gpu_dcgen import planning
from gpu_dcgen.cli import app
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.input_files import find_sources
from gpu_dcgen.log_sample import write_samples_of
from gpu_dcgen.synth import generate
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
    return build(shop, shop.parent / "dataset", backend=NumpyBackend(n_threads=2)).manifest


def plan(shop: Path, **settings) -> dict:
    config = DatasetConfig(**settings)
    return json.loads(json.dumps(replace(planning.plan(shop, config, NumpyBackend(n_threads=2))).__dict__))


def errors(plan: dict, manifest: dict) -> dict[str, float]:
    return {name: predicted / true - 1 for name, predicted, true in comparison(plan, manifest)}


def test_rows_are_exact_where_everyone_is_tried(shop, manifest):
    found = plan(shop)
    assert found["share"] == 1
    assert found["rows"] == {split: counts["rows"] for split, counts in manifest["counts"].items()}
    assert found["pairs"] == manifest["similarity"]["pairs"]


def test_bytes_are_near_where_everyone_is_tried(shop, manifest):
    found = errors(plan(shop), manifest)
    assert {name: error for name, error in found.items() if "bytes" in name and abs(error) > WITHIN} == {}


@pytest.mark.parametrize("n_rows", [60_000, 150_000])
def test_a_fifth_and_a_half_of_the_customers_tell_rows_and_bytes(shop, manifest, monkeypatch, n_rows):
    monkeypatch.setattr(planning, "SAMPLE_ROWS", n_rows)
    found = plan(shop)
    assert found["share"] == pytest.approx(n_rows / found["transactions"], rel=0.2)
    far = {name: error for name, error in errors(found, manifest).items() if abs(error) > WITHIN}
    assert not far.keys() & {"rows", "rows, train", "rows, val", "rows, test", "bytes", "bytes, user_sequences"}


def test_fewer_negatives_are_fewer_rows(shop):
    found = plan(shop, negative_sampling={"random_negatives_per_positive": 2, "hard_negatives_per_positive": 1})
    assert found["rows"] == {split: 4 * n for split, n in found["positives"].items()}


def test_a_sample_is_all_that_its_customers_bought(shop, tmp_path):
    sources = find_sources(shop, DatasetConfig().inputs)
    larger, smaller = write_samples_of(sources, (tmp_path / "larger", tmp_path / "smaller"), (0.2, 0.05))
    log, kept, fewer = (pq.read_table(folder / "transactions.parquet") for folder in (shop, larger.folder, smaller.folder))
    users = set(kept["customer_id"].to_pylist())
    everything = log.filter(pa.array([user in users for user in log["customer_id"].to_pylist()]))
    assert kept.select(sorted(kept.column_names)).equals(everything.select(sorted(kept.column_names)))
    assert set(fewer["customer_id"].to_pylist()) < users
    assert users <= set(pq.read_table(larger.folder / "customers.parquet")["customer_id"].to_pylist())
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
    (sample,) = write_samples_of(find_sources(shop, DatasetConfig().inputs), [tmp_path / "sample"], [0.5])
    bought = pq.read_table(sample.folder / "transactions.parquet")["customer_id"].to_pylist()
    assert 100 < len(bought) < 300
    assert bought == pq.read_table(sample.folder / "customers.parquet")["customer_id"].to_pylist()


def test_the_command_prints_a_plan(shop):
    run = CliRunner().invoke(app, ["plan", str(shop), "--threads", "2", "--backend", "cpu"])
    assert run.exit_code == 0, run.output
    assert "A build will make about" in run.output
    assert "performance budgets met" in run.output


def test_a_plan_for_programs_is_one_json_object(shop):
    run = CliRunner().invoke(app, ["plan", str(shop), "--json", "--backend", "cpu", "--set", "output.shape=triplet"])
    last = json.loads(run.stdout.splitlines()[-1])
    assert last["event"] == "planned"
    assert last["plan"]["rows"] == last["plan"]["positives"]


def test_inputs_that_cannot_be_used_have_no_plan(tmp_path):
    run = CliRunner().invoke(app, ["plan", str(tmp_path), "--backend", "cpu"])
    assert run.exit_code == 2
    assert "articles.parquet" in run.output
