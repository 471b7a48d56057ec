"""Whole builds of little random shops, cell by cell against the oracle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator.builder import BuildResult, build
from gpu_dcgen.errors import InputError
from gpu_dcgen.negative_sampler import calibration
from tests.support import reference
from tests.support.reference import draw
from tests.support.seeds import spread_seeds
from tests.support.shops import bare_events, random_shop, shops, tiny_config, write_shop
from tests.support.variants import VARIANTS

FEW = 20  # hypothesis examples: a build and its oracle take half a second
ROUNDING = 2e-7  # sample weights multiply sums that the two writings add in different orders


def read(path: Path) -> dict[str, list]:
    """Columns of a file or folder of parts as Python values, timestamps as nanoseconds."""
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    columns: dict[str, list] = {}
    for file in files:
        for name, column in zip(
            (table := pq.read_table(file)).column_names, table.columns, strict=True
        ):
            columns.setdefault(name, []).extend(_values(column))
    return columns


def _values(column: Any) -> list:
    text = str(column.type)
    if text.startswith("timestamp"):
        return column.cast("int64").to_pylist()
    if "timestamp" in text:
        return [[stamp.value for stamp in row] for row in column.to_pylist()]
    return column.to_pylist()


def differences(got: dict[str, list], rows: list[dict[str, Any]]) -> list[str]:
    """Where columns differ from the oracle's rows, one line a column."""
    mismatches = []
    expected_names = list(rows[0]) if rows else list(got)
    if set(got) != set(expected_names):
        return [f"columns {sorted(set(got) ^ set(expected_names))} are in one only"]
    for name, values in got.items():
        if name == "generation_timestamp":
            continue
        expected = [row[name] for row in rows]
        if len(values) != len(expected):
            mismatches.append(f"{name}: {len(values)} rows, expected {len(expected)}")
            continue
        wrong = [
            r
            for r, (a, b) in enumerate(zip(values, expected, strict=True))
            if not _same(a, b, name)
        ]
        if wrong:
            r = wrong[0]
            mismatches.append(
                f"{name}: {len(wrong)} rows differ, first {r}: {values[r]!r}, expected "
                f"{expected[r]!r}"
            )
    return mismatches


def _same(a: Any, b: Any, name: str) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y, name) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return a is None and b is None
    if name == "sample_weight":
        return math.isclose(a, b, rel_tol=ROUNDING)
    return float(a) == float(b) if isinstance(a, float) else a == b


def compare(tables: reference.Tables, config: DatasetConfig, folder: Path) -> BuildResult | None:
    """Build with lists of candidates, and fail where any file or count differs; None where both
    find that no dataset can be made.
    """
    output = config.output.model_copy(update={"hard_candidates": True})
    config = config.model_copy(update={"output": output})
    write_shop(tables, folder / "input")
    try:
        result = build(folder / "input", folder / "output", config, backend="cpu", overwrite=True)
    except InputError:
        with pytest.raises(reference.Unbuildable):
            reference.build(tables, config)
        return None
    world = reference.build(tables, config)
    mismatches = []
    for split, name in enumerate(reference.SPLITS):
        mismatches += [
            f"{name} {line}"
            for line in differences(
                read(result.output / f"{name}_dataset.parquet"), world.rows[split]
            )
        ]
    similarity = read(result.output / "item_similarity_matrix.parquet")
    mismatches += [f"similarity {line}" for line in differences(similarity, world.similarity_rows)]
    candidates = read(result.output / "hard_candidates.parquet")
    mismatches += [
        f"candidates {line}" for line in differences(candidates, world.hard_candidate_rows)
    ]
    if config.split.is_disjoint:
        sequences = read(result.output / "user_sequences.parquet")
        mismatches += [
            f"sequences {line}" for line in differences(sequences, world.user_sequence_rows)
        ]
    bought = [row["item_id"] for row in world.rows[0] if row["label"]]
    drawn = [row["item_id"] for row in world.rows[0] if row["negative_source"] == "hard"]
    expected = [
        {
            "mining_weight": world.mining_weights[item],
            "n_train_positives": bought.count(world.items[item]),
            "n_train_hard_negatives": drawn.count(world.items[item]),
        }
        for item in sorted(range(len(world.items)), key=lambda j: world.item_index[world.items[j]])
    ]
    vocabulary = read(result.output / "item_vocabulary.parquet")
    columns = {name: vocabulary[name] for name in expected[0]}
    mismatches += [f"vocabulary {line}" for line in differences(columns, expected)]
    assert not mismatches, "\n".join(mismatches)
    ledger = result.manifest.ledger.to_dict()
    emitted = ledger.pop("emitted")
    ours = {**{f"emitted_{name}": n for name, n in emitted.items()}, **ledger}
    assert {name: ours.get(name, 0) for name in {**world.ledger, **world.dropped}} == {
        **world.ledger,
        **world.dropped,
    }
    assert (result.manifest.negatives.relaxed or 0) == world.relaxed
    assert result.manifest.negatives.shortfall == world.shortfall
    return result


@pytest.mark.parametrize(("variant", "seed"), spread_seeds(VARIANTS, range(3)))
def test_build_equals_the_oracle(variant, seed, tmp_path):
    tables = random_shop(seed, n_users=16, n_items=24, n_rows=260, views=seed != 1)
    result = compare(tables, tiny_config(**VARIANTS[variant]), tmp_path)
    assert result is not None, "the shop gave no dataset: choose another seed"


@pytest.mark.parametrize(
    ("views", "variant"),
    [(False, "as the contract"), (True, "as the contract"), (True, "resampled")],
)
def test_a_build_of_bare_events_equals_the_oracle(views, variant, tmp_path):
    """Users, items and times alone: no tables of customers and articles, and no prices."""
    tables = bare_events(random_shop(0, n_users=16, n_items=24, n_rows=260, views=views))
    result = compare(tables, tiny_config(**VARIANTS[variant]), tmp_path)
    assert result is not None and result.manifest.negatives.relaxed is None
    assert result.manifest.inputs.rows.keys() == tables.keys()


@pytest.mark.parametrize("limit", [30, 9])
def test_weights_from_a_sample_of_the_positives_equal_the_oracle(limit, tmp_path, monkeypatch):
    """More positives than calibration looks at: one in 2^b of them is taken, by hash."""
    monkeypatch.setattr(calibration, "_MAX_POSITIVES", limit)
    monkeypatch.setattr(draw, "MOST_SAMPLED", limit)
    result = compare(random_shop(2, n_users=16, n_items=24, n_rows=400), tiny_config(), tmp_path)
    assert result is not None
    assert result.manifest.counts["train"].groups > limit


@pytest.mark.parametrize("selection", ["sampled", "greedy"])
@pytest.mark.parametrize("group", ["Shoes", None])
def test_a_single_product_group_sets_no_limit(selection, group, tmp_path):
    """And those that the cap would have let in are the same: the bytes do not change."""
    tables = random_shop(0, n_users=16, n_items=24, n_rows=260)
    for article in tables["articles"]:
        article["product_group_name"] = group
    settings = {"selection": selection, "hard_negatives_per_positive": 4}
    capped = compare(tables, tiny_config(negative_sampling=settings), tmp_path / "capped")
    free = compare(
        tables,
        tiny_config(negative_sampling={**settings, "diversity_threshold": 1}),
        tmp_path / "free",
    )
    assert capped is not None and free is not None
    assert capped.manifest.negatives.relaxed is None
    assert capped.manifest.content_digest == free.manifest.content_digest


@settings(max_examples=FEW, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables=shops(), variant=st.sampled_from(sorted(VARIANTS)))
def test_build_equals_the_oracle_on_any_shop(tables, variant, tmp_path_factory):
    """And where the build refuses, the oracle finds no dataset either; such shops do not count as
    examples.
    """
    assume(
        compare(tables, tiny_config(**VARIANTS[variant]), tmp_path_factory.mktemp("shop"))
        is not None
    )


def test_a_single_wrong_cell_is_a_difference(tmp_path):
    tables, config = random_shop(0), tiny_config()
    world = reference.build(tables, config)
    write_shop(tables, tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", config, backend="cpu").output
    got = read(output / "train_dataset.parquet")
    assert differences(got, world.rows[0]) == []
    for name in (
        "item_id",
        "user_interaction_sequence",
        "item_price_normalized",
        "sample_weight",
        "negative_detail",
        "negative_log_q",
    ):
        row = next(r for r, value in enumerate(got[name]) if value)
        spoiled = {**got, name: list(got[name])}
        spoiled[name][row] = {str: "x", list: [0], float: 9.0}[type(got[name][row])]
        assert len(differences(spoiled, world.rows[0])) == 1


def test_rows_that_the_oracle_has_none_of_are_a_difference():
    got = {"item_id": ["a", "b"], "similarity": [0.5, 0.5]}
    assert differences(got, []) == ["item_id: 2 rows, expected 0", "similarity: 2 rows, expected 0"]
    assert differences({"item_id": [], "similarity": []}, []) == []


def test_a_build_of_what_the_oracle_refuses_is_a_failure(tmp_path, monkeypatch):
    """And a refusal of what the oracle builds."""
    monkeypatch.setattr(
        reference, "build", lambda *_: refuse(reference.Unbuildable("a window is empty"))
    )
    with pytest.raises(reference.Unbuildable):
        compare(random_shop(0), tiny_config(), tmp_path)
    monkeypatch.setattr(reference, "build", lambda *_: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        compare(random_shop(0, n_rows=4), tiny_config(), tmp_path)


def refuse(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("shape", ["n_tuple", "triplet"])
def test_other_shapes_say_the_same_in_fewer_rows(shape, tmp_path):
    tables, config = (
        random_shop(1, n_users=16, n_items=24, n_rows=260),
        tiny_config(output={"shape": shape}),
    )
    world = reference.build(tables, config)
    write_shop(tables, tmp_path / "input")
    output = build(tmp_path / "input", tmp_path / "output", config, backend="cpu").output
    width = 1 + config.negatives_per_positive
    for split, name in enumerate(reference.SPLITS):
        groups = [
            world.rows[split][first : first + width]
            for first in range(0, len(world.rows[split]), width)
        ]
        expected = [
            (_tuple_row if shape == "n_tuple" else _triplet_row)(group, world.item_index)
            for group in groups
        ]
        assert differences(read(output / f"{name}_dataset.parquet"), expected) == []


OF_A_NEGATIVE = (
    "label",
    "negative_source",
    "negative_detail",
    "negative_log_q",
    "similarity_score",
)


def _of_the_positive(group: list[dict]) -> dict[str, Any]:
    return {name: value for name, value in group[0].items() if name not in OF_A_NEGATIVE}


def _tuple_row(group: list[dict], item_index: dict[str, int]) -> dict[str, Any]:
    negatives = group[1:]
    return {
        **_of_the_positive(group),
        "negative_item_id": [row["item_id"] for row in negatives],
        "negative_item_index": [item_index[row["item_id"]] for row in negatives],
        "negative_popularity_score": [row["item_popularity_score"] for row in negatives],
        "negative_price_normalized": [row["item_price_normalized"] for row in negatives],
        "negative_source": [row["negative_source"] for row in negatives],
        "negative_detail": [row["negative_detail"] for row in negatives],
        "negative_log_q": [row["negative_log_q"] for row in negatives],
        "negative_similarity_score": [row["similarity_score"] for row in negatives],
    }


def _triplet_row(group: list[dict], item_index: dict[str, int]) -> dict[str, Any]:
    hardest = group[1]
    of_item = {
        f"negative_{name}": value for name, value in hardest.items() if name.startswith("item_")
    }
    of_draw = {
        name: hardest[name] for name in ("negative_source", "negative_detail", "similarity_score")
    }
    return {**_of_the_positive(group), **of_item, **of_draw}
