"""What made all ids or times bad is guessed from one of each, with a remedy that works."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.errors import InputError
from tests.support.input_tables import (
    ARTICLES,
    TRANSACTIONS,
    load_rejecting,
    load_tables,
    to_list,
    write_tables,
)

DRESSES = {
    "blanks": (["u1 ", "u2 "], ["u2", "u1", "u2"], "blanks around them: 'u1' in transactions"),
    "case": (["U1", "U2"], ["u2", "u1", "u2"], "upper and lower case"),
    "zeros": (["001", "002"], ["2", "1", "2"], "leading zeros: '1' in .*, '001' in customers"),
    "float": (["1", "2"], ["2.0", "1.0", "2.0"], "a decimal point"),
    "quotes": (["1", "2"], ['"2"', '"1"', '"2"'], "quotes, hyphens"),
    "bom": (["u1", "u2"], ["\ufeffu2", "\ufeffu1", "\ufeffu2"], "quotes, hyphens or a byte"),
    "several": (["U-01 ", "U-02 "], ["u02", "u01", "u02"], "several of"),
    "nothing alike": (["x", "y"], ["1", "2", "1"], "is '1' in transactions.*'x' in customers"),
}


@pytest.mark.parametrize(("known", "used", "words"), DRESSES.values(), ids=DRESSES)
def test_ids_that_do_not_meet_are_shown_in_pairs(tmp_path, backend, known, used, words):
    folder = write_tables(
        tmp_path,
        customers={"customer_id": known},
        transactions=TRANSACTIONS | {"customer_id": used},
    )
    with pytest.raises(InputError, match=f"customer_id (differs in )?{words}") as caught:
        load_tables(folder, backend)
    assert "reject" not in str(caught.value)
    assert "too many are bad to set them aside" in str(caught.value)


@pytest.mark.parametrize("side", ["customers", "transactions"])
def test_the_width_that_is_printed_restores_zeros_of_customers(tmp_path, side):
    texts = {"customers": ["0007", "0042"], "transactions": ["0042", "0007", "0042"]}
    ids = texts | {side: [int(text) for text in texts[side]]}
    folder = write_tables(
        tmp_path,
        customers={"customer_id": ids["customers"]},
        transactions=TRANSACTIONS | {"customer_id": ids["transactions"]},
    )
    with pytest.raises(InputError, match="restores them: inputs.customer_id_width: 4"):
        load_tables(folder)
    shop = load_tables(folder, customer_id_width=4)
    assert shop.user_ids.to_pylist() == texts["customers"]


def test_setting_aside_is_offered_where_most_rows_are_good(tmp_path):
    used = TRANSACTIONS | {"customer_id": ["u2", "u1", "ghost"]}
    with pytest.raises(InputError, match='"on_bad_rows": "reject"'):
        load_tables(write_tables(tmp_path, transactions=used))


@pytest.mark.parametrize(
    ("ids", "columns", "is_warned"),
    [
        ([108775015, 108775044, 959461001], {"garment_group_name": ["a", "b", "c"]}, True),
        ([108775015, 108775044, 959461001], {}, False),
        ([108775015, 108775044, 95946], {"garment_group_name": ["a", "b", "c"]}, False),
        (["108775015", "1", "2"], {"garment_group_name": ["a", "b", "c"]}, False),
    ],
)
def test_integers_like_articles_of_hm_are_pointed_out(tmp_path, ids, columns, is_warned):
    articles = ARTICLES | {"article_id": ids} | columns
    folder = write_tables(
        tmp_path, articles=articles, transactions=TRANSACTIONS | {"article_id": [ids[0]] * 3}
    )
    words = "inputs.article_id_width: 10"
    assert any(words in text for text in load_tables(folder).report.warnings) == is_warned
    if is_warned:
        shop = load_tables(folder, article_id_width=10)
        assert shop.item_ids.to_pylist()[0] == "0108775015"
        assert not any(words in text for text in shop.report.warnings)


SECONDS = [int(dt.datetime(2019, month, 1, tzinfo=dt.UTC).timestamp()) for month in (1, 5, 9)]


@pytest.mark.parametrize(
    ("numbers", "unit"),
    [
        (SECONDS, "ms"),
        (SECONDS, "us"),
        (SECONDS, "ns"),
        ([s * 1000 for s in SECONDS], "us"),
        ([s * 1000 for s in SECONDS], "ns"),
        ([s * 10**6 for s in SECONDS], "ns"),
        ([s // 86_400 for s in SECONDS], "s"),
        ([s // 86_400 for s in SECONDS], "ms"),
        ([s // 86_400 for s in SECONDS], "ns"),
    ],
)
def test_times_that_lost_their_unit_are_recognized(tmp_path, backend, numbers, unit):
    times = pa.array(numbers, pa.int64()).cast(pa.timestamp(unit))
    folder = write_tables(tmp_path, transactions=TRANSACTIONS | {"t_dat": times})
    with pytest.raises(
        InputError,
        match=r"has times from 1970-01-.*: a lost unit\? .* would be 2019-01-01 to 2019-09-01\.",
    ):
        load_tables(folder, backend)


def test_a_lost_unit_in_one_of_the_files_is_named(tmp_path):
    folder = write_tables(tmp_path, transactions=None)
    (folder / "transactions").mkdir()
    for name, unit in (("a", "s"), ("b", "ms")):
        times = pa.array(SECONDS, pa.int64()).cast(pa.timestamp(unit))
        part = pa.table(TRANSACTIONS | {"t_dat": times})
        pq.write_table(part, folder / "transactions" / name)
    with pytest.raises(
        InputError, match=r"from 1970-01-18 21:31 to 1970-01-19 03:21 in b: a lost unit"
    ):
        load_tables(folder)


def test_times_of_1970_are_times(tmp_path):
    times = [dt.date(1970, 1, 1), dt.date(1970, 2, 1), dt.date(1970, 11, 1)]
    shop = load_tables(write_tables(tmp_path, transactions=TRANSACTIONS | {"t_dat": times}))
    assert len(to_list(shop.time)) == 3


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (pa.array([s * 1000 for s in SECONDS], pa.timestamp("s")), "lost their unit: millisec"),
        (["20190101", "20190501", "20190901"], 'time_format: "%Y%m%d"'),
        ([str(s) for s in SECONDS], "inputs.time_unit: s$|inputs.time_unit: s\n"),
        ([f"{s}.5" for s in SECONDS], "A number has no unit"),
    ],
)
def test_times_that_cannot_be_read_are_explained(tmp_path, times, words):
    folder = write_tables(tmp_path, transactions=TRANSACTIONS | {"t_dat": times})
    with pytest.raises(InputError, match=words):
        load_tables(folder)


def test_ids_and_times_are_explained_in_one_message(tmp_path):
    times = pa.array(SECONDS, pa.int64()).cast(pa.timestamp("ms"))
    used = {"t_dat": times, "customer_id": ["U1", "U2", "U1"]}
    folder = write_tables(tmp_path, transactions=TRANSACTIONS | used)
    with pytest.raises(InputError, match=r"(?s)2 problems:.*lost unit.*upper and lower case"):
        load_tables(folder)


AGES = ["25-34", "65+", "34,5", "unknown", "41", " 18 to 24 ", "45–54", "", None, "54-45", "300+"]
YEARS = [29, 65, -1, -1, 41, 21, 49, -1, -1, -1, -1]


def test_bands_of_ages_are_read_and_other_texts_are_counted(tmp_path, backend):
    customers = {"customer_id": [f"u{k:02}" for k in range(len(AGES))], "age": AGES}
    used = TRANSACTIONS | {"customer_id": ["u00", "u01", "u02"]}
    folder = write_tables(tmp_path, customers=customers, transactions=used)
    shop = load_tables(folder, backend)
    assert to_list(shop.age) == YEARS
    warnings = [text for text in shop.report.warnings if "age" in text]
    assert [text.partition(" rows")[0] for text in warnings] == [
        "customers.parquet: age is a band such as ' 18 to 24 ' in 5",
        "customers.parquet: age is text that is no number in 3",
        "customers.parquet: age is outside 0..120 in 1",
    ]
    assert "(for example '34,5')" in warnings[1]

    from gpu_dcgen.auditing.input_tables import read_tables
    from gpu_dcgen.config import DatasetConfig

    assert read_tables(folder, DatasetConfig()).age.tolist() == YEARS


def test_numbers_in_paths_that_are_none_are_counted(tmp_path, backend):
    folder = write_tables(tmp_path, transactions=None)
    for value in ("2", "web", "1_0", "inf", "__HIVE_DEFAULT_PARTITION__"):
        part = folder / "transactions" / f"sales_channel_id={value}"
        part.mkdir(parents=True)
        columns = {name: [values[0]] for name, values in TRANSACTIONS.items()}
        del columns["sales_channel_id"]
        pq.write_table(pa.table(columns), part / "a.parquet")
    shop = load_tables(folder, backend)
    assert to_list(shop.channel).count(2) == 1
    assert any(
        "sales_channel_id is text that is no number in 3 rows" in text
        for text in shop.report.warnings
    )


def test_texts_beside_numbers_are_refused(tmp_path):
    folder = write_tables(tmp_path, customers=None)
    (folder / "customers").mkdir()
    for name, age in (("u1", 30), ("u2", "40")):
        part = pa.table({"customer_id": [name], "age": [age]})
        pq.write_table(part, folder / "customers" / name)
    with pytest.raises(InputError, match="'age' changes its type .* integer in u1, text in u2"):
        load_tables(folder)


def test_setting_bad_rows_aside_needs_no_hint(tmp_path):
    used = {"customer_id": ["u2", "u1", "ghost"]}
    shop, rejects = load_rejecting(write_tables(tmp_path, transactions=TRANSACTIONS | used))
    assert rejects == [("transactions", 2, "unknown_customer")]
    assert len(to_list(shop.time)) == 2
