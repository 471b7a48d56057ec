"""History features say what loops over the history say."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training.history import compute_in_history, describe_history
from gpu_dcgen.training.two_tower import TwoTower
from tests.support.training_datasets import get_dataset

SEQUENCE = [[3, 1, 3, 2, 0, 0], [0] * 6, [5, 4, 5, 5, 4, 1]]


def describe(history, item):
    """is_there, log(1 + count), 1 / (1 + purchases after the latest), by loops."""
    bought = [each for each in history if each]
    if not item or item not in bought:
        return [0.0, 0.0, 0.0]
    n_later = bought[::-1].index(item)
    return [1.0, math.log(1 + bought.count(item)), 1 / (1 + n_later)]


def test_features_by_hand():
    features = compute_in_history(torch.tensor(SEQUENCE), torch.tensor([3, 9]))
    assert features[0, 0].tolist() == pytest.approx([1, math.log(3), 1 / 2])
    assert features[2].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_own_and_shared_candidates_and_places_agree_with_loops(dtype):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 9, (40,), generator=generator)
    sequence = torch.randint(1, 7, (40, 8), generator=generator)
    sequence = (sequence * (torch.arange(8) < lengths[:, None])).to(dtype)
    own = torch.randint(0, 9, (40, 5), generator=generator).to(dtype)
    everything = torch.arange(9)
    shared = torch.tensor([4, 0, 4, 8, 2])
    of_own = compute_in_history(sequence, own)
    of_all = compute_in_history(sequence, everything)
    of_shared = compute_in_history(sequence, shared)
    of_places = describe_history(sequence)
    for row, history in enumerate(sequence.tolist()):
        for features, items in (
            (of_own, own[row].tolist()),
            (of_all, everything.tolist()),
            (of_shared, shared.tolist()),
            (of_places, history),
        ):
            expected = [describe(history, item) for item in items]
            assert features[row].flatten().tolist() == pytest.approx(sum(expected, []))


def test_a_model_scores_items_outside_the_history_as_zero():
    from gpu_dcgen.training.vocabularies import load_vocabularies

    model = TwoTower(load_vocabularies(get_dataset()).sizes(), d=4)
    scores = model.score_history(compute_in_history(torch.tensor(SEQUENCE), torch.arange(6)))
    assert scores.shape == (3, 6)
    assert (scores[1] == 0).all() and (scores[0, [0, 4, 5]] == 0).all()
    assert (scores[0, [1, 2, 3]] != 0).all()
