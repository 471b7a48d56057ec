"""Logs without tables of customers and articles, without product groups, or without prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.auditing import audit, explain
from gpu_dcgen.cli.render_builds import _describe_hard_negatives
from gpu_dcgen.dataset_generator.builder import BuildResult, build
from gpu_dcgen.errors import InputError
from tests.support.audited_shops import get_faults, shop_with_views
from tests.support.input_tables import (
    ARTICLES,
    CUSTOMERS,
    TRANSACTIONS,
    VIEWS,
    decode,
    drop_column,
    list_sales,
    load_tables,
    to_list,
    write_tables,
)
from tests.support.shops import bare_events, tiny_config, write_shop
from tests.support.strict_backend import StrictBackend

EVENTS = drop_column(drop_column(TRANSACTIONS, "price"), "sales_channel_id")
ON_GROUPS = {
    "category_distribution",
    "category_coverage",
    "category_consistency",
    "category_ks_p",
    "category_share_ks_p",
    "diverse_negatives",
    "negative_quality",
}


def write_events(folder: Path, **tables) -> Path:
    return write_tables(
        folder, **{"articles": None, "customers": None, "transactions": EVENTS, **tables}
    )


def test_users_and_items_are_those_of_transactions_and_views(tmp_path, backend):
    shop = load_tables(write_events(tmp_path, views=VIEWS), backend)
    assert shop.user_ids.to_pylist() == ["u1", "u2"]
    assert shop.item_ids.to_pylist() == ["a1", "a2", "a3"]  # a2 was viewed only
    assert list_sales(shop) == [
        ("2020-01-02T00:00:00", "u2", "a1", None, -1),
        ("2020-01-01T00:00:00", "u1", "a3", None, -1),
        ("2020-01-01T00:00:00", "u2", "a1", None, -1),
    ]
    assert decode(shop.item_columns["product_group"]) == [None, None, None]
    assert decode(shop.user_columns["club_status"]) == [None, None]
    assert to_list(shop.age) == [-1, -1]
    assert shop.report.rows.keys() == {"transactions", "views"}
    assert shop.report.quality_score == 1


def test_what_the_log_lacks_is_a_warning_each(tmp_path):
    folder = write_events(tmp_path)
    (folder / "products.csv").write_text("id\n")
    texts = load_tables(folder).report.warnings
    assert [text.partition(":")[0] for text in texts] == [
        "transactions.parquet",
        "articles",
        "customers",
    ]
    assert "there is no column 'price'" in texts[0]
    assert "no categories" in texts[1] and "Not read: products.csv" in texts[1]
    assert "no demographics" in texts[2]


def test_one_table_may_be_there_without_the_other(tmp_path, backend):
    shop = load_tables(write_events(tmp_path / "a", articles=ARTICLES), backend)
    assert decode(shop.item_columns["product_group"]) == [None, "Shoes", "Bags"]
    assert shop.user_ids.to_pylist() == ["u1", "u2"]
    customers = CUSTOMERS | {"age": [30, 40]}
    shop = load_tables(write_events(tmp_path / "b", customers=customers), backend)
    assert to_list(shop.age) == [30, 40]
    assert shop.item_ids.to_pylist() == ["a1", "a3"]


def test_ids_without_a_table_may_be_integers_and_null(tmp_path):
    events = EVENTS | {"article_id": [7, None, 12], "customer_id": ["", "u1", "u2"]}
    folder = write_events(tmp_path, transactions=events)
    with pytest.raises(InputError, match="2 missing_key"):
        load_tables(folder)
    rejecting = {"on_bad_rows": "reject", "min_quality_score": 0.1}
    shop = load_tables(folder, article_id_width=3, rejects=tmp_path / "r.parquet", **rejecting)
    assert shop.item_ids.to_pylist() == ["007", "012"]
    assert [sale[1:3] for sale in list_sales(shop)] == [("u2", "012")]


def test_a_table_whose_columns_are_mapped_must_be_there(tmp_path):
    with pytest.raises(InputError, match="table articles is missing"):
        load_tables(write_events(tmp_path), columns={"articles": {"product_group_name": "genre"}})


@pytest.mark.parametrize(
    "name", ["unit_price", "Price", "PRICE_EUR", "prices", "retail_price_in_euros"]
)
def test_a_column_that_may_hold_prices_is_not_passed_over(tmp_path, name):
    folder = write_events(tmp_path, transactions=EVENTS | {name: [1.0, 2.0, 3.0]})
    with pytest.raises(InputError, match="column 'price' is missing") as caught:
        load_tables(folder)
    assert f"inputs.columns: {{transactions: {{price: {name}}}}}" in str(caught.value)
    shop = load_tables(folder, columns={"transactions": {"price": name}})
    assert [sale[3] for sale in list_sales(shop)] == [1.0, 2.0, 3.0]
    assert not len(load_tables(folder, price="none").prices)


def test_prices_are_found_and_may_be_required(tmp_path):
    assert len(load_tables(write_tables(tmp_path / "with")).prices)
    folder = write_tables(tmp_path, transactions=drop_column(TRANSACTIONS, "price"))
    assert not len(load_tables(folder).prices)
    with pytest.raises(InputError, match="column 'price' is missing"):
        load_tables(folder, price="column")
    empty = write_tables(tmp_path / "null", transactions=TRANSACTIONS | {"price": [None] * 3})
    assert not len(load_tables(empty).prices)


def test_categories_under_another_name_are_pointed_out(tmp_path):
    articles = {"article_id": ["a1", "a3"], "genre": ["x", "y"]}
    folder = write_events(tmp_path, articles=articles)
    (text,) = [text for text in load_tables(folder).report.warnings if "product groups" in text]
    assert "found article_id, genre" in text
    assert "inputs.columns: {articles: {product_group_name: ITS_NAME}}" in text


# Whole builds


def build_events(folder: Path, backend=None, **extra) -> BuildResult:
    tables = bare_events(shop_with_views()) | extra
    write_shop(tables, folder / "input")
    backend = backend or NumpyBackend(2)
    return build(folder / "input", folder / "output", tiny_config(), backend=backend)


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> tuple[Path, BuildResult]:
    folder = tmp_path_factory.mktemp("events")
    return folder, build_events(folder)


def test_tables_of_ids_alone_add_nothing(events, tmp_path):
    shop = shop_with_views()
    extra = {
        "articles": [{"article_id": row["article_id"]} for row in shop["articles"]],
        "customers": [{"customer_id": row["customer_id"]} for row in shop["customers"]],
    }
    with_tables = build_events(tmp_path, **extra)
    assert with_tables.manifest.content_digest == events[1].manifest.content_digest
    assert with_tables.manifest.inputs.rows.keys() == {*events[1].manifest.inputs.rows, *extra}


def test_a_strict_backend_makes_the_same_of_events(events, tmp_path):
    strict = build_events(tmp_path, StrictBackend())
    assert strict.manifest.digests == events[1].manifest.digests


def test_the_audit_and_the_explanation_hold_on_events(events):
    folder, _ = events
    assert get_faults(audit(folder / "input", folder / "output")) == {}
    explanation = explain(folder / "output", "train-0000000003-00", folder / "input")
    assert explanation.agrees and explanation.relaxed == 0


def test_rules_on_groups_are_off_and_say_so(events):
    manifest = events[1].manifest
    report = json.loads((events[1].output / "quality_report.json").read_text())
    verdicts = {gate["name"]: gate["verdict"] for gate in report["gates"]}
    assert {verdicts[name] for name in ON_GROUPS} == {"skip"}
    assert manifest.negatives.by_source["category_crossing"] == 0
    assert any("items do not differ in product_group_name" in text for text in manifest.warnings)
    assert "no group limit: items have no product groups" in _describe_hard_negatives(
        manifest.negatives
    )
    assert report["funnel"]["negatives"]["relaxed"] is None


def test_ids_that_may_stand_for_no_value_are_pointed_out(tmp_path):
    names = {"customer_id": ["nan", "u1", "None"]}
    words = 'null_values: ["", "None", "nan"]'
    shop = load_tables(write_events(tmp_path / "a", transactions=EVENTS | names))
    assert [words in text for text in shop.report.warnings].count(True) == 1
    shop = load_tables(write_events(tmp_path / "b"))
    assert not any("null_values" in text for text in shop.report.warnings)
