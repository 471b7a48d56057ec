"""The little shops: repeatable, written as they are, and no interaction of theirs is lost by the
oracle.
"""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from hypothesis import given, reject, settings

from tests.support import reference
from tests.support.shops import random_shop, shops, tiny_config, write_shop


@settings(max_examples=20, deadline=None)
@given(shops())
def test_every_interaction_of_a_random_shop_is_in_one_bucket(tables):
    try:
        result = reference.build(tables, tiny_config(), partly=True)
    except reference.Unbuildable:
        reject()
    assert sum(result.ledger.values()) == len(result.interactions)
    assert len(tables["transactions"]) == len(result.interactions) + sum(result.dropped.values())


def test_a_random_shop_is_the_same_again_and_another_for_another_seed():
    assert random_shop(3, views=True) == random_shop(3, views=True) != random_shop(4, views=True)
    assert random_shop(3, n_rows=50)["transactions"] == random_shop(3)["transactions"][:50]


def test_a_shop_with_times_of_day_is_not_written_as_dates(tmp_path):
    with pytest.raises(ValueError, match="unit='timestamp'"):
        write_shop(random_shop(3, minutes=True), tmp_path, unit="date")


@pytest.mark.parametrize("unit", ["date", "timestamp"])
def test_written_shops_read_back_as_they_are(tmp_path, unit):
    tables = random_shop(3, views=True)
    write_shop(tables, tmp_path, unit=unit)
    for name, rows in tables.items():
        table = pq.read_table(tmp_path / f"{name}.parquet")
        if "t_dat" in table.column_names:
            times = table["t_dat"].cast("timestamp[ns]").cast("int64")
            table = table.set_column(0, "t_dat", times)
        assert table.to_pylist() == rows
