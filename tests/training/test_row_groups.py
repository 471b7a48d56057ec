"""A sample's tensors say what its row of the file says."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training import records
from gpu_dcgen.training.files import open_split
from gpu_dcgen.training.groups import to_group_batch, to_sample_batch
from gpu_dcgen.training.records import concatenate, pack
from gpu_dcgen.training.row_groups import RowGroupReader
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.training_datasets import (
    ALL_SHAPES,
    CHANNELS,
    get_dataset,
    read_item_index,
    read_rows,
    read_user_index,
)

SPLITS = ("train", "val", "test")


def read_groups(dataset, split="train", columns=None):
    files = open_split(dataset, split)
    reader = RowGroupReader(files, load_vocabularies(files.folder), columns)
    return [reader.read(row_group) for row_group in files.row_groups]


def read_split(dataset, split="train"):
    return concatenate([pack(groups) for groups in read_groups(dataset, split)]).to_groups()


def flat(sample):
    """Column -> list of plain values, of the four parts together."""
    parts = {
        **sample["user_features"],
        **sample["item_features"],
        **sample["metadata"],
        "label": sample["label"],
    }
    return {name: tensor.tolist() for name, tensor in parts.items()}


def expected(row, number, dataset, width):
    """The plain values of a row's sample, from the row and the JSON files."""
    mappings = json.loads((dataset / "category_mappings.json").read_text())["mappings"]
    channels = {None: 0, **{channel: code for code, channel in enumerate(sorted(CHANNELS), 1)}}
    sequence = row["user_interaction_sequence"]
    values = {
        name: 0 if value is None else mappings[name][value] + 1 if name in mappings else value
        for name, value in row.items()
    }
    values |= {name: channels[row[name]] for name in ("user_preferred_channel", "sales_channel")}
    values["user_index"] = read_user_index(dataset)[values.pop("user_id")]
    values["item_index"] = read_item_index(dataset)[values.pop("item_id")]
    values["user_interaction_sequence"] = sequence + [0] * (6 - len(sequence))
    values["timestamp"] = row["timestamp"].value
    values["group_number"], values["slot"] = divmod(number, width)
    del values["sample_id"], values["generation_timestamp"]
    return values


@pytest.mark.parametrize("split", SPLITS)
def test_every_value_of_every_labelled_pair_arrives(split):
    dataset = get_dataset()
    decoded = flat(to_sample_batch(read_split(dataset, split)))
    wanted = [
        expected(row, number, dataset, 7) for number, row in enumerate(read_rows(dataset, split))
    ]
    assert decoded.keys() == wanted[0].keys()
    for name, values in decoded.items():
        assert values == [row[name] for row in wanted], name


def test_the_shop_has_what_the_reader_could_get_wrong():
    """Nulls, short and full histories, channels, hard negatives with and without a similarity."""
    table = read_rows(get_dataset())
    for name in (
        "user_age",
        "user_club_status",
        "item_product_group",
        "item_price_normalized",
        "sales_channel",
    ):
        assert {row[name] is None for row in table} == {True, False}, name
    assert {len(row["user_interaction_sequence"]) for row in table} >= {1, 6}
    assert {row["sales_channel"] for row in table} == {None, 1, 2, 7}
    assert {
        row["similarity_score"] is None for row in table if row["negative_source"] == "hard"
    } == {True, False}


def test_an_n_tuple_says_what_the_labelled_pairs_say():
    pairs, tuples = (read_split(get_dataset(shape)) for shape in ("labeled_pair", "n_tuple"))
    assert set(pairs.item_features) - set(tuples.item_features) == {"item_price_category"}
    for part in ("user_features", "item_features", "metadata"):
        for name, tensor in getattr(tuples, part).items():
            assert torch.equal(tensor, getattr(pairs, part)[name]), name


def test_a_triplet_says_what_the_first_two_of_a_group_say():
    pairs, triplets = (read_split(get_dataset(shape)) for shape in ("labeled_pair", "triplet"))
    assert set(pairs.item_features) == set(triplets.item_features)
    for part in ("user_features", "item_features", "metadata"):
        for name, tensor in getattr(triplets, part).items():
            first = getattr(pairs, part)[name]
            assert torch.equal(
                tensor,
                first[:, :2] if first.dim() == 2 and name != "user_interaction_sequence" else first,
            ), name


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_numbers_have_the_types_that_models_take(shape):
    sample = to_group_batch(read_groups(get_dataset(shape))[0])
    special = {
        "timestamp": [torch.int64],
        "group_number": [torch.int64],
        "slot": [torch.int16],
        "is_repurchase": [torch.bool],
    }
    for name, tensor in {
        **sample["user_features"],
        **sample["item_features"],
        **sample["metadata"],
    }.items():
        assert tensor.dtype in special.get(name, (torch.int32, torch.float32)), name
    assert sample["label"].dtype == torch.float32


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_only_the_columns_that_are_wanted_are_read(shape):
    (groups, *_) = read_groups(get_dataset(shape), columns=["item_id", "item_department", "season"])
    assert (list(groups.user_features), list(groups.item_features)) == (
        ["season"],
        ["item_index", "item_department"],
    )
    assert list(groups.metadata) == ["group_number", "slot"]


@pytest.mark.parametrize(
    "place", [slice(3, 9), slice(3, 4), np.random.default_rng(0).permutation(11)]
)
def test_records_are_the_groups_that_were_packed(place):
    groups = read_groups(get_dataset())[0]
    several = concatenate([pack(groups) for groups in read_groups(get_dataset())])
    selected = several.select(place).to_groups()
    for part in ("user_features", "item_features", "metadata"):
        assert getattr(selected, part).keys() == getattr(groups, part).keys()
        for name, tensor in getattr(selected, part).items():
            wanted = torch.cat([getattr(each, part)[name] for each in read_groups(get_dataset())])
            assert tensor.dtype == wanted.dtype, name
            assert torch.equal(
                tensor, wanted[place if isinstance(place, slice) else torch.from_numpy(place)]
            ), name


def test_records_on_a_device_are_those_of_the_host():
    """The device's code, run by torch on the host."""
    groups = read_groups(get_dataset())[0]
    wanted = pack(groups)
    words = torch.empty_like(wanted.words)
    records._write_on_device(groups, words, wanted.fields)
    assert torch.equal(words, wanted.words)
    for field in wanted.fields:
        decoded = records._view_on_device(wanted.words[:, field.first : field.end], field)
        assert torch.equal(decoded, getattr(groups, field.part)[field.name]), field.name


def test_records_know_their_bytes():
    (groups, *_) = read_groups(get_dataset(), columns=["season"])
    assert pack(groups).n_bytes == len(groups) * (4 + 8 + 4 * 7)  # season, group_number, slots


def test_batches_are_laid_out_for_models():
    for layout in (to_group_batch, to_sample_batch):
        sample = layout(pack(read_groups(get_dataset())[0]).to_groups())
        assert all(
            t.is_contiguous()
            for part in ("user_features", "item_features", "metadata")
            for t in sample[part].values()
        )
