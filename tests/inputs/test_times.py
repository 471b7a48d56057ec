"""Times in other forms: epoch numbers, one text format, local times of a zone (D1).

The oracle is Python: datetime.strptime and zoneinfo.
"""

from __future__ import annotations

import datetime as dt
import random
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from gpu_dcgen.auditing import audit
from gpu_dcgen.auditing.input_times import read_log_times
from gpu_dcgen.config import DatasetConfig, load_config
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.inputs.columns import ColumnReader
from gpu_dcgen.inputs.sources import find_sources
from gpu_dcgen.inputs.times import read_times
from tests.support.csv_tables import load_folder, to_csv, write_csv_tables
from tests.support.input_tables import (
    CPU,
    TRANSACTIONS,
    list_sales,
    load_tables,
    to_list,
    write_tables,
)
from tests.support.shops import random_shop, tiny_config, write_shop

EPOCH = dt.datetime(1970, 1, 1)
MIDNIGHTS = ["2020-01-02", "2020-01-01", "2020-01-01"]  # of TRANSACTIONS
NS_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def ns_of(time: dt.datetime) -> int:
    """Nanoseconds since 1970 UTC of a time; one without zone is UTC."""
    naive = time if time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)
    return (naive - EPOCH) // dt.timedelta(microseconds=1) * 1000


def inputs_of(**settings):
    return DatasetConfig.model_validate({"inputs": settings}).inputs


def read_column(tmp_path, values, backend=CPU, **settings):
    """Return times of a column as a build reads them, None where not valid, and what it warns."""
    inputs, n = inputs_of(**settings), len(values)
    log = {"t_dat": values, "customer_id": ["u"] * n, "article_id": ["a"] * n}
    folder = write_tables(tmp_path / "log", articles=None, customers=None, transactions=log)
    reader = ColumnReader(find_sources(folder, inputs)["transactions"], backend)
    times = read_times(reader, "t_dat", inputs)
    pairs = zip(to_list(times.values), to_list(times.valid), strict=True)
    return [time if valid else None for time, valid in pairs], times


def audited(values, **settings):
    """Return what the audit reads of the same column."""

    class Table:
        widths: dict[str, int] = {}

        def chunks(self, name):
            return [values if isinstance(values, pa.Array) else pa.array(values)]

    times, is_known = read_log_times(Table(), "t_dat", inputs_of(**settings))
    return [
        int(time) if known else None
        for time, known in zip(times.tolist(), is_known.tolist(), strict=True)
    ]


@pytest.mark.parametrize("unit", NS_PER_UNIT)
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=str)
def test_numbers_count_from_1970(tmp_path, backend, unit, kind):
    moments = [ns_of(dt.datetime(2019, 6, day, 12, 34, 56)) for day in (1, 30)]
    numbers = pa.array([*(ns // NS_PER_UNIT[unit] for ns in moments), None, 0]).cast(kind)
    times, _ = read_column(tmp_path, numbers, backend, time_unit=unit)
    assert times == [*moments, None, 0] == audited(numbers, time_unit=unit)


def test_numbers_that_no_nanoseconds_hold_are_no_times(tmp_path, backend):
    numbers = ["9" * 19, "-1", "12.5", "", "2020-01-01", "9" * 30, str(2**63 - 1)]
    times, _ = read_column(tmp_path, numbers, backend, time_unit="s")
    assert times == [None, -(10**9), None, None, None, None, None]
    assert audited(numbers, time_unit="s") == times
    times, _ = read_column(tmp_path / "2", pa.array([2**62, 5]), backend, time_unit="ms")
    assert times == [None, 5 * 10**6]


def test_numbers_without_a_unit_are_refused_with_the_setting(tmp_path):
    folder = write_tables(tmp_path, transactions=TRANSACTIONS | {"t_dat": [1, 2, 3]})
    with pytest.raises(InputError, match=r"inputs\.time_unit: s \(or ms, us, ns\)"):
        load_tables(folder)


FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y %I:%M %p",
    "%d %b %Y, %H:%M:%S.%f",
    "%B %d %y",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%H:%M on %d/%m/%y (%%)",
    "%Y-%m-%dT%H:%M:%S%z",
)


@pytest.mark.parametrize("time_format", FORMATS)
def test_texts_are_read_as_strptime_reads_them(tmp_path, backend, time_format):
    rng = random.Random(time_format)
    texts = []
    for _ in range(150):
        time = dt.datetime(1970, 1, 1) + dt.timedelta(
            seconds=rng.randrange(90 * 366 * 86_400), microseconds=rng.randrange(10**6)
        )
        zone = dt.timezone(dt.timedelta(minutes=rng.randrange(-720, 721, 15)))
        texts.append(time.replace(tzinfo=zone).strftime(time_format))
    texts += ["", "2020-13-01 00:00:00", "30.02.2020 10:00", "31 Feb 2020, 00:00:00.0", "20200230"]
    expected = []
    for text in texts:
        try:
            expected.append(ns_of(dt.datetime.strptime(text, time_format)))
        except ValueError:
            expected.append(None)
    times, _ = read_column(tmp_path, texts, backend, time_format=time_format)
    assert times == expected == audited(texts, time_format=time_format)
    assert sum(time is not None for time in times) >= 150


def test_days_as_integers_may_have_a_format(tmp_path, backend):
    days = pa.array([20200131, 20200230, None], pa.int32())
    times, _ = read_column(tmp_path, days, backend, time_format="%Y%m%d")
    assert times == [ns_of(dt.datetime(2020, 1, 31)), None, None]
    assert audited(days, time_format="%Y%m%d") == times


ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Casablanca",
)


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_are_those_of_the_zone(tmp_path, backend, zone):
    rng = random.Random(zone)
    local = [
        dt.datetime(1975, 1, 1) + dt.timedelta(minutes=rng.randrange(70 * 365 * 1440))
        for _ in range(400)
    ]
    # Every quarter of an hour around changes of the clock in many places.
    for year, month in ((2019, 3), (2019, 4), (2019, 10), (2019, 11), (2020, 5), (2021, 4)):
        start = dt.datetime(year, month, 1)
        local += [start + dt.timedelta(minutes=15 * k) for k in range(31 * 96)]
    expected = [ns_of(time.replace(tzinfo=ZoneInfo(zone), fold=0)) for time in local]
    column = pa.array(local, pa.timestamp("us"))
    times, counted = read_column(tmp_path, column, backend, time_zone=zone)
    assert times == expected == audited(column, time_zone=zone)
    moved = [
        time.replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC).astimezone(ZoneInfo(zone))
        for time in local
    ]
    n_skipped = sum(
        time != back.replace(tzinfo=None) for time, back in zip(local, moved, strict=True)
    )
    n_repeated = sum(
        time.replace(tzinfo=ZoneInfo(zone), fold=0).utcoffset()
        > time.replace(tzinfo=ZoneInfo(zone), fold=1).utcoffset()
        for time in local
    )
    assert (counted.n_skipped, counted.n_repeated) == (n_skipped, n_repeated)


def test_a_skipped_hour_moves_forward_and_of_a_repeated_one_the_first_is_taken(tmp_path, backend):
    texts = ["2024-03-31 01:59", "2024-03-31 02:30", "2024-03-31 03:00", "2024-10-27 02:30"]
    times, counted = read_column(tmp_path, texts, backend, time_zone="Europe/Berlin")
    assert [str(EPOCH + dt.timedelta(microseconds=time // 1000)) for time in times] == [
        "2024-03-31 00:59:00",
        "2024-03-31 01:30:00",  # 03:30 in summer time
        "2024-03-31 01:00:00",
        "2024-10-27 00:30:00",  # still in summer time
    ]
    [warning] = counted.warn("log: t_dat", inputs_of(time_zone="Europe/Berlin"))
    assert "1 rows have a time that a change skips" in warning
    assert "1 rows one that a change repeats" in warning


AWARE = {
    "text": ["2024-07-01 12:00Z", "2024-07-01T12:00+02:00", "2024-07-01 12:00:00-05", "2024-07-01"],
    "timestamps": pa.array([dt.datetime(2024, 7, 1, 12)], pa.timestamp("us", "UTC")),
    "numbers": pa.array([1_719_835_200]),
}


@pytest.mark.parametrize(("kind", "values"), AWARE.items())
def test_times_that_have_a_zone_are_not_moved(tmp_path, backend, kind, values):
    unit = {"time_unit": "s"} if kind == "numbers" else {}
    settings = {"time_zone": "Europe/Berlin", **unit}
    times, _ = read_column(tmp_path, values, backend, **settings)
    assert times == audited(values, **settings)
    clocks = [str(EPOCH + dt.timedelta(microseconds=time // 1000))[5:16] for time in times]
    expected = ["07-01 12:00", "07-01 10:00", "07-01 17:00", "06-30 22:00"]
    assert clocks == (expected if kind == "text" else expected[:1])


def test_files_with_and_without_a_zone_are_told_apart(tmp_path, backend):
    noon = [dt.datetime(2024, 7, 1, 12)]
    folder = write_tables(tmp_path / "log", articles=None, customers=None, transactions=None)
    for name, zone in (("a", None), ("b", "UTC")):
        log = {
            "t_dat": pa.array(noon, pa.timestamp("us", zone)),
            "customer_id": ["u"],
            "article_id": ["a"],
        }
        write_tables(
            folder / "transactions" / name, articles=None, customers=None, transactions=log
        )
    shop = load_tables(folder, backend, time_zone="Europe/Berlin")
    assert [row[0] for row in list_sales(shop)] == ["2024-07-01T10:00:00", "2024-07-01T12:00:00"]


def test_the_names_of_folders_follow_the_settings(tmp_path):
    folder = write_csv_tables(tmp_path / "shop", transactions=None)
    lines = to_csv({"customer_id": ["u1"], "article_id": ["a1"]})
    (part := folder / "transactions" / "t_dat=01.02.2020").mkdir(parents=True)
    (part / "part.csv").write_text(lines)
    shop = load_folder(folder, time_format="%d.%m.%Y", time_zone="Asia/Kolkata")
    assert [row[0] for row in list_sales(shop)] == ["2020-01-31T18:30:00"]


def test_times_that_do_not_fit_are_bad_rows(tmp_path):
    days = ["02.01.2020", "2020-01-01", "01.01.2020"]
    folder = write_tables(tmp_path, transactions=TRANSACTIONS | {"t_dat": days})
    with pytest.raises(InputError, match=r'1 missing_time: .* \(first: row 1, t_dat "2020-01-01"'):
        load_tables(folder, time_format="%d.%m.%Y")


SETTINGS = {
    "time_zone": ("Europe/Pariss", "expected a name such as Europe/Berlin"),
    "time_unit": ("hours", "expected 's', 'ms', 'us' or 'ns'"),
    "time_format": ("%Y-%m-%d %X", "found %X in .*; expected some of %Y"),
}


@pytest.mark.parametrize(("name", "value", "message"), [(k, *v) for k, v in SETTINGS.items()])
def test_settings_that_mean_nothing_are_refused(name, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"inputs.{name}={value}"])


@pytest.mark.parametrize(
    "value", ["%H:%M", "%Y-%m", "%Y %Y %m %d", "%Y-%m-%d %I:%M", "%y %Y %m %d"]
)
def test_formats_that_name_no_moment_are_refused(value):
    with pytest.raises(ConfigError, match="expected a year, a month and a day, each once"):
        load_config(overrides=[f"inputs.time_format: '{value}'"])


def test_a_build_of_other_times_is_the_build_of_the_same_moments(tmp_path):
    tables = random_shop(1, n_users=16, n_items=24, n_rows=260, minutes=True)
    zone = ZoneInfo("America/New_York")
    plain = write_shop(tables, tmp_path / "plain")
    expected = build(plain, tmp_path / "out", tiny_config(), backend="cpu").manifest
    for row in tables["transactions"]:
        moment = EPOCH.replace(tzinfo=dt.UTC) + dt.timedelta(microseconds=row["t_dat"] // 1000)
        row["t_dat"] = moment.astimezone(zone).strftime("%d.%m.%Y %H:%M")
    folder = tmp_path / "local"
    folder.mkdir()
    for name, rows in tables.items():
        if rows:
            columns = dict.fromkeys(key for row in rows for key in row)
            table = {key: [row.get(key) for row in rows] for key in columns}
            (folder / f"{name}.csv").write_text(to_csv(table), encoding="utf-8")
    local = {"time_format": "%d.%m.%Y %H:%M", "time_zone": "America/New_York"}
    built = build(folder, tmp_path / "local_out", tiny_config(inputs=local), backend="cpu")
    assert built.manifest.content_digest == expected.content_digest
    assert audit(folder, built.output)["verdict"] == "holds"


def test_a_format_needs_no_quotes_on_the_command_line():
    config = load_config(overrides=["inputs.time_format=%d.%m.%Y %H:%M"])
    assert config.inputs.time_format == "%d.%m.%Y %H:%M"


MOMENTS = [1577836800, 1580515200, 1583020800]  # days of 2020, in seconds


@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.parametrize(
    ("factor", "stated", "unit"),
    [
        (1, "ms", "s"),
        (1, "us", "s"),
        (10**3, "us", "ms"),
        (10**6, "ns", "us"),
        (10**3, "s", "ms"),
        (10**6, "ms", "us"),
        (10**9, "s", "ns"),
    ],
)
def test_a_wrong_unit_is_told_with_the_one_that_fits(tmp_path, factor, stated, unit, is_text):
    numbers = [moment * factor for moment in MOMENTS]
    times = {"t_dat": [*map(str, numbers)] if is_text else numbers}
    folder = write_tables(tmp_path, transactions=TRANSACTIONS | times)
    with pytest.raises(InputError, match=f"(?m)inputs.time_unit: {unit}$"):
        load_tables(folder, time_unit=stated)
    assert len(list_sales(load_tables(folder, time_unit=unit))) == 3
