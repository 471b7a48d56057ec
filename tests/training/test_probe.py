"""The probe learns what there is to learn, and says the same when it is run again."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from typer.testing import CliRunner

from gpu_dcgen import build
from gpu_dcgen.cli import app
from gpu_dcgen.training.probe import (
    NEGATIVE_KINDS,
    NegativeKind,
    make_model_scorer,
    probe,
    train_model,
)
from gpu_dcgen.training.rankings import evaluate, load_evaluation, make_popularity_scorer
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.shops import sales, tiny_config, write_shop
from tests.support.training_datasets import get_dataset


@pytest.fixture(scope="module")
def result():
    lines = []
    return probe(get_dataset(), epochs=1, n_positives=40, seed=3, notify=lines.append), lines


def test_every_ranking_is_measured_on_val_and_test(result):
    figures = result[0]["figures"]
    assert list(figures) == [
        "popularity",
        "recent popularity",
        "item CF",
        "repurchase",
        *(f"model, {kind}" for kind in NEGATIVE_KINDS),
    ]
    for by_split in figures.values():
        assert list(by_split) == ["val", "test"]
        assert all(0 <= figure <= 1 for metrics in by_split.values() for figure in metrics.values())
    assert result[0]["recall_target"] == 0.10
    assert len(result[1]) == 4 + 2 * len(NEGATIVE_KINDS)


def test_the_same_seed_gives_the_same_figures_and_leaves_torchs_alone(result):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    again = probe(get_dataset(), epochs=1, n_positives=40, seed=3)
    assert json.dumps(again) == json.dumps(result[0])
    assert torch.equal(torch.rand(1), wanted)


def taste_shop():
    """Make a shop of two halves that share no item; each user buys from one, a new item a day."""
    lines = []
    for user in range(40):
        for day in range(36):
            item = (user * 7 + day * 5 + day * day * 3) % 20
            lines.append((f"u{user:02d}", f"{'ab'[user % 2]}{item:02d}", day + user / 100))
    return sales(*lines)


@pytest.mark.slow
def test_a_model_learns_whose_half_of_the_shop_it_is(tmp_path):
    config = tiny_config(
        negative_sampling={"corpus": "all", "random_negatives_per_positive": 8},
        filtering={"max_user_interactions": 99},
    )
    build(write_shop(taste_shop(), tmp_path / "in"), tmp_path / "out", config)
    evaluation = load_evaluation(tmp_path / "out", "val", n_positives=500, seed=0)
    kind = NegativeKind(has_hard=False, has_in_batch=True)
    model, loss = train_model(tmp_path / "out", kind, epochs=12, seed=0)
    scores = make_model_scorer(model, evaluation.catalog, load_vocabularies(tmp_path / "out"))
    assert (
        evaluate(scores, evaluation)["ndcg@10"]
        > 1.3 * evaluate(make_popularity_scorer(tmp_path / "out"), evaluation)["ndcg@10"]
    )
    assert loss < 4


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_shows_the_figures_and_the_target():
    result = run("probe", get_dataset(), "--epochs", 1, "--positives", 20)
    assert result.exit_code == 0, result.output
    assert (
        "recall@50 of 0.10 on val" in result.stdout
        and "model, random + hard + in-batch" in result.stdout
    )
    lines = [
        json.loads(line)
        for line in run(
            "probe", get_dataset(), "--epochs", 1, "--positives", 20, "--json"
        ).stdout.splitlines()
    ]
    assert lines[-1]["event"] == "probed" and lines[-1]["figures"]["popularity"]["val"].keys() == {
        "recall@50",
        "ndcg@10",
    }


def test_a_folder_that_is_no_data_set_is_exit_code_2(tmp_path):
    result = run("probe", tmp_path)
    assert result.exit_code == 2 and "manifest.json: does not exist" in result.stderr
