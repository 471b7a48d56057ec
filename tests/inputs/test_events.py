"""Events and ratings: which rows are purchases, which are views, which are left out (D1, D2)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing import audit
from gpu_dcgen.cli.render_builds import _describe_left_out
from gpu_dcgen.config import DatasetConfig, load_config
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.errors import ConfigError, InputError
from tests.support.csv_tables import load_folder, write_csv_tables
from tests.support.input_tables import (
    VIEWS,
    list_sales,
    load_rejecting,
    load_tables,
    to_list,
    write_tables,
)
from tests.support.shops import random_shop, tiny_config, write_shop

KINDS = {"transaction": "purchase", "view": "view", "addtocart": "ignore"}
LOG = {
    "t_dat": ["2020-01-01", "2020-01-02", "2020-01-03", None, "2020-01-05"],
    "customer_id": ["u1", "u2", "u1", None, "u2"],
    "article_id": ["a1", "a2", "a3", "a1", "a1"],
    "event": ["transaction", "view", "transaction", "addtocart", "view"],
}


def write_log(folder, log=LOG, **tables):
    return write_tables(
        folder, **{"articles": None, "customers": None, "transactions": log, **tables}
    )


def counts_of(shop, table):
    rows = shop.report.rows[table]
    assert rows.read == rows.accepted + rows.rejected + rows.left_out
    return rows.read, rows.accepted, rows.rejected, rows.left_out


def test_events_are_purchases_views_and_what_is_ignored(tmp_path, backend):
    shop = load_tables(write_log(tmp_path), backend, events=KINDS)
    assert [row[:3] for row in list_sales(shop)] == [
        ("2020-01-01T00:00:00", "u1", "a1"),
        ("2020-01-03T00:00:00", "u1", "a3"),
    ]
    users, items = shop.user_ids.to_pylist(), shop.item_ids.to_pylist()
    _, viewers, viewed = shop.views
    pairs = zip(to_list(viewers), to_list(viewed), strict=True)
    assert [(users[user], items[item]) for user, item in pairs] == [("u2", "a2"), ("u2", "a1")]
    assert counts_of(shop, "transactions") == (3, 2, 0, 1)
    assert counts_of(shop, "views") == (2, 2, 0, 0)
    assert shop.report.left_out == {"transactions": {"ignored": 1}}
    assert [file.rows for file in shop.report.files] == [5]


def test_without_views_their_events_are_ignored(tmp_path, backend):
    shop = load_tables(write_log(tmp_path), backend, events=KINDS, views=False)
    assert shop.views is None
    assert counts_of(shop, "transactions") == (5, 2, 0, 3)
    assert shop.report.left_out == {"transactions": {"ignored": 3}}


def test_events_may_be_numbers_under_another_name(tmp_path, backend):
    log = {**LOG, "event": pa.array([1, 0, 1, 0, 0])}
    log["kind"] = log.pop("event")
    config = load_config(
        overrides=[
            "inputs.events={1: purchase, 0: ignore}",
            "inputs.columns={transactions: {event: kind}}",
        ]
    )
    settings = config.inputs.model_dump(include={"events", "columns"})
    shop = load_tables(write_log(tmp_path, log), backend, **settings)
    assert counts_of(shop, "transactions") == (5, 2, 0, 3)


def test_unknown_events_are_bad_rows_that_are_named(tmp_path, backend):
    log = {**LOG, "event": ["transaction", "view", "refund", "addtocart", None]}
    folder = write_log(tmp_path, log)
    with pytest.raises(
        InputError,
        match=r"2 unknown_event: the event is null or not listed in inputs.events \(first: row 2, "
        r'event "refund"\)(.|\n)*List \'refund\', null in inputs.events, as purchase',
    ):
        load_tables(folder, backend, events=KINDS)
    shop, rejects = load_rejecting(folder, backend, events=KINDS)
    assert rejects == [("transactions", 2, "unknown_event"), ("transactions", 4, "unknown_event")]
    assert counts_of(shop, "transactions") == (4, 1, 2, 1)


def test_bad_rows_among_views_are_named_as_such(tmp_path, backend):
    log = {**LOG, "t_dat": ["2020-01-01", None, "2020-01-03", None, "2020-01-05"]}
    _, rejects = load_rejecting(write_log(tmp_path, log), backend, events=KINDS)
    assert rejects == [("views", 1, "missing_time")]


def test_prices_matter_for_purchases_alone(tmp_path, backend):
    log = {**LOG, "price": [2.0, None, 3.0, -1.0, None]}
    shop = load_tables(write_log(tmp_path, log), backend, events=KINDS)
    assert [row[3] for row in list_sales(shop)] == [2.0, 3.0]


def test_views_come_from_one_place(tmp_path):
    with pytest.raises(InputError, match="found a table of views, and views among inputs.events"):
        load_tables(write_log(tmp_path, views=VIEWS), events=KINDS)
    shop = load_tables(tmp_path, events={**KINDS, "view": "ignore"})
    assert counts_of(shop, "views") == (1, 1, 0, 0)


def test_the_column_of_events_is_required_where_it_is_read(tmp_path):
    log = {name: values for name, values in LOG.items() if name != "event"}
    with pytest.raises(InputError, match="column 'event' is missing; found t_dat"):
        load_tables(write_log(tmp_path, log), events=KINDS)


def test_only_known_meanings_are_accepted():
    with pytest.raises(ConfigError, match="expected 'purchase', 'view' or 'ignore'"):
        load_config(overrides=["inputs.events={buy: sale}"])


RATED = {
    "t_dat": ["2020-01-01", "2020-01-02", "2020-01-03"],
    "customer_id": ["u1", "u2", "u1"],
    "article_id": ["a1", "a2", "a3"],
    "rating": [4.0, 3.5, 5.0],
}


def test_low_ratings_are_left_out(tmp_path, backend):
    shop = load_tables(write_log(tmp_path, RATED), backend, min_rating=4)
    assert [row[2] for row in list_sales(shop)] == ["a1", "a3"]
    assert counts_of(shop, "transactions") == (3, 2, 0, 1)
    assert shop.report.left_out == {"transactions": {"low_rating": 1}}


def test_missing_ratings_are_bad_rows(tmp_path, backend):
    log = {**RATED, "rating": ["4.0", "good", None]}
    _, rejects = load_rejecting(write_log(tmp_path, log), backend, min_rating=1)
    assert rejects == [("transactions", 1, "missing_rating"), ("transactions", 2, "missing_rating")]


def test_csv_files_have_events_and_ratings_too(tmp_path):
    log = {**RATED, "event": ["buy", "see", "buy"]}
    folder = write_csv_tables(tmp_path / "shop", articles=None, customers=None, transactions=log)
    shop = load_folder(folder, events={"buy": "purchase", "see": "view"}, min_rating=4.5)
    assert [row[2] for row in list_sales(shop)] == ["a3"]
    assert counts_of(shop, "views") == (1, 1, 0, 0)  # whatever its rating is
    assert shop.report.left_out == {"transactions": {"low_rating": 1}}


@pytest.fixture
def events(tmp_path):
    """A log of events and ratings, and the tables of purchases and views that it stands for."""
    tables = random_shop(2, n_users=16, n_items=24, n_rows=260, views=True)
    plain = write_shop(tables, tmp_path / "plain")
    rows = [{**row, "event": "transaction", "rating": 5} for row in tables["transactions"]]
    rows += [{**row, "event": "view", "rating": 1} for row in tables["views"]]
    rows += [{**rows[k], "event": "addtocart", "rating": 5} for k in range(0, 200, 3)]
    rows += [{**rows[k], "event": "transaction", "rating": 2} for k in range(0, 200, 5)]
    folder = write_shop({**tables, "transactions": [], "views": []}, tmp_path / "events")
    for file in ("transactions", "views"):
        (folder / f"{file}.parquet").unlink(missing_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    log = pa.table({name: [row.get(name) for row in rows] for name in names})
    place = log.schema.get_field_index("t_dat")
    log = log.set_column(place, "t_dat", log["t_dat"].cast(pa.timestamp("ns")))
    pq.write_table(log, folder / "transactions.parquet")
    return folder, plain


SETTINGS = {"events": KINDS, "min_rating": 3.0}


def test_a_log_of_events_builds_what_its_tables_build(events, tmp_path):
    folder, plain = events
    built = build(folder, tmp_path / "out", tiny_config(inputs=SETTINGS), backend="cpu")
    expected = build(plain, tmp_path / "expected", tiny_config(), backend="cpu").manifest
    assert built.manifest.content_digest == expected.content_digest
    assert built.manifest.inputs.left_out == {"transactions": {"ignored": 67, "low_rating": 40}}
    assert built.manifest.inputs.rows["views"] == expected.inputs.rows["views"]
    assert _describe_left_out(built.manifest.inputs) == {
        "rows left out": "transactions: ignored 67, low_rating 40"
    }
    assert _describe_left_out(expected.inputs) == {}


def test_the_audit_of_a_log_of_events_holds(events, tmp_path):
    folder, _ = events
    config = tiny_config(inputs={**SETTINGS, "time_from": "2018-09-25"})
    dataset = build(folder, tmp_path / "out", config, backend="cpu").output
    certificate = audit(folder, dataset)
    assert certificate["verdict"] == "holds", certificate["checks"]
    assert DatasetConfig.model_validate(certificate["config"]).inputs.events == KINDS


@pytest.mark.parametrize(
    ("column", "settings", "words"),
    [
        (
            {"rating": [1, 1, 2, 1, 3]},
            {"min_rating": 4},
            "5 rows are low_rating.*min_rating",
        ),
        ({}, {"events": dict.fromkeys(KINDS, "ignore")}, "5 rows are ignored.*inputs.events"),
    ],
)
def test_a_log_of_which_nothing_is_wanted_says_why(tmp_path, column, settings, words):
    folder = write_log(tmp_path, LOG | column)
    with pytest.raises(InputError, match=f"(?s)no row that can be used: {words}"):
        load_tables(folder, **settings)
