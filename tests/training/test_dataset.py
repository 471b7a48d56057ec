"""`ContrastiveDataset` is a map-style dataset, which reads lazily and bounds its cache."""

from __future__ import annotations

import pickle

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from torch.utils.data import DataLoader

import gpu_dcgen
from gpu_dcgen.errors import ConfigError
from gpu_dcgen.training.dataset import ContrastiveDataset, LocalSampler
from gpu_dcgen.training.row_groups import RowGroupReader
from tests.support.training_datasets import ALL_SHAPES, get_dataset, read_rows


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return torch.equal(left, right)


@pytest.fixture
def read(monkeypatch):
    """Record the first group of each row group that is decoded, in order."""
    decoded = []
    plain = RowGroupReader.read
    monkeypatch.setattr(
        RowGroupReader,
        "read",
        lambda self, group: decoded.append(group.first) or plain(self, group),
    )
    return decoded


def test_it_is_a_public_name():
    assert gpu_dcgen.ContrastiveDataset is ContrastiveDataset


@pytest.mark.parametrize("shape", ALL_SHAPES)
@pytest.mark.parametrize("layout", ["samples", "groups"])
def test_a_batch_is_its_samples_stacked(shape, layout):
    dataset = ContrastiveDataset(get_dataset(shape), layout=layout)
    indices = [len(dataset) - 1, 0, 5, 5, 3, -1]
    batch = dataset.batch(indices)
    for place, index in enumerate(indices):
        sample = dataset[index]
        assert same(
            sample["item_features"], {name: t[place] for name, t in batch["item_features"].items()}
        )
        assert same(
            sample["user_features"], {name: t[place] for name, t in batch["user_features"].items()}
        )
        assert same(sample["metadata"], {name: t[place] for name, t in batch["metadata"].items()})
        assert torch.equal(sample["label"], batch["label"][place])


def test_samples_are_the_rows_of_the_files():
    dataset = ContrastiveDataset(get_dataset(), "val")
    table = read_rows(get_dataset(), "val")
    assert len(dataset) == len(table)
    for index in range(len(table)):
        sample = dataset[index]
        assert sample["label"].item() == table[index]["label"]
        assert sample["metadata"]["timestamp"].item() == table[index]["timestamp"].value
        assert (
            dataset.sample_id(sample["metadata"]["group_number"], sample["metadata"]["slot"])
            == table[index]["sample_id"]
        )


@pytest.mark.parametrize("shape", ["n_tuple", "triplet"])
def test_the_sample_id_of_other_shapes_is_the_rows(shape):
    dataset = ContrastiveDataset(get_dataset(shape))
    names = [row["sample_id"] for row in read_rows(get_dataset(shape))]
    assert [
        dataset.sample_id(dataset[index]["metadata"]["group_number"])
        for index in range(len(dataset))
    ] == names
    assert dataset.layout == "groups"


@pytest.mark.parametrize("index", [10**6, -(10**6)])
def test_an_index_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match="expected indices into"):
        ContrastiveDataset(get_dataset())[index]


def test_a_layout_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="layout 'rows': expected 'samples' or 'groups'"):
        ContrastiveDataset(get_dataset(), layout="rows")


def test_nothing_is_read_before_it_is_needed_and_then_once(read):
    dataset = ContrastiveDataset(get_dataset())
    assert read == []
    dataset.batch([0, len(dataset) - 1, 1])
    assert len(read) == 2
    dataset[2]
    assert len(read) == 2


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago(read):
    whole = ContrastiveDataset(get_dataset())
    first, second, third = (group.first * 7 for group in whole.files.row_groups[:3])
    whole.batch([first, second, third])
    largest = max(groups.n_bytes for groups in whole._cache.values())
    dataset = ContrastiveDataset(get_dataset(), cache_bytes=2 * largest)
    read.clear()
    for index in (
        first,
        second,
        first,
        third,
        first,
        second,
    ):  # the second is forgotten for the third
        dataset[index]
    assert [7 * group for group in read] == [first, second, third, second]
    assert sum(groups.n_bytes for groups in dataset._cache.values()) <= 2 * largest


def test_a_cache_without_room_still_reads():
    dataset = ContrastiveDataset(get_dataset(), cache_bytes=0)
    assert same(dataset[0], ContrastiveDataset(get_dataset())[0])


def test_the_default_collate_gives_the_batch_that_was_read():
    dataset = ContrastiveDataset(get_dataset())
    by_default = DataLoader(dataset, batch_size=9)
    at_once = DataLoader(dataset, batch_size=9, collate_fn=dataset.collate)
    assert all(same(left, right) for left, right in zip(by_default, at_once, strict=True))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_give_the_same_samples(start):
    dataset = ContrastiveDataset(get_dataset(), "val")
    dataset[0]
    here = list(DataLoader(dataset, batch_size=13, collate_fn=dataset.collate))
    loader = DataLoader(
        dataset,
        batch_size=13,
        collate_fn=dataset.collate,
        num_workers=2,
        multiprocessing_context=start,
    )
    assert all(same(left, right) for left, right in zip(here, loader, strict=True))


def test_another_process_begins_with_an_empty_cache():
    dataset = ContrastiveDataset(get_dataset())
    dataset[0]
    assert not pickle.loads(pickle.dumps(dataset))._cache and dataset._cache


def test_the_sampler_takes_every_sample_once_and_reads_each_row_group_once(read):
    dataset = ContrastiveDataset(get_dataset())
    sampler = LocalSampler(dataset, seed=4, window=2)
    loader = DataLoader(dataset, batch_size=21, sampler=sampler, collate_fn=dataset.collate)
    indices = torch.cat(
        [batch["metadata"]["group_number"] * 7 + batch["metadata"]["slot"] for batch in loader]
    ).tolist()
    assert sorted(indices) == list(range(len(sampler))) and indices != sorted(indices)
    assert len(read) == len(set(read)) == len(dataset.files.row_groups)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(first) == sorted(sampler) and first != list(sampler)
