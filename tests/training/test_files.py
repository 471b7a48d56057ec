"""A dataset that is damaged, incomplete, mixed or of another version is refused."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.training.dataset import ContrastiveDataset
from gpu_dcgen.training.files import open_split
from gpu_dcgen.training.in_batch import InBatch
from gpu_dcgen.training.row_groups import RowGroupReader
from gpu_dcgen.training.stream import ContrastiveStream
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.training_datasets import (
    ALL_SHAPES,
    change_json,
    copy_dataset,
    get_dataset,
    list_parts,
    update_sizes,
)


def test_a_split_is_found_by_folder_by_file_and_by_folder_of_parts():
    dataset = get_dataset()
    (val,) = list_parts(dataset, "val")[:1]
    by_name = open_split(dataset, "val")
    assert open_split(dataset / "val_dataset.parquet").parts == by_name.parts
    assert val in by_name.parts
    assert open_split(dataset).split == "train"
    assert len(open_split(dataset).parts) > 1


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", ["labeled_pair", "labeled_pair/val_dataset.parquet", "../link"])
def test_the_working_directory_may_change_after_opening(tmp_path, monkeypatch, name, num_workers):
    copy_dataset(tmp_path / "here")
    (tmp_path / "link").symlink_to("here/labeled_pair")
    monkeypatch.chdir(tmp_path / "here")
    collate = InBatch(name, "val")
    streams = [
        ContrastiveStream(name, "val", num_workers=num_workers),
        ContrastiveStream(name, "val", num_workers=num_workers, n_hard=0, collate=collate),
    ]
    rows = ContrastiveDataset(name, "val")
    monkeypatch.chdir("/")
    for stream in streams:
        assert len(list(stream)) == len(stream) > 0
    assert rows[len(rows) - 1]["label"] in (0, 1)


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_row_groups_lie_end_to_end_and_hold_every_positive(shape):
    files = open_split(get_dataset(shape))
    assert [group.first for group in files.row_groups[1:]] == [
        g.first + g.n_groups for g in files.row_groups[:-1]
    ]
    assert files.n_groups == files.manifest.counts["train"].groups > 20
    assert files.width == (2 if shape == "triplet" else 7)


def test_a_split_that_is_asked_for_by_two_names_is_refused():
    with pytest.raises(InputError, match="is the split 'val', but 'test' was asked for"):
        open_split(get_dataset() / "val_dataset.parquet", "test")
    with pytest.raises(InputError, match="expected one of train, val, test"):
        open_split(get_dataset(), "training")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="manifest.json: does not exist"):
        open_split(tmp_path)


def test_a_damaged_manifest_is_refused(tmp_path):
    dataset = copy_dataset(tmp_path)
    (dataset / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        open_split(dataset)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda manifest: manifest.pop("counts"), r"is no manifest .*\(counts: Field required\)"),
        (lambda manifest: manifest.clear(), "contract None, expected 'DC-002 1.0.0'"),
    ],
)
def test_an_incomplete_manifest_is_refused(tmp_path, change, text):
    dataset = copy_dataset(tmp_path)
    change_json(dataset / "manifest.json", change)
    with pytest.raises(InputError, match=f"manifest.json: {text}"):
        open_split(dataset)
    (dataset / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="manifest.json: expected a JSON object"):
        open_split(dataset)


@pytest.mark.parametrize(
    "file",
    [
        "item_vocabulary.parquet",
        "user_sequences.parquet",
        "vocabulary.json",
        "category_mappings.json",
    ],
)
def test_another_builds_vocabulary_is_found_though_its_values_would_fit(tmp_path, file):
    """Ids are looked up by name, but histories hold indices, which would shift unnoticed."""
    dataset = copy_dataset(tmp_path)
    with (dataset / file).open("ab") as vocabulary:
        vocabulary.write(b" ")
    with pytest.raises(
        InputError,
        match=rf"{file}: [\d,]+ bytes, manifest.json says [\d,]+: a damaged copy, or a file of",
    ):
        open_split(dataset)
    (dataset / file).unlink()
    with pytest.raises(InputError, match=rf"{file}: does not exist, but manifest.json lists it"):
        open_split(dataset)
    change_json(dataset / "manifest.json", lambda manifest: manifest["files"].pop(file))
    with pytest.raises(InputError, match=rf"manifest.json: does not list {file}"):
        open_split(dataset)


def test_a_data_set_of_another_contract_is_refused(tmp_path):
    dataset = copy_dataset(tmp_path)
    change_json(
        dataset / "manifest.json", lambda manifest: manifest.update(contract="DC-002 9.0.0")
    )
    with pytest.raises(InputError, match="contract 'DC-002 9.0.0', expected 'DC-002 1.0.0'"):
        open_split(dataset)


def test_a_part_without_the_contracts_metadata_is_refused(tmp_path):
    dataset = copy_dataset(tmp_path)
    part = list_parts(dataset)[0]
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    name = str(part.relative_to(dataset))
    change_json(
        dataset / "manifest.json",
        lambda manifest: manifest["files"].update({name: part.stat().st_size}),
    )
    with pytest.raises(InputError, match="other writers drop the metadata"):
        open_split(dataset)


def test_a_missing_part_is_named(tmp_path):
    dataset = copy_dataset(tmp_path)
    list_parts(dataset)[1].unlink()
    with pytest.raises(
        InputError, match=r"part-00001.parquet: does not exist, but manifest.json lists it"
    ):
        open_split(dataset)


def test_a_part_that_was_cut_off_is_named(tmp_path):
    dataset = copy_dataset(tmp_path)
    part = list_parts(dataset)[1]
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"part-00001.parquet: [\d,]+ bytes, manifest.json says"):
        open_split(dataset)


def test_a_part_with_a_damaged_footer_is_named(tmp_path):
    dataset = copy_dataset(tmp_path)
    part = list_parts(dataset)[0]
    part.write_bytes(part.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(InputError, match="part-00000.parquet: its footer cannot be read"):
        open_split(dataset)


def test_parts_of_two_data_sets_are_not_mixed(tmp_path):
    dataset = copy_dataset(tmp_path)
    part = list_parts(dataset)[1]
    pq.write_table(pq.read_table(part).drop_columns(["season"]), part)
    name = str(part.relative_to(dataset))
    change_json(
        dataset / "manifest.json",
        lambda manifest: manifest["files"].update({name: part.stat().st_size}),
    )
    with pytest.raises(
        InputError, match="part-00001.parquet: other columns than in the first part"
    ):
        open_split(dataset)


def test_positives_that_are_missing_are_counted(tmp_path):
    dataset = copy_dataset(tmp_path)
    change_json(
        dataset / "manifest.json", lambda manifest: manifest["counts"]["train"].update(groups=1)
    )
    with pytest.raises(InputError, match=r"has \d+ positives, manifest.json says 1"):
        open_split(dataset)


def rewrite(dataset, part, table, row_group_size):
    pq.write_table(table, part, row_group_size=row_group_size)
    name = str(part.relative_to(dataset))
    change_json(
        dataset / "manifest.json",
        lambda manifest: manifest["files"].update({name: part.stat().st_size}),
    )


def test_row_groups_that_cut_groups_in_two_are_refused(tmp_path):
    dataset = copy_dataset(tmp_path)
    part = list_parts(dataset)[0]
    rewrite(dataset, part, pq.read_table(part), 10)
    with pytest.raises(InputError, match="row group 0 has 10 rows, expected whole groups of 7"):
        open_split(dataset)


def test_rows_that_were_sorted_by_something_else_are_refused(tmp_path):
    dataset = copy_dataset(tmp_path)
    part = list_parts(dataset)[0]
    table = pq.read_table(part)
    rewrite(dataset, part, table.sort_by("item_id"), table.num_rows)
    with pytest.raises(
        InputError, match="rows are not in groups of a positive and its 6 negatives"
    ):
        list(ContrastiveStream(dataset))


def damage(part):
    """Overwrite pages in the middle of the part, and keep its size and its footer."""
    content = bytearray(part.read_bytes())
    start = pq.read_metadata(part).row_group(0).column(0).dictionary_page_offset
    content[start : start + 400] = b"\xff" * 400
    part.write_bytes(content)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_damaged_row_group_is_named_by_whichever_thread_meets_it(tmp_path, num_workers):
    dataset = copy_dataset(tmp_path)
    damage(list_parts(dataset)[1])
    with pytest.raises(InputError, match=r"part-00001.parquet: row group 0 cannot be read"):
        list(ContrastiveStream(dataset, num_workers=num_workers))
    with pytest.raises(InputError, match=r"part-00001.parquet: row group 0 cannot be read"):
        list(ContrastiveDataset(dataset))


@pytest.mark.parametrize(
    ("file", "column"),
    [("user_sequences.parquet", "user_id"), ("item_vocabulary.parquet", "item_id")],
)
def test_ids_that_no_vocabulary_knows_are_named(tmp_path, file, column):
    dataset = copy_dataset(tmp_path)
    table = pq.read_table(dataset / file)
    pq.write_table(table.slice(0, 3), dataset / file)
    update_sizes(dataset)
    with pytest.raises(InputError, match=rf"column '{column}' has '\w+', which is not in {file}"):
        list(ContrastiveStream(dataset))


def test_a_category_that_no_mapping_knows_is_named(tmp_path):
    dataset = copy_dataset(tmp_path)
    change_json(
        dataset / "category_mappings.json", lambda content: content["mappings"]["season"].clear()
    )
    update_sizes(dataset)
    with pytest.raises(
        InputError, match=r"column 'season' has '\w+', which is not in category_mappings.json"
    ):
        list(ContrastiveStream(dataset))


def test_a_vocabulary_of_another_data_set_is_refused(tmp_path):
    dataset = copy_dataset(tmp_path)
    table = pq.read_table(dataset / "item_vocabulary.parquet")
    pq.write_table(table.slice(1), dataset / "item_vocabulary.parquet")
    update_sizes(dataset)
    with pytest.raises(InputError, match="item_index does not count from 1"):
        open_both(dataset)
    shutil.copy(list_parts(dataset)[0], dataset / "item_vocabulary.parquet")
    update_sizes(dataset)
    with pytest.raises(InputError, match="item_vocabulary.parquet: cannot be read"):
        open_both(dataset)


def open_both(dataset):
    return load_vocabularies(open_split(dataset).folder)


def test_a_column_that_is_not_there_is_refused():
    files = open_split(get_dataset("n_tuple"))
    with pytest.raises(
        ConfigError, match="'item_price_category' is not available; this dataset offers user_id"
    ):
        RowGroupReader(files, load_vocabularies(files.folder), ["item_price_category"])
