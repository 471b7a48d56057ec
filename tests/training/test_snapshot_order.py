"""Batches of one item snapshot: everything once, whoever reads, and never two moments in one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.errors import ConfigError
from gpu_dcgen.training.in_batch import InBatch
from gpu_dcgen.training.snapshot_order import (
    count_dealt_rounds,
    deal_batches,
    make_snapshot_order,
)
from gpu_dcgen.training.stream import ContrastiveStream
from tests.support.training_datasets import get_dataset, read_rows

DAY_NS = 86_400 * 10**9
SNAPSHOTS = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=7
).map(lambda lists: tuple(np.array(values, dtype=np.int32) for values in lists))


def lay_out(order):
    """The epoch's groups as (row group, place in it), in the order of the epoch."""
    groups = []
    for window, members in enumerate(order.windows):
        laid = [(k, place) for k in members for place in range(len(order.snapshots[k]))]
        groups += [laid[place] for place in order.order_window(window)]
    return groups


@settings(deadline=None)
@given(SNAPSHOTS, st.integers(0, 9), st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_an_epoch_has_every_group_once_in_batches_of_one_snapshot(
    snapshots, seed, window, batch_size, shuffle
):
    counts = set()
    for epoch in range(3):
        order = make_snapshot_order(
            snapshots, seed, epoch, shuffle=shuffle, window=window, batch_size=batch_size
        )
        groups, bounds = lay_out(order), order.list_batch_bounds().tolist()
        everything = [(k, at) for k, each in enumerate(snapshots) for at in range(len(each))]
        assert sorted(groups) == everything
        assert shuffle or order.windows == tuple((k,) for k in range(len(snapshots)))
        assert bounds[0] == 0 and bounds[-1] == len(everything)
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            batch = groups[start:end]
            assert 1 <= len(batch) <= batch_size
            assert len({int(snapshots[k][at]) for k, at in batch}) == 1
        counts.add(len(bounds))
    assert len(counts) == 1  # so that len(stream) holds for every epoch


def test_batches_of_a_snapshot_are_equally_large_and_the_largest_of_a_window_is_last():
    snapshots = (np.array([0] * 11 + [1] * 2 + [2] * 7, dtype=np.int32),)
    for epoch in range(20):
        order = make_snapshot_order(snapshots, 1, epoch, shuffle=True, window=1, batch_size=4)
        sizes = np.diff(order.list_batch_bounds()).tolist()
        assert sorted(sizes) == [2, 3, 3, 4, 4, 4] and sizes[-1] == 4


def test_epochs_have_orders_of_their_own_also_of_batches_and_windows():
    snapshots = tuple(np.full(6, k // 2, dtype=np.int32) for k in range(8))
    orders = [
        make_snapshot_order(snapshots, 1, epoch, shuffle=True, window=2, batch_size=3)
        for epoch in range(4)
    ]
    assert len({tuple(lay_out(order)) for order in orders}) == 4
    assert len({order.windows for order in orders}) > 1
    assert len({tuple(sorted(order.windows)) for order in orders}) == 1


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=20),
    st.integers(1, 5),
    st.booleans(),
    st.data(),
)
def test_ranks_share_every_batch_in_equally_many_rounds(sizes, n_ranks, drop_last, data):
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    first = data.draw(st.integers(0, len(sizes) - 1))
    position = int(bounds[first])
    dealt = [
        list(deal_batches(bounds, position, rank, n_ranks, drop_last=drop_last))
        for rank in range(n_ranks)
    ]
    n_batches = len(sizes) - first
    assert {len(rounds) for rounds in dealt} == {
        count_dealt_rounds(n_batches, n_ranks, drop_last=drop_last)
    }
    for rounds in zip(*dealt, strict=True):
        assert len({end for _, end in rounds}) == 1
        places = [place for rows, _ in rounds for place in range(rows.start, rows.stop)]
        assert all(rows.stop > rows.start for rows, _ in rounds)
        wanted = list(range(position, rounds[0][1]))
        assert places == wanted or (len(wanted) < n_ranks and set(places) == set(wanted))
        for rows, _ in rounds:  # no part has groups of two batches
            assert np.searchsorted(bounds, rows.start, "right") == np.searchsorted(
                bounds, rows.stop - 1, "right"
            )
        position = rounds[0][1]
    left_out = int(bounds[-1]) - position
    assert left_out == 0 or drop_last


def snapshots_by_group(split="train"):
    """group number -> snapshot, counted from the rows; the shop's snapshots are 2 days apart."""
    positives = [row["timestamp"].value for row in read_rows(get_dataset(), split) if row["label"]]
    manifest = json.loads((get_dataset() / "manifest.json").read_text())
    first = manifest["split"]["windows_ns"]["first"] // DAY_NS * DAY_NS
    days = manifest["config"]["features"]["snapshot_days"]
    return [(time - first) // (days * DAY_NS) for time in positives]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"distinct_items": True}])
def test_a_batch_of_the_stream_has_one_snapshot(split, options):
    expected = snapshots_by_group(split)
    source = ContrastiveStream(
        get_dataset(), split, batch_size=4, batches="snapshot", window=99, **options
    )
    sizes = []
    for batch in source:
        numbers = batch["metadata"]["group_number"].unique().tolist()
        assert len({expected[number] for number in numbers}) == 1
        sizes.append(len(numbers))
    assert sum(sizes) == len(expected) and max(sizes) > 1


def test_ranks_of_the_stream_have_equally_many_batches_and_each_positive_once():
    numbers = []
    for rank in range(3):
        source = ContrastiveStream(
            get_dataset(), batch_size=5, batches="snapshot", layout="groups", rank=rank, n_ranks=3
        )
        batches = [batch["metadata"]["group_number"].tolist() for batch in source]
        assert len(batches) == len(source)
        numbers.append(batches)
    assert len({len(batches) for batches in numbers}) == 1
    flat = [number for batches in numbers for batch in batches for number in batch]
    assert sorted(flat) == list(range(source.files.n_groups))


def test_an_item_is_a_positive_of_a_batch_once_as_far_as_its_snapshot_has_batches():
    together = {}
    for distinct in (False, True):
        items = [
            batch["item_features"]["item_index"][:, 0]
            for batch in ContrastiveStream(
                get_dataset(),
                batch_size=3,
                batches="snapshot",
                layout="groups",
                window=99,
                distinct_items=distinct,
            )
        ]
        together[distinct] = sum(len(item) - len(item.unique()) for item in items)
    assert together[True] < together[False]


def test_the_stream_makes_the_batches_that_its_collate_needs():
    collate = InBatch(get_dataset())
    expected = snapshots_by_group()
    for batch in ContrastiveStream(get_dataset(), batch_size=4, n_hard=0, collate=collate):
        assert len({expected[k] for k in batch["metadata"]["group_number"].tolist()}) == 1
    with pytest.raises(ConfigError, match="batches 'shuffled': collate needs 'snapshot'"):
        ContrastiveStream(get_dataset(), batches="shuffled", collate=collate)


def test_another_batch_size_cannot_resume_batches_of_one_snapshot():
    state = ContrastiveStream(get_dataset(), batches="snapshot", batch_size=5).state_dict()
    with pytest.raises(ConfigError, match="state_dict: snapshot_batch_size is 5"):
        ContrastiveStream(get_dataset(), batches="snapshot", batch_size=6).load_state_dict(state)


def test_other_ranks_go_on_from_the_same_place():
    def open_stream(**options):
        return ContrastiveStream(
            get_dataset(), batch_size=5, batches="snapshot", layout="groups", **options
        )

    two = [iter(source := open_stream(rank=rank, n_ranks=2)) for rank in range(2)]
    done = [next(batches)["metadata"]["group_number"].tolist() for _ in range(2) for batches in two]
    rest = open_stream()
    rest.load_state_dict(json.loads(json.dumps(source.state_dict())))
    numbers = [batch["metadata"]["group_number"].tolist() for batch in rest]
    whole = [batch["metadata"]["group_number"].tolist() for batch in open_stream()]
    assert done + numbers == whole
