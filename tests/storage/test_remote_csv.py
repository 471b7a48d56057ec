"""CSV tables in an object store are read as those of a folder."""

from __future__ import annotations

import gzip

import pytest

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import InputError
from tests.storage.test_remote_inputs import copied, digest
from tests.support.csv_tables import convert_folder


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_csv_tables_of_a_bucket_are_those_of_a_folder(pack, bucket, shop, tmp_path):
    """`transactions_train.csv` and parts of a folder too; ranges cut lines and packed data."""
    suffix = ".csv" if pack is bytes else ".csv.gz"
    folder = convert_folder(shop, tmp_path / "plain")
    for file in folder.iterdir():
        file.with_name(file.stem + suffix).write_bytes(pack(file.read_bytes()))
        if suffix != ".csv":
            file.unlink()
    (folder / "articles").mkdir()
    (folder / f"articles{suffix}").rename(folder / "articles" / f"part-0{suffix}")
    local = digest(folder, tmp_path / "local")
    assert local["content_digest"] == digest(shop, tmp_path / "parquet")["content_digest"]
    assert digest(folder.as_uri(), tmp_path / "file") == local
    assert digest(bucket.upload(folder, "csv"), tmp_path / "remote") == local


def test_csv_files_have_names_of_their_own_in_a_bucket(bucket, shop, tmp_path):
    folder = convert_folder(shop, tmp_path / "in")
    (folder / "transactions_train.csv").rename(folder / "orders.csv")
    (folder / "images").mkdir()
    (folder / "images" / "1.jpg").write_bytes(b"never copied")
    config = DatasetConfig.model_validate({"inputs": {"files": {"transactions": "orders.csv"}}})
    tables = copied(bucket.upload(folder, "csv"), tmp_path / "here", config)
    assert sorted(path.name for path in tables.iterdir()) == [
        "articles.csv",
        "customers.csv",
        "orders.csv",
    ]


def test_a_fault_of_csv_in_a_bucket_has_file_line_and_remedy(bucket, shop, tmp_path):
    folder = convert_folder(shop, tmp_path / "in")
    lines = (folder / "transactions_train.csv").read_text().splitlines()
    (folder / "transactions_train.csv").write_text("\n".join([*lines[:3], "x", *lines[3:]]))
    with pytest.raises(InputError, match=r"transactions_train\.csv: line 4: found 1 fields"):
        digest(bucket.upload(folder, "csv"), tmp_path / "out")
    (folder / "transactions_train.csv").write_text("a;b")
    with pytest.raises(InputError, match=r"transactions_train\.csv: .* missing; found a, b"):
        digest(bucket.upload(folder, "csv"), tmp_path / "out")
