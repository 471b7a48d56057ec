"""Each epoch takes other ones of the stored negatives, the same for the same seed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training.stream import ContrastiveStream
from tests.support.training_datasets import get_dataset

NAMES = ("item_index", "item_price_normalized")
STORED = {"hard": range(1, 3), "random": range(3, 7)}


def slots(n_hard, n_random, epochs=1, **settings):
    """group -> slots taken, for each epoch."""
    stream = ContrastiveStream(
        get_dataset(),
        layout="groups",
        batch_size=10,
        window=3,
        n_hard=n_hard,
        n_random=n_random,
        **{"num_workers": 0, **settings},
    )
    epochs_of_slots = []
    for _ in range(epochs):
        slots_by_group = {}
        for batch in stream:
            rows = zip(
                batch["metadata"]["group_number"].tolist(),
                batch["metadata"]["slot"].tolist(),
                strict=True,
            )
            slots_by_group |= {group: tuple(slots) for group, slots in rows}
        epochs_of_slots.append(slots_by_group)
    return epochs_of_slots


@pytest.mark.parametrize(("n_hard", "n_random"), [(0, 4), (1, 2), (2, 1), (0, 0)])
def test_as_many_of_each_kind_are_taken_as_asked_for_none_twice(n_hard, n_random):
    for chosen in slots(n_hard, n_random)[0].values():
        assert chosen[0] == 0 and len(set(chosen)) == len(chosen)
        assert [slot in STORED["hard"] for slot in chosen[1:]] == [True] * n_hard + [
            False
        ] * n_random


def test_epochs_take_others_and_a_second_run_takes_the_same():
    first, second = slots(1, 2, epochs=2)
    assert first != second
    assert [first, second] == slots(1, 2, epochs=2, num_workers=2)
    assert first != slots(1, 2, seed=8)[0]
    assert len(set(first.values())) == 2 * 6  # every choice of 1 of 2 and 2 of 4


def test_frozen_negatives_are_the_first_ones_in_every_epoch():
    for epoch in slots(1, 2, epochs=2, fresh_negatives=False):
        assert set(epoch.values()) == {(0, 1, 3, 4)}


def test_all_columns_follow_the_slots_and_all_negatives_are_the_default():
    wanted = {}
    for batch in ContrastiveStream(get_dataset(), layout="samples", batch_size=10, shuffle=False):
        sample, item = batch["metadata"], batch["item_features"]
        columns = (
            sample["group_number"],
            sample["slot"],
            item["item_index"],
            item["item_price_normalized"],
        )
        wanted |= {
            (group, slot): tuple(values)
            for group, slot, *values in zip(*(c.tolist() for c in columns), strict=True)
        }
    assert {slot for _, slot in wanted} == set(range(7))
    for batch in ContrastiveStream(
        get_dataset(), layout="groups", batch_size=10, n_hard=1, n_random=2
    ):
        for row, group in enumerate(batch["metadata"]["group_number"].tolist()):
            for column, slot in enumerate(batch["metadata"]["slot"][row].tolist()):
                item = {name: batch["item_features"][name][row, column].item() for name in NAMES}
                assert tuple(item.values()) == wanted[group, slot]
                assert batch["label"][row, column].item() == (slot == 0)
