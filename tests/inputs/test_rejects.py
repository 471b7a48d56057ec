"""Bad rows are rejected for their first reason, and all rows add up (D2)."""

from __future__ import annotations

import datetime as dt
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs import rejects as rejects_module
from gpu_dcgen.inputs.rejects import FAR_FROM_OTHERS, REASONS
from tests.support.input_tables import (
    TRANSACTIONS,
    decode,
    drop_column,
    list_sales,
    load_rejecting,
    load_tables,
    replace_column,
    to_list,
    write_tables,
)


def bad_articles():
    return {
        "article_id": [None, "", "twin", "twin", "odd", "odd", "odd", "a1", "a3"],
        "product_group_name": ["Bags", "Bags", None, None, "Bags", "Bags", "Shoes", "Bags", "Bags"],
    }


def test_bad_articles(tmp_path, backend):
    shop, rejects = load_rejecting(write_tables(tmp_path, articles=bad_articles()), backend)
    assert rejects[:5] == [
        ("articles", 0, "missing_key"),
        ("articles", 1, "missing_key"),
        *(("articles", position, "duplicate_key") for position in (4, 5, 6)),
    ]
    assert shop.item_ids.to_pylist() == ["a1", "a3", "twin"]
    assert shop.report.rows["articles"] == (9, 3, 5, 1, 0)
    assert shop.item_columns["product_group"].values == (
        "Bags",
    )  # a rejected row's value is not in the vocabulary
    assert shop.report.quality_score == pytest.approx(9 / 14)  # the collapsed twin is clean


def test_a_twin_that_differs_in_any_column_read_is_a_conflict(tmp_path, backend):
    customers = {
        "customer_id": ["u1", "u1", "u2", "u2", "u3", "u3"],
        "age": [30, None, 40, 40, 0, None],
        "postal_code": [1, 2, 3, 4, 5, 6],
    }
    shop, rejects = load_rejecting(write_tables(tmp_path, customers=customers), backend)
    assert [row for row in rejects if row[0] == "customers"] == [
        ("customers", p, "duplicate_key") for p in (0, 1, 4, 5)
    ]
    assert shop.user_ids.to_pylist() == ["u2"]
    assert shop.report.rows["customers"] == (6, 1, 4, 1, 0)


GOOD = {"t_dat": "2020-01-01", "customer_id": "u1", "article_id": "a1", "price": 1.0}
BAD_SALES = [
    ({"customer_id": None}, "missing_key"),
    ({"article_id": ""}, "missing_key"),
    ({"article_id": "ghost"}, "unknown_article"),
    ({"customer_id": "ghost"}, "unknown_customer"),
    ({"t_dat": None}, "missing_time"),
    ({"t_dat": "30 February"}, "missing_time"),
    ({"t_dat": "9999-12-31"}, "missing_time"),
    ({"t_dat": "1969-12-31T23:59:59"}, "time_out_of_range"),
    ({"t_dat": "2201-01-01"}, "time_out_of_range"),
    ({"price": None}, "missing_price"),
    ({"price": float("nan")}, "missing_price"),
    ({"price": float("inf")}, "bad_price"),
    ({"price": float("-inf")}, "bad_price"),
    ({"price": 0.0}, "bad_price"),
    ({"price": -3.99}, "bad_price"),
    ({"price": 1.1e9}, "bad_price"),
    # the first reason counts
    ({"customer_id": "", "article_id": "ghost", "price": None}, "missing_key"),
    ({"customer_id": "ghost", "article_id": "ghost", "t_dat": None}, "unknown_article"),
    ({"customer_id": "ghost", "t_dat": None}, "unknown_customer"),
    ({"t_dat": None, "price": -1.0}, "missing_time"),
    ({"t_dat": "1066-10-14", "price": -1.0}, "missing_time"),
    ({"t_dat": "1815-06-18", "price": -1.0}, "time_out_of_range"),
]
GOOD_SALES = [
    {"t_dat": "1970-01-01"},
    {"t_dat": "2200-12-31T23:59:59.999999999"},
    {"price": 1e9},
    {"price": 1e-9},
]


def as_columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_bad_transactions_each_have_their_first_reason(tmp_path, backend):
    rows = [GOOD | change for change in GOOD_SALES] + [GOOD | change for change, _ in BAD_SALES]
    shop, rejects = load_rejecting(write_tables(tmp_path, transactions=as_columns(rows)), backend)
    assert rejects == [
        ("transactions", len(GOOD_SALES) + k, reason) for k, (_, reason) in enumerate(BAD_SALES)
    ]
    assert len(list_sales(shop)) == len(GOOD_SALES)
    assert shop.prices.tolist() == [1e-9, 1.0, 1e9]  # no price of a rejected row
    assert sum(shop.report.rejects["transactions"].values()) == len(BAD_SALES)
    by_settings = {FAR_FROM_OTHERS, "unknown_event", "missing_rating"}  # that are not set here
    every = set(REASONS["transactions"]) - by_settings
    assert set(shop.report.rejects["transactions"]) == every


def test_prices_that_only_rejected_rows_have_are_forgotten(tmp_path, backend):
    transactions = TRANSACTIONS | {"price": [2.0, 9.0, 2.0], "customer_id": ["u2", "ghost", "u2"]}
    shop, _ = load_rejecting(write_tables(tmp_path, transactions=transactions), backend)
    assert shop.prices.tolist() == [2.0]
    assert to_list(shop.price) == [0, 0]


def test_bad_rows_are_found_again_in_every_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(rejects_module, "_BATCH_ROWS", 4)
    rows = [GOOD | {"price": -float(k) if k % 3 else 1.0} for k in range(30)]
    folder = write_tables(tmp_path)
    pq.write_table(pa.table(as_columns(rows)), folder / "transactions.parquet", row_group_size=13)
    load_rejecting(folder)
    rejects = pq.read_table(folder / "rejects.parquet").to_pylist()
    assert [row["position"] for row in rejects] == [k for k in range(30) if k % 3]
    assert all(json.loads(row["row"])["price"] == -row["position"] for row in rejects)


def test_bad_views_each_have_their_first_reason(tmp_path, backend):
    bad = [(change, reason) for change, reason in BAD_SALES if "price" not in change]
    rows = [drop_column(GOOD | change, "price") for change, _ in bad] + [drop_column(GOOD, "price")]
    shop, rejects = load_rejecting(write_tables(tmp_path, views=as_columns(rows)), backend)
    assert rejects == [("views", k, reason) for k, (_, reason) in enumerate(bad)]
    assert len(to_list(shop.views[0])) == 1


def test_a_rejected_article_takes_its_transactions_along(tmp_path):
    articles = {"article_id": ["a1", "a1", "a3"], "product_group_name": ["Shoes", "Bags", "Bags"]}
    shop, rejects = load_rejecting(write_tables(tmp_path, articles=articles))
    assert [row for row in rejects if row[0] == "transactions"] == [
        ("transactions", k, "unknown_article") for k in (0, 2)
    ]
    assert list_sales(shop) == [("2020-01-01T00:00:00", "u1", "a3", 1.5, 1)]


def test_rejected_rows_are_written_as_they_were(tmp_path):
    moment = dt.datetime(2020, 1, 1, 12, tzinfo=dt.timezone.utc)
    transactions = pa.table(
        {
            "when": pa.array([moment] * 3, pa.timestamp("ns", "Europe/Stockholm")),
            "customer_id": pa.array(["u1", "u1", "Zoë"]).dictionary_encode(),
            "article_id": ["a1", "a1", "a1"],
            "price": pa.array([1.0, float("nan"), 2.5], pa.float32()),
            "unread": ["x", "y", "z"],
        }
    )
    folder = write_tables(tmp_path, transactions=transactions)
    load_rejecting(folder, columns={"transactions": {"t_dat": "when"}})
    rows = [
        json.loads(text) for text in pq.read_table(folder / "rejects.parquet")["row"].to_pylist()
    ]
    when = "2020-01-01 12:00:00.000000000Z"
    assert rows == [
        {"when": when, "customer_id": "u1", "article_id": "a1", "price": "nan"},
        {"when": when, "customer_id": "Zoë", "article_id": "a1", "price": 2.5},
    ]


def test_failing_names_table_reason_count_first_row_and_remedy(tmp_path, backend):
    transactions = replace_column(
        replace_column(TRANSACTIONS, "price", [2.0, -3.99, 0.0]), "customer_id", ["u2", "u1", "u9"]
    )
    with pytest.raises(InputError) as caught:
        load_tables(
            write_tables(tmp_path, transactions=transactions, articles=bad_articles()), backend
        )
    text = str(caught.value)
    assert text.startswith("inputs: found 7 bad rows; expected none:\n")
    assert (
        "articles.parquet: 3 duplicate_key: the id occurs again with other values "
        '(first: row 4, article_id "odd").' in text
    )
    assert (
        "articles.parquet: 2 missing_key: the id is null or empty (first: row 0, article_id null)."
        in text
    )
    assert "transactions.parquet: 1 unknown_customer: " in text
    assert '(first: row 2, customer_id "u9").' in text
    bad_price = (
        "1 bad_price: the price is infinite, zero, negative or above 1,000,000,000 "
        "(first: row 1, price -3.99)."
    )
    assert f"transactions.parquet: {bad_price}" in text
    assert 'DatasetConfig(inputs={"on_bad_rows": "reject"})' in text
    assert not list(tmp_path.glob("rejects*"))


def test_the_first_row_of_a_partitioned_table_is_named_by_file(tmp_path):
    folder = write_tables(tmp_path, transactions=None)
    for month in (1, 2):
        part = folder / "transactions" / f"year=2020/month={month}"
        part.mkdir(parents=True)
        table = replace_column(TRANSACTIONS, "price", [1.0, 1.0, 1.0 if month == 1 else -1.0])
        pq.write_table(pa.table(table), part / "part-0.parquet", row_group_size=2)
    with pytest.raises(
        InputError, match=r"\(first: year=2020/month=2/part-0.parquet row 2, price -1.0\)"
    ):
        load_tables(folder)
    assert load_rejecting(folder)[1] == [("transactions", 5, "bad_price")]


def many_sales(n_good: int, n_bad: int) -> dict:
    rows = [GOOD] * n_good + [GOOD | {"price": -1.0}] * n_bad
    return as_columns(random.Random(1).sample(rows, len(rows)))


def test_the_build_stops_unless_the_quality_score_is_above_its_limit(tmp_path):
    # with 3 articles and 2 customers: 95 clean rows of 100, then 96 of 101
    rejects = tmp_path / "rejects.parquet"
    with pytest.raises(
        InputError,
        match=r"found a quality score of 0.950000 \(5 of 100 rows are bad\); expected above 0.95:",
    ):
        load_tables(
            write_tables(tmp_path, transactions=many_sales(90, 5)),
            on_bad_rows="reject",
            rejects=rejects,
        )
    assert not rejects.exists()
    shop = load_tables(
        write_tables(tmp_path, transactions=many_sales(91, 5)),
        on_bad_rows="reject",
        rejects=rejects,
    )
    assert shop.report.quality_score == 96 / 101
    assert pq.read_metadata(rejects).num_rows == 5


def test_nothing_to_reject_is_written_as_no_rows_and_passes_any_limit(tmp_path):
    rejects = tmp_path / "new" / "rejects.parquet"
    assert (
        load_tables(
            write_tables(tmp_path), on_bad_rows="reject", rejects=rejects, min_quality_score=1.0
        ).report.quality_score
        == 1.0
    )
    assert pq.read_metadata(rejects).num_rows == 0


def test_no_rows_left_is_an_error(tmp_path):
    with pytest.raises(
        InputError, match="transactions.parquet: found no row that can be used:\n.*3 bad_price"
    ):
        load_rejecting(
            write_tables(
                tmp_path, transactions=replace_column(TRANSACTIONS, "price", [-1.0, 0.0, -2.0])
            )
        )


IDS = st.sampled_from(["a1", "a2", "a3", "", None])
SALE = st.fixed_dictionaries(
    {
        "t_dat": st.sampled_from(["2020-01-01", "2020-01-02 03:04", "1900-01-01", "x", None]),
        "customer_id": IDS,
        "article_id": IDS,
        "price": st.sampled_from([1.0, 2.0, 0.0, -1.0, float("nan"), float("inf"), None]),
    }
)
ENTITY = st.tuples(IDS, st.sampled_from(["x", "y", None]))


def text(values):
    return pa.array(values, pa.string())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    articles=st.lists(ENTITY, min_size=1, max_size=8),
    customers=st.lists(ENTITY, min_size=1, max_size=8),
    lines=st.lists(SALE, min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_all_rows_add_up_and_their_order_does_not_matter(
    tmp_path, backend, articles, customers, lines, order
):
    """Compare with plain Python; shuffled tables give the same shop but for sales' order."""
    results = []
    for _ in range(2):
        good_articles, good_customers = accepted(articles), accepted(customers)
        good = [line for line in lines if clean(line, good_articles, good_customers)]
        folder = write_tables(tmp_path, **as_tables(articles, customers, lines))
        if not (good_articles and good_customers and good):
            with pytest.raises(InputError):
                load_rejecting(folder, backend)
            return
        shop, rejects = load_rejecting(folder, backend)
        report = shop.report
        groups = decode(shop.item_columns["product_group"])
        assert dict(zip(shop.item_ids.to_pylist(), groups, strict=True)) == good_articles
        statuses = decode(shop.user_columns["club_status"])
        assert dict(zip(shop.user_ids.to_pylist(), statuses, strict=True)) == good_customers
        assert [sale[1:4] for sale in list_sales(shop)] == [
            (line["customer_id"], line["article_id"], line["price"]) for line in good
        ]
        for table, rows in (
            ("articles", articles),
            ("customers", customers),
            ("transactions", lines),
        ):
            counts, n_rejects = report.rows[table], sum(row[0] == table for row in rejects)
            assert counts.read == len(rows)
            assert counts.read == counts.accepted + counts.rejected + counts.collapsed
            assert counts.rejected == sum(report.rejects[table].values()) == n_rejects
        sales = sorted(list_sales(shop))
        score, warnings = report.quality_score, report.warnings
        results.append((report.rows, report.rejects, score, warnings, sales))
        for rows in (articles, customers, lines):
            order.shuffle(rows)
    assert results[0] == results[1]


def as_tables(articles, customers, lines):
    ids = {
        name: text([line[name] for line in lines])
        for name in ("t_dat", "customer_id", "article_id")
    }
    return {
        "articles": {
            "article_id": text([article for article, _ in articles]),
            "product_group_name": text([group for _, group in articles]),
        },
        "customers": {
            "customer_id": text([customer for customer, _ in customers]),
            "club_member_status": text([status for _, status in customers]),
        },
        "transactions": {**ids, "price": pa.array([line["price"] for line in lines], pa.float64())},
    }


def accepted(rows):
    """Return id -> value, without null ids and without ids that occur with several values."""
    return {
        key: value
        for key, value in rows
        if key and all(other == value for again, other in rows if again == key)
    }


def clean(line, articles, customers):
    good_time = line["t_dat"] in ("2020-01-01", "2020-01-02 03:04")
    return (
        line["article_id"] in articles
        and line["customer_id"] in customers
        and good_time
        and line["price"] in (1.0, 2.0)
    )
