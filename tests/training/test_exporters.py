"""Other trainers get the same samples."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="pip install '.[torch]'")

from typer.testing import CliRunner

from gpu_dcgen.cli import app
from gpu_dcgen.errors import OutputError
from gpu_dcgen.training.exporters import export
from tests.training.data import ALL_SHAPES, built, item_index, rows


def test_recbole_gets_every_sample(tmp_path):
    table = rows(built(), "val")
    assert export(built(), tmp_path / "shop.inter", "inter", split="val") == len(table)
    head, *lines = (tmp_path / "shop.inter").read_text().splitlines()
    assert head.replace('"', "") == "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    for line, row in zip(lines, table, strict=True):
        user, item, label, time = line.split("\t")
        assert (user, item, float(label)) == (row["user_id"], row["item_id"], row["label"])
        assert float(time) == pytest.approx(row["timestamp"].value / 10**9)


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_tuples_say_what_was_bought_before_what_was_bought_and_what_was_not(tmp_path, shape):
    pairs = rows(built())
    ids = {index: item for item, index in item_index(built()).items()}
    n = export(built(shape), tmp_path / "tuples.parquet", "tuples")
    found = pq.read_table(tmp_path / "tuples.parquet").to_pylist()
    assert n == len(found) == len(pairs) // 7
    negatives = 1 if shape == "triplet" else 6
    for row, start in zip(found, range(0, len(pairs), 7), strict=True):
        group = pairs[start : start + 7]
        assert list(row) == ["anchor", "positive", *(f"negative_{place}" for place in range(1, 1 + negatives))]
        assert row["anchor"] == ", ".join(ids[index] for index in group[0]["user_interaction_sequence"])
        assert [*row.values()][1:] == [sample["item_id"] for sample in group][: 1 + negatives]


def test_a_file_that_is_there_is_not_replaced_unless_asked(tmp_path):
    (tmp_path / "shop.inter").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        export(built(), tmp_path / "shop.inter", "inter")
    result = CliRunner().invoke(app, ["export", str(built()), str(tmp_path / "shop.inter"), "--format", "inter"])
    assert result.exit_code == 2 and (tmp_path / "shop.inter").read_text() == "mine"
    result = CliRunner().invoke(app, ["export", str(built()), str(tmp_path / "shop.inter"), "--format", "inter", "--overwrite"])
    assert result.exit_code == 0 and result.stdout.startswith("Wrote ")
