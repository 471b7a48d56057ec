"""Other trainers get the same samples."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="pip install '.[torch]'")

from typer.testing import CliRunner

from gpu_dcgen.cli import app
from gpu_dcgen.errors import OutputError
from gpu_dcgen.training.exporters import export
from tests.support.training_datasets import (
    ALL_SHAPES,
    copy_dataset,
    get_dataset,
    list_parts,
    read_item_index,
    read_rows,
    update_sizes,
)


def test_recbole_gets_every_sample(tmp_path):
    table = read_rows(get_dataset(), "val")
    assert export(get_dataset(), tmp_path / "shop.inter", "inter", split="val") == len(table)
    head, *lines = (tmp_path / "shop.inter").read_text().splitlines()
    assert head == "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    for line, row in zip(lines, table, strict=True):
        user, item, label, time = line.split("\t")
        assert (user, item, float(label)) == (row["user_id"], row["item_id"], row["label"])
        assert float(time) == pytest.approx(row["timestamp"].value / 10**9)


def test_ids_that_would_break_the_lines_are_refused_and_leave_no_file(tmp_path):
    dataset = copy_dataset(tmp_path)
    table = pq.read_table(dataset / "item_vocabulary.parquet")
    ids = ["a\tb", *table["item_id"].to_pylist()[1:]]
    renamed = table.set_column(
        table.schema.get_field_index("item_id"), table.schema.field("item_id"), [ids]
    )
    pq.write_table(renamed, dataset / "item_vocabulary.parquet")
    for path in list_parts(dataset, "val"):
        samples = pq.read_table(path)
        first = table["item_id"][0].as_py()
        column = [ids[0] if item == first else item for item in samples["item_id"].to_pylist()]
        named = samples.set_column(
            samples.schema.get_field_index("item_id"), samples.schema.field("item_id"), [column]
        )
        pq.write_table(named, path, row_group_size=28)
    update_sizes(dataset)
    with pytest.raises(OutputError, match="has a tab, a quotation mark or a line break"):
        export(dataset, tmp_path / "shop.inter", "inter", split="val")
    assert not list(tmp_path.glob("*shop.inter*"))


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_tuples_say_what_was_bought_before_what_was_bought_and_what_was_not(tmp_path, shape):
    pairs = read_rows(get_dataset())
    ids = {index: item for item, index in read_item_index(get_dataset()).items()}
    n = export(get_dataset(shape), tmp_path / "tuples.parquet", "tuples")
    tuples = pq.read_table(tmp_path / "tuples.parquet").to_pylist()
    assert n == len(tuples) == len(pairs) // 7
    negatives = 1 if shape == "triplet" else 6
    for row, start in zip(tuples, range(0, len(pairs), 7), strict=True):
        group = pairs[start : start + 7]
        assert list(row) == [
            "anchor",
            "positive",
            *(f"negative_{place}" for place in range(1, 1 + negatives)),
        ]
        assert row["anchor"] == ", ".join(
            ids[index] for index in group[0]["user_interaction_sequence"]
        )
        assert [*row.values()][1:] == [sample["item_id"] for sample in group][: 1 + negatives]


def test_a_file_that_is_there_is_not_replaced_unless_asked(tmp_path):
    (tmp_path / "shop.inter").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        export(get_dataset(), tmp_path / "shop.inter", "inter")
    result = CliRunner().invoke(
        app, ["export", str(get_dataset()), str(tmp_path / "shop.inter"), "--format", "inter"]
    )
    assert result.exit_code == 2 and (tmp_path / "shop.inter").read_text() == "mine"
    result = CliRunner().invoke(
        app,
        [
            "export",
            str(get_dataset()),
            str(tmp_path / "shop.inter"),
            "--format",
            "inter",
            "--overwrite",
        ],
    )
    assert result.exit_code == 0 and result.stdout.startswith("Wrote ")


@pytest.mark.parametrize("form", ["inter", "tuples"])
def test_a_place_that_cannot_be_written_to_is_named(form, tmp_path):
    (tmp_path / "file").write_text("mine")
    output = tmp_path / "file" / "train.inter"
    with pytest.raises(OutputError, match=r"file/train.inter: cannot be written \(.*\)\.\nName"):
        export(get_dataset(), output, form)
