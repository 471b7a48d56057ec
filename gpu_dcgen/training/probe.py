"""Measure what a model learns from a dataset, and from each kind of its negatives (D21).

A small two-tower model is trained by each recipe, with the same seeds, steps and settings. It ranks
the items on sale for baskets of val and test, beside rankings that need no training. Differences
have intervals that resample users and seeds; a recipe helps or hurts only if the interval excludes
0 on val and on test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch

from .baskets import Baskets, choose_baskets, load_baskets, make_catalog
from .files import open_split
from .ownership import list_owned
from .rankings import (
    METRICS,
    Evaluation,
    Places,
    Scorer,
    compute_values,
    list_positives,
    make_item_cf_scorer,
    make_model_scorer,
    make_popularity_scorer,
    make_recent_popularity_scorer,
    make_repurchase_scorer,
    rank_positives,
)
from .recipes import Recipe, TrainData, TrainSettings, train
from .statistics import Difference, Resamples, judge, resample
from .vocabularies import DatasetVocabularies, load_vocabularies

RECALL_TARGET = 0.10  # contract, "success_metrics": recall_50_target
EVALUATED_SPLITS = ("val", "test")
TARGETS = ("all", "new", "repurchased")
RANDOM, IN_BATCH, DEFAULT, CORRECTED, PLAIN = (
    "random",
    "in-batch, shuffled",
    "default recipe",
    "all rows, with their log_q",
    "all rows, plain softmax",
)
_HARD = "default + "  # and the source
_MAX_TRAIN_POSITIVES = 1_000_000
_NOT_MINED = ("fallback", "random")

Figures = dict[str, dict[str, dict[str, float]]]  # split -> target -> metric -> value


class Comparison(TypedDict):
    """A ranking against another, over one kind of targets and by one metric."""

    ranking: str
    reference: str
    target: str
    metric: str
    by_split: dict[str, Difference]
    verdict: str
    """"helps" or "hurts" if the intervals of val and test agree, else "no clear effect"."""


class ProbeSettings(TypedDict):
    """How the models were trained."""

    steps: int
    positives_per_step: int
    learning_rate: float
    temperature: float
    d: int
    seed: int
    n_seeds: int


class ProbeResult(TypedDict):
    """The figures of a probe, fit for JSON."""

    dataset: str
    content_digest: str
    settings: ProbeSettings
    positives: dict[str, dict[str, int]]
    """By split and kind of target, the positives ranked."""
    users: dict[str, int]
    """By split, the users of these positives."""
    items: int
    """Items of the catalog; ranked are those on sale at the time."""
    figures: dict[str, Figures]
    """By ranking, split and kind of target, the metrics; of models the mean over seeds."""
    comparisons: list[Comparison]
    skipped: dict[str, str]
    """By recipe, why it was not trained."""
    summary: str
    """What was found, in a sentence."""
    recall_target: float
    target_reached: bool
    ratio_to_popularity: float
    """Recall@50 of the default recipe on val, all targets / that of popularity."""


class _Measured(NamedTuple):
    """The values of all rankings on a split."""

    targets: dict[str, np.ndarray]  # (P,) bool
    resamples: Resamples
    values: dict[str, dict[str, np.ndarray]]  # ranking -> "target metric" -> (n_seeds or 1, P)


def probe(
    folder: Path,
    *,
    settings: TrainSettings | None = None,
    n_positives: int = 6_000,
    n_seeds: int = 5,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> ProbeResult:
    """Train models by each recipe, and compare the rankings.

    Args:
        folder: Folder of the dataset.
        settings: How to train; None for the defaults.
        n_positives: Positives of val and of test to rank, about; a seeded choice of baskets.
        n_seeds: Models of each recipe.
        seed: Same dataset, arguments, machine and version of PyTorch: same figures.
        notify: Receives a line for each step.

    Raises:
        InputError: The dataset cannot be used.

    Example:
        >>> result = probe(Path("data/training"), notify=print)
        >>> result["figures"]["default recipe"]["test"]["all"]["ndcg@10"]
    """
    settings = settings or TrainSettings()
    files = open_split(folder, "train")
    vocabularies = load_vocabularies(folder)
    data, evaluations = _load(folder, vocabularies, n_positives=n_positives, seed=seed)
    places = _rank_baselines(folder, vocabularies, data, evaluations, notify)
    recipes, skipped = list_recipes(data, vocabularies)
    for name, recipe in recipes.items():
        by_seed = []
        for k in range(n_seeds):
            notify(f"{name}: model {k + 1} of {n_seeds}")
            model = train(data, recipe, settings, seed + k)
            scorer = make_model_scorer(model, data.catalog, has_history=recipe.has_history)
            by_seed.append({s: rank_positives(scorer, each) for s, each in evaluations.items()})
        places[name] = {s: [ranked[s] for ranked in by_seed] for s in evaluations}
    measured = {
        split: _measure(each, {name: places[name][split] for name in places}, n_seeds, seed)
        for split, each in evaluations.items()
    }
    figures = _average(measured)
    comparisons = _compare(measured, list(recipes))
    recall, baseline = (
        figures[name]["val"]["all"]["recall@50"] for name in (DEFAULT, "popularity")
    )
    return {
        "dataset": folder.name,
        "content_digest": files.manifest.content_digest,
        "settings": {
            "steps": settings.steps,
            "positives_per_step": settings.positives_per_step,
            "learning_rate": settings.learning_rate,
            "temperature": settings.temperature,
            "d": settings.d,
            "seed": seed,
            "n_seeds": n_seeds,
        },
        "positives": {
            split: {name: int(mask.sum()) for name, mask in each.targets.items()}
            for split, each in measured.items()
        },
        "users": {split: each.resamples.users.shape[1] for split, each in measured.items()},
        "items": vocabularies.n_items,
        "figures": figures,
        "comparisons": comparisons,
        "skipped": skipped,
        "summary": summarize(figures, comparisons),
        "recall_target": RECALL_TARGET,
        "target_reached": recall >= RECALL_TARGET,
        "ratio_to_popularity": recall / max(baseline, 1e-9),
    }


def _load(
    folder: Path, vocabularies: DatasetVocabularies, *, n_positives: int, seed: int
) -> tuple[TrainData, dict[str, Evaluation]]:
    """Read the splits, and choose what to rank."""
    files = open_split(folder, "train")
    catalog = make_catalog(files, vocabularies)
    splits: dict[str, Baskets] = {
        split: load_baskets(
            folder, split, vocabularies, catalog, max_positives=_MAX_TRAIN_POSITIVES, seed=seed
        )
        for split in ("train", *EVALUATED_SPLITS)
    }
    baskets = splits["train"]
    users = baskets.user.repeat_interleave(baskets.offsets.diff())
    offsets, owned = list_owned(files, vocabularies, users, baskets.item)
    data = TrainData(baskets, catalog, offsets, owned, vocabularies.sizes(), files.n_hard)
    evaluations = {
        split: Evaluation(splits[split], choose_baskets(splits[split], n_positives, seed), catalog)
        for split in EVALUATED_SPLITS
    }
    return data, evaluations


def list_recipes(
    data: TrainData, vocabularies: DatasetVocabularies
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """List the recipes that the dataset allows, and why others are left out."""
    recipes = {
        RANDOM: Recipe(has_in_batch=False, has_random=True, has_history=False),
        IN_BATCH: Recipe(batches="shuffled", has_history=False),
        DEFAULT: Recipe(),
    }
    skipped: dict[str, str] = {}
    if not data.n_hard:
        return recipes, skipped
    details = data.baskets.detail.unique().tolist()
    for source, code in vocabularies.categories.get("negative_detail", {}).items():
        if source in _NOT_MINED or code not in details:
            continue
        if data.baskets.log_q is None:
            skipped[_HARD + source] = "the dataset has no column negative_log_q"
        else:
            recipes[_HARD + source] = Recipe(hard=code)
    corrected = Recipe(has_in_batch=False, has_random=True, hard=0, has_history=False)
    if data.baskets.log_q is None:
        skipped[CORRECTED] = "the dataset has no column negative_log_q"
    else:
        recipes[CORRECTED] = corrected
    recipes[PLAIN] = corrected._replace(is_plain=True)
    return recipes, skipped


def _rank_baselines(
    folder: Path,
    vocabularies: DatasetVocabularies,
    data: TrainData,
    evaluations: dict[str, Evaluation],
    notify: Callable[[str], None],
) -> dict[str, dict[str, list[Places]]]:
    """Rank by what needs no training: by name and split, a list of a single result."""
    recent = make_recent_popularity_scorer(data.catalog)
    scorers: dict[str, Scorer] = {
        "popularity": make_popularity_scorer(data.baskets, data.catalog),
        "recent popularity": recent,
        "item CF": make_item_cf_scorer(folder, vocabularies.items),
        "repurchase": make_repurchase_scorer(recent),
    }
    places = {}
    for name, scorer in scorers.items():
        notify(f"ranking by {name}")
        places[name] = {s: [rank_positives(scorer, each)] for s, each in evaluations.items()}
    return places


def _measure(
    evaluation: Evaluation, places: dict[str, list[Places]], n_seeds: int, seed: int
) -> _Measured:
    """Compute the values of each positive, by ranking and kind of target."""
    baskets = evaluation.baskets
    positives = list_positives(evaluation)
    is_repurchase = baskets.is_repurchase[positives].numpy()
    basket = torch.searchsorted(baskets.offsets, positives, right=True) - 1
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, by_seed in places.items():
        values[name] = {}
        for target in TARGETS:
            # Who asks for new items is shown no others.
            column = "among_new" if target == "new" else "among_all"
            per_seed = [compute_values(getattr(each, column)) for each in by_seed]
            for metric in METRICS:
                stacked = np.stack([each[metric].numpy() for each in per_seed])
                values[name][f"{target} {metric}"] = stacked
    targets = {
        "all": np.ones_like(is_repurchase),
        "new": ~is_repurchase,
        "repurchased": is_repurchase,
    }
    return _Measured(targets, resample(baskets.user[basket].numpy(), n_seeds, seed), values)


def _average(measured: Mapping[str, _Measured]) -> dict[str, Figures]:
    def average(each: _Measured, name: str, target: str, metric: str) -> float:
        mask = each.targets[target]
        return float(each.values[name][f"{target} {metric}"][:, mask].mean()) if mask.any() else 0.0

    names = next(iter(measured.values())).values
    return {
        name: {
            split: {
                target: {metric: average(each, name, target, metric) for metric in METRICS}
                for target in TARGETS
            }
            for split, each in measured.items()
        }
        for name in names
    }


def _compare(measured: Mapping[str, _Measured], recipes: list[str]) -> list[Comparison]:
    """Compare each recipe with what it has to beat."""
    pairs = [
        (DEFAULT, "repurchase"),
        (DEFAULT, IN_BATCH),
        (DEFAULT, RANDOM),
        (IN_BATCH, RANDOM),
        (CORRECTED, RANDOM),
        (PLAIN, RANDOM),
    ]
    pairs += [(name, DEFAULT) for name in recipes if name.startswith(_HARD)]
    comparisons: list[Comparison] = []
    names = next(iter(measured.values())).values
    for ranking, reference in pairs:
        if ranking not in names or reference not in names:
            continue
        for target in TARGETS:
            for metric in METRICS:
                key = f"{target} {metric}"
                by_split = {
                    split: each.resamples.compare(
                        each.values[ranking][key], each.values[reference][key], each.targets[target]
                    )
                    for split, each in measured.items()
                }
                comparisons.append(
                    {
                        "ranking": ranking,
                        "reference": reference,
                        "target": target,
                        "metric": metric,
                        "by_split": by_split,
                        "verdict": judge(list(by_split.values())),
                    }
                )
    return comparisons


def summarize(figures: Mapping[str, Figures], comparisons: list[Comparison]) -> str:
    """Say in a sentence what the default recipe and the hard negatives are good for."""
    verdicts = {
        (each["ranking"], each["reference"], each["target"], each["metric"]): each["verdict"]
        for each in comparisons
    }
    ours, theirs = (figures[name]["test"]["all"]["ndcg@10"] for name in (DEFAULT, "repurchase"))
    text = (
        f"On test, NDCG@10 of the default recipe is {ours:.4f}, of a list of earlier purchases"
        f" {theirs:.4f} ({verdicts[DEFAULT, 'repurchase', 'all', 'ndcg@10']}); for new items it"
        f" {_phrase(verdicts[DEFAULT, IN_BATCH, 'new', 'recall@50'])} against in-batch negatives"
        " (recall@50)"
    )
    hard = [name for name in figures if name.startswith(_HARD)]
    if not hard:
        return text + "; hard negatives were not tried."
    effects = {name.removeprefix(_HARD): verdicts[name, DEFAULT, "new", "ndcg@10"] for name in hard}
    listed = ", ".join(f"{source} {_phrase(verdict)}" for source, verdict in effects.items())
    return f"{text}; of hard negatives, by NDCG@10 of new items, {listed}."


def _phrase(verdict: str) -> str:
    return "has no clear effect" if verdict == "no clear effect" else verdict
