"""Dictionaries of ids hold those that occur, few or many of the vocabulary."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_dcgen.backend.blocks import Codes
from gpu_dcgen.digest import vocabulary
from tests.cpu_fallback.test_writer import CPU, write_column


@pytest.mark.parametrize("n_ids", [5, 5_000])  # few codes of many ids are found by sorting
def test_ids_and_nulls_are_those_of_the_codes(tmp_path, n_ids):
    codes, ids = np.array([3, -1, n_ids - 1, 0, 3]), [f"id {k}" for k in range(n_ids)]
    column = Codes(codes, vocabulary(ids, CPU), 2)
    write_column(tmp_path / "a.parquet", pa.string(), column, 10)
    column = pq.ParquetFile(tmp_path / "a.parquet", read_dictionary=["x"]).read()["x"].chunk(0)
    assert column.dictionary.to_pylist() == [ids[0], ids[3], ids[-1]]
    assert column.to_pylist() == [
        None if code < 0 else ids[code] for code in np.repeat(codes, 2).tolist()
    ]


def test_a_column_of_nulls_has_no_ids(tmp_path):
    column = Codes(np.array([-1]), vocabulary(["a"] * 1_000, CPU))
    assert write_column(tmp_path / "a.parquet", pa.string(), column, 1).to_pylist() == [None]
