"""The funnel of candidates says what became of each: held against the audit's writing of the rules,
candidate by candidate.
"""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from gpu_dcgen.auditing.dataset_files import open_dataset
from gpu_dcgen.auditing.expected import derive_dataset
from gpu_dcgen.auditing.negatives import NegativeMiner, Positive
from gpu_dcgen.auditing.similarity_checks import read_pairs
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.kernels.funnel import OUTCOMES
from gpu_dcgen.quality_validator import candidate_funnel
from gpu_dcgen.quality_validator.candidate_funnel import sampled_bits
from tests.support.shops import random_shop, tiny_config, write_shop
from tests.support.strict_backend import StrictBackend

SETTINGS = {
    "usual": {},
    "greedy": {
        "negative_sampling": {**tiny_config().negative_sampling.model_dump(), "selection": "greedy"}
    },
}


def built(folder, config, backend="cpu", n_rows=700):
    write_shop(random_shop(4, n_users=30, n_items=30, n_rows=n_rows), folder / "input")
    build(folder / "input", folder / "output", config, backend=backend, overwrite=True)
    return json.loads((folder / "output" / "quality_report.json").read_text())["funnel"][
        "negatives"
    ]


def expected(folder, config) -> Counter:
    """(first source, fate) -> candidates of all positives."""
    dataset, counts = derive_dataset(folder / "input", config), Counter()
    pairs = read_pairs(open_dataset(folder / "output"), dataset.log.items)
    vocabulary = pq.read_table(folder / "output" / "item_vocabulary.parquet").sort_by("item_id")
    weights = vocabulary["mining_weight"].to_numpy()
    for split in dataset.splits:
        miner = NegativeMiner(split.log, split.snapshots, pairs, config, weights)
        columns = (split.user, split.item, split.time, split.copy)
        for positive in map(Positive, *(column.tolist() for column in columns)):
            for c in miner.mine(positive).candidates:
                fate = "not_drawn" if c.slot is None else "chosen"
                if c.refused in (None, "owned"):
                    counts[c.sources[0], c.refused or fate] += 1
    return counts


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_candidate_meets_the_outcome_that_the_rules_give_it(settings, tmp_path):
    config = tiny_config(**settings)
    negatives = built(tmp_path, config)
    counted = negatives["candidates"]
    counts = {
        (source, outcome): n
        for source, outcomes in counted["by_source"].items()
        for outcome, n in outcomes.items()
        if n
    }
    wanted = expected(tmp_path, config)
    assert {key: n for key, n in counts.items() if key[1] != "offered"} == wanted
    assert {outcome for _, outcome in wanted} == set(OUTCOMES)
    for source, outcomes in counted["by_source"].items():
        assert outcomes["offered"] == sum(outcomes[outcome] for outcome in OUTCOMES)
        assert (
            outcomes["chosen"] == negatives["by_source"][source]["drawn"]
        )  # all positives are looked at in a small shop
    assert counted["one_in"] == 1


def test_the_sample_is_the_same_in_blocks_of_any_size_and_on_any_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(candidate_funnel, "_MIN_POSITIVES", 40)
    whole = built(tmp_path / "whole", tiny_config())["candidates"]
    blocks = built(tmp_path / "blocks", tiny_config(resources={"batch_size": 7}))["candidates"]
    other = built(tmp_path / "strict", tiny_config(), backend=StrictBackend())["candidates"]
    assert whole == blocks == other
    n_positives = sum(whole["by_source"][source]["chosen"] for source in whole["by_source"])
    assert whole["one_in"] > 1 and 0 < whole["positives"] < n_positives


def test_without_hard_negatives_there_are_no_candidates(tmp_path):
    settings = {**tiny_config().negative_sampling.model_dump(), "hard_negatives_per_positive": 0}
    assert built(tmp_path, tiny_config(negative_sampling=settings))["candidates"] is None


@pytest.mark.parametrize(
    ("n", "one_in"), [(1, 1), (8_191, 1), (8_192, 2), (262_143, 32), (262_144, 64), (10**9, 64)]
)
def test_a_large_data_set_is_sampled_and_a_small_one_is_not(n, one_in):
    assert 1 << sampled_bits(SimpleNamespace(positives=[range(n)])) == one_in
