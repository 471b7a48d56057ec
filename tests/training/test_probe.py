"""The probe learns what there is to learn, and says the same when it is run again."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from typer.testing import CliRunner

from gpu_dcgen import build
from gpu_dcgen.cli import app
from gpu_dcgen.training import probe as module
from gpu_dcgen.training.probe import (
    CORRECTED,
    DEFAULT,
    IN_BATCH,
    PLAIN,
    RANDOM,
    TARGETS,
    probe,
)
from gpu_dcgen.training.rankings import METRICS
from gpu_dcgen.training.recipes import TrainSettings
from tests.support.shops import sales, tiny_config, write_shop
from tests.support.training_datasets import get_dataset

SETTINGS = TrainSettings(steps=4, positives_per_step=40, d=8)


@pytest.fixture(scope="module")
def result():
    lines = []
    figures = probe(
        get_dataset(), settings=SETTINGS, n_positives=40, n_seeds=2, seed=3, notify=lines.append
    )
    return figures, lines


def test_every_ranking_is_measured_on_val_and_test(result):
    figures = result[0]["figures"]
    baselines = ["popularity", "recent popularity", "item CF", "repurchase"]
    assert [name for name in figures if "default + " not in name] == [
        *baselines,
        RANDOM,
        IN_BATCH,
        DEFAULT,
        CORRECTED,
        PLAIN,
    ]
    for by_split in figures.values():
        assert list(by_split) == ["val", "test"]
        for by_target in by_split.values():
            assert tuple(by_target) == TARGETS
            for metrics in by_target.values():
                assert tuple(metrics) == METRICS
                assert all(0 <= value <= 1 for value in metrics.values())
    n_models = sum("model" in line for line in result[1])
    assert n_models == 2 * (len(figures) - len(baselines))


def test_all_is_new_and_repurchased_together(result):
    """By counts; the metrics of new items are among new items alone, so not lower."""
    for split, counts in result[0]["positives"].items():
        assert counts["all"] == counts["new"] + counts["repurchased"]
        for name, figures in result[0]["figures"].items():
            by_target = figures[split]
            for metric in METRICS:
                mixed = (
                    by_target["new"][metric] * counts["new"]
                    + by_target["repurchased"][metric] * counts["repurchased"]
                ) / counts["all"]
                assert mixed >= by_target["all"][metric] - 1e-9, (name, split, metric)


def test_each_source_of_hard_negatives_is_tried_or_said_to_be_left_out(result):
    hard = [*result[0]["skipped"], *(name for name in result[0]["figures"] if "default + " in name)]
    assert hard and all(name.startswith("default + ") for name in hard)
    assert all("negative_log_q" in reason for reason in result[0]["skipped"].values())


def test_comparisons_are_of_the_figures_and_verdicts_of_both_splits(result):
    figures = result[0]["figures"]
    for each in result[0]["comparisons"]:
        for split, difference in each["by_split"].items():
            ours, theirs = (
                figures[each[side]][split][each["target"]][each["metric"]]
                for side in ("ranking", "reference")
            )
            assert difference["difference"] == pytest.approx(ours - theirs, abs=1e-9)
            assert difference["low"] <= difference["high"]
        is_above = all(d["low"] > 0 for d in each["by_split"].values())
        assert (each["verdict"] == "helps") == is_above


def test_the_same_seed_gives_the_same_figures(result):
    again = probe(get_dataset(), settings=SETTINGS, n_positives=40, n_seeds=2, seed=3)
    assert json.dumps(again) == json.dumps(result[0])


def test_the_summary_says_what_the_verdicts_say(result):
    figures = {**result[0]["figures"], "default + x": result[0]["figures"][DEFAULT]}
    template = {"by_split": {}, "target": "new", "metric": "ndcg@10"}
    comparisons = [
        {**template, "ranking": DEFAULT, "reference": "repurchase", "target": "all"},
        {**template, "ranking": DEFAULT, "reference": IN_BATCH, "metric": "recall@50"},
        {**template, "ranking": "default + x", "reference": DEFAULT},
    ]
    for each, verdict in zip(comparisons, ("helps", "no clear effect", "hurts"), strict=True):
        each["verdict"] = verdict
    figures = {k: v for k, v in figures.items() if "default + " not in k or k.endswith(" x")}
    text = module.summarize(figures, comparisons)
    assert "(helps)" in text
    assert "has no clear effect against in-batch negatives" in text and text.endswith("x hurts.")


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
    settings = TrainSettings(steps=200, positives_per_step=64)
    figures = probe(tmp_path / "out", settings=settings, n_positives=500, n_seeds=1)["figures"]
    for name in (RANDOM, DEFAULT):
        assert (
            figures[name]["val"]["all"]["ndcg@10"]
            > 1.3 * figures["popularity"]["val"]["all"]["ndcg@10"]
        )


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_shows_the_figures_and_writes_them(tmp_path):
    options = ["--steps", 2, "--positives", 20, "--seeds", 1, "--output", tmp_path / "probe.json"]
    result = run("probe", get_dataset(), *options)
    assert result.exit_code == 0, result.output
    assert "recall@50 of 0.10 on val" in result.stdout and DEFAULT in result.stdout
    written = json.loads((tmp_path / "probe.json").read_text())
    lines = [
        json.loads(line)
        for line in run("probe", get_dataset(), *options, "--json").stdout.splitlines()
    ]
    assert lines[-1]["event"] == "probed"
    assert lines[-1]["figures"] == written["figures"]
    assert not (get_dataset() / "probe.json").exists()


def test_a_folder_that_is_no_data_set_is_exit_code_2(tmp_path):
    result = run("probe", tmp_path)
    assert result.exit_code == 2 and "manifest.json: does not exist" in result.stderr
