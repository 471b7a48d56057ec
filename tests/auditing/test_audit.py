"""audit() agrees with the build on untouched datasets, whatever the settings and inputs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from cpu_fallback.tables import parse_times as build_times
from gpu_dcgen.auditing import audit, similarity_checks
from gpu_dcgen.auditing.input_columns import parse_time
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError
from tests.support.audited_shops import build_shop, get_check, get_faults, shop_with_views
from tests.support.seeds import spread_seeds
from tests.support.shops import random_shop, shops, tiny_config, write_shop
from tests.support.variants import VARIANTS

MAX_EXAMPLES = 12  # a build and its audit take about a second
MORE_VARIANTS = {
    **VARIANTS,
    "n-tuples": {"output": {"shape": "n_tuple"}},
    "n-tuples of the contract alone": {"output": {"shape": "n_tuple", "extra_columns": False}},
    "the contract's columns alone": {"output": {"extra_columns": False}},
    "no neighbors": {"similarity": {"min_common_users": 100}},
    "the hardest by score": {"negative_sampling": {"selection": "greedy"}},
    "few candidates": {"negative_sampling": {"candidates": 3, "hard_negatives_per_positive": 3}},
    "heavy scores": {
        "negative_sampling": {
            "score": {"similarity": 1.0, "collaborative": 1.0, "price": 1.0, "popularity": 0.0}
        }
    },
    "no in-batch negatives": {"negative_sampling": {"in_batch_negatives": False}},
    "no lists of candidates": {"output": {"hard_candidates": False}},
    "resampled and shuffled": {
        "category_balancing": {"mode": "resample"},
        "output": {"order": "shuffled"},
    },
}
MAY_BE_SKIPPED = {
    "label_probe",
    "disjoint_users",
    "weights",
    "repurchases",
    "negative_details",
    "negative_log_q",
    "similarity_matrix",
    "hard_candidates",
}


def make_config(variant: str) -> DatasetConfig:
    """Return the configuration of a variant, with lists of candidates unless it says otherwise."""
    settings = MORE_VARIANTS[variant]
    return tiny_config(
        **{**settings, "output": {"hard_candidates": True, **settings.get("output", {})}}
    )


@pytest.mark.parametrize(("variant", "seed"), spread_seeds(MORE_VARIANTS, (1, 2)))
def test_what_was_built_passes(variant, seed, tmp_path):
    output = build_shop(shop_with_views(seed), tmp_path, make_config(variant))
    certificate = audit(tmp_path / "input", output)
    assert get_faults(certificate) == {}
    assert certificate["verdict"] == "holds"
    skipped = {check["name"] for check in certificate["checks"] if check["verdict"] == "skipped"}
    assert skipped <= MAY_BE_SKIPPED


@settings(max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables=shops(), variant=st.sampled_from(sorted(MORE_VARIANTS)))
def test_what_was_built_of_any_shop_passes(tables, variant, tmp_path_factory):
    """Shops of which no dataset can be made do not count as examples."""
    folder = tmp_path_factory.mktemp("shop")
    try:
        output = build_shop(tables, folder, make_config(variant))
    except InputError:
        reject()
    assert get_faults(audit(folder / "input", output)) == {}


def test_the_default_settings_pass_too(tmp_path):
    """Groups of 16, five hard negatives, weekly snapshots: on a shop of its size."""
    from gpu_dcgen.example_data.fashion_shop import generate

    generate(tmp_path / "input", scale=0.001)
    assert (
        get_faults(
            audit(tmp_path / "input", build_shop(None, tmp_path, DatasetConfig()), sample=40)
        )
        == {}
    )


# Inputs of other types and names


def rewrite(folder: Path, table: str, **columns: Any) -> pa.Table:
    """The table with columns replaced by what functions make of their Python values."""
    path = folder / f"{table}.parquet"
    content = pq.read_table(path)
    for name, change in columns.items():
        place = content.schema.get_field_index(name)
        content = content.set_column(place, name, change(content[name]))
    pq.write_table(content, path)
    return content


def test_tables_in_hive_folders(tmp_path):
    write_shop(shop_with_views(), tmp_path / "input")
    for table, key in (("articles", "product_group_name"), ("transactions", "sales_channel_id")):
        content = pq.read_table(tmp_path / "input" / f"{table}.parquet")
        (tmp_path / "input" / f"{table}.parquet").unlink()
        parts = ds.partitioning(pa.schema([content.schema.field(key)]), flavor="hive")
        ds.write_dataset(content, tmp_path / "input" / table, format="parquet", partitioning=parts)
    assert get_faults(audit(tmp_path / "input", build_shop(None, tmp_path))) == {}


def test_integer_ids_text_times_decimal_prices_and_dictionaries(tmp_path):
    write_shop(shop_with_views(), tmp_path / "input")
    for table in ("articles", "views"):
        rewrite(tmp_path / "input", table, article_id=lambda ids: ids.cast(pa.int64()))

    def iso(times: pa.ChunkedArray) -> pa.Array:
        datetimes = times.cast(pa.timestamp("us")).to_pylist()
        return pa.array([f"{time.isoformat()}.5+02:00" for time in datetimes])

    def prices(values: pa.ChunkedArray) -> pa.Array:
        decimals = [Decimal(f"{value:.4f}") for value in values.to_pylist()]
        return pa.array(decimals, pa.decimal128(9, 4))

    rewrite(
        tmp_path / "input",
        "transactions",
        t_dat=iso,
        price=prices,
        customer_id=lambda ids: ids.dictionary_encode(),
        article_id=lambda ids: ids.cast(pa.int64()).cast(pa.string()),  # without leading zeros
    )
    rewrite(tmp_path / "input", "customers", age=lambda ages: ages.cast(pa.string()))
    output = build_shop(None, tmp_path, tiny_config(inputs={"article_id_width": 10}))
    assert get_faults(audit(tmp_path / "input", output)) == {}


TIMES = (
    "2020-02-29", " 2020-02-29 ", "2020-02-29T23:59", "2020-02-29 23:59:59.123456789123",
    "2020-02-29 01:02:03,5 +05", "20200229", "2020-02-29T01:02:03.5-0530", "2020-02-29T01:02Z",
    "2020-02-29 01:02:03 UTC", "2020-02-30", "2020-02-29T24:00", "2020-W09-6",
    "2020-02-29T01:02+24", "1969-12-31T23:59:59.9Z", "1600-01-01", "9999-01-01", "", None, "soon",
)  # fmt: skip


def test_times_are_read_as_the_build_reads_them():
    theirs, valid = build_times([pa.array(TIMES)])
    assert [parse_time(text) for text in TIMES] == [
        time if known else None for time, known in zip(theirs.tolist(), valid.tolist(), strict=True)
    ]


def test_dates_other_column_names_and_index_names(tmp_path):
    tables = random_shop(1, n_users=18, n_items=26, n_rows=320)
    write_shop(tables, tmp_path / "input", unit="date")
    log = pq.read_table(tmp_path / "input" / "transactions.parquet")
    pq.write_table(
        log.rename_columns(["day", *log.column_names[1:]]),
        tmp_path / "input" / "transactions.parquet",
    )
    articles = pq.read_table(tmp_path / "input" / "articles.parquet")
    names = [
        (["Baby Sizes 50-98", "Divided", None, "Ladies Accessories"])[n % 4]
        for n in range(articles.num_rows)
    ]
    articles = articles.drop_columns("index_group_name").append_column(
        "index_name", pa.array(names)
    )
    pq.write_table(articles, tmp_path / "input" / "articles.parquet")
    output = build_shop(
        None, tmp_path, tiny_config(inputs={"columns": {"transactions": {"t_dat": "day"}}})
    )
    assert get_faults(audit(tmp_path / "input", output)) == {}


def test_bad_rows_that_the_build_set_aside(tmp_path):
    """One of each reason: the audit gives each row the reason that the build gave it."""
    tables = shop_with_views()
    good = dict(tables["transactions"][0])
    for name, value in (
        ("customer_id", None), ("article_id", ""), ("article_id", "nothing"),
        ("customer_id", "nobody"), ("t_dat", None), ("t_dat", -1), ("price", None),
        ("price", 0.0), ("price", float("nan")), ("price", 2e9),
    ):  # fmt: skip
        tables["transactions"].append({**good, name: value})
    tables["articles"] += [
        dict(tables["articles"][0]),
        {**tables["articles"][1], "colour_group_name": "Neon"},
        {"article_id": ""},
    ]
    tables["customers"] += [dict(tables["customers"][0])] * 2
    output = build_shop(
        tables, tmp_path, tiny_config(inputs={"on_bad_rows": "reject", "min_quality_score": 0.5})
    )
    manifest = json.loads((output / "manifest.json").read_text())
    assert (
        len(manifest["inputs"]["rejects"]["transactions"]) >= 7
        and manifest["inputs"]["rejects"]["articles"]
    )
    assert get_faults(audit(tmp_path / "input", output)) == {}


def test_hostile_category_names(tmp_path):
    """Right-to-left, quotes, markup and 10 kB of text pass digests and vocabularies unharmed."""
    tables = shop_with_views()
    names = [
        "<script>alert('x')</script>",
        "مرحبا",
        'a "quoted", name',
        "x" * 10_000,
        "\u202eevil",
        "ß\u0000é",
    ]
    for n, article in enumerate(tables["articles"]):
        article["colour_group_name"] = names[n % len(names)]
    config = tiny_config(resources={"batch_size": 10_000}, output={"groups_per_row_group": 10_000})
    assert get_faults(audit(tmp_path / "input", build_shop(tables, tmp_path, config))) == {}


# What it cannot read


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no dataset"):
        audit(tmp_path, tmp_path)


def test_another_shape_is_refused_with_a_way_out(tmp_path):
    output = build_shop(shop_with_views(), tmp_path, tiny_config(output={"shape": "triplet"}))
    with pytest.raises(
        InputError, match="has the shape triplet; the audit reads labeled_pair and n_tuple"
    ):
        audit(tmp_path / "input", output)


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"config": {"output": {}}}'])
def test_a_file_that_is_no_manifest_is_refused(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="is no manifest of gpu-dcgen"):
        audit(tmp_path, tmp_path)


def test_missing_inputs_are_refused(tmp_path):
    output = build_shop(shop_with_views(), tmp_path)
    with pytest.raises(InputError, match="the folder does not exist"):
        audit(tmp_path / "nowhere", output)
    (tmp_path / "input" / "customers.parquet").unlink()
    with pytest.raises(InputError, match="has no customers.parquet"):
        audit(tmp_path / "input", output)


def test_a_part_that_is_no_parquet_file_is_a_finding(tmp_path):
    output = build_shop(
        shop_with_views(), tmp_path, tiny_config(output={"groups_per_part": 10_000})
    )
    (output / "val_dataset.parquet").write_bytes(b"torn")
    faults = get_faults(audit(tmp_path / "input", output))
    assert {"files", "schema", "digests"} <= faults.keys()
    assert "unreadable" in faults["schema"][0]["found"]


def test_similarities_beyond_the_limit_are_a_sample(tmp_path, monkeypatch):
    output = build_shop(shop_with_views(), tmp_path)
    monkeypatch.setattr(similarity_checks, "MAX_PRODUCTS", 300)
    certificate = audit(tmp_path / "input", output)
    check = get_check(certificate, "similarity_matrix")
    assert certificate["verdict"] == "holds" and check["n_checked"] > 0
    assert "seeded items of" in check["scope"]


# Real shops


@pytest.mark.slow
def test_online_retail_passes(online_retail, tmp_path):
    output = build(online_retail, tmp_path / "output", backend="cpu").output
    certificate = audit(online_retail, output)
    assert get_faults(certificate) == {}
    probe = get_check(certificate, "label_probe")
    for part in ("all", "without_repurchases"):
        assert 0.5 < probe["facts"][part]["popularity_auc"] < 0.8
        assert probe["facts"][part]["classifier_auc"] < probe["facts"][part]["popularity_auc"] + 0.1
    assert probe["facts"]["known_exception"]["auc"] > 0.6


@pytest.mark.slow
def test_the_complete_journey_passes(tmp_path):
    from gpu_dcgen.example_data.complete_journey import write_tables

    write_tables(tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", backend="cpu").output
    assert get_faults(audit(tmp_path / "input", output)) == {}
