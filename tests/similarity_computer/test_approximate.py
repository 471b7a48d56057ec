"""The approximate engine: exact values in the exact order, only some neighbors missing."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cpu_fallback import NumpyBackend
from cpu_fallback import nearest as cpu_nearest
from gpu_dcgen.backend.gpu import nearest as gpu_nearest
from gpu_dcgen.cli import app
from gpu_dcgen.errors import BackendError
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.similarity_computer import approximate as approximate_neighbors
from gpu_dcgen.similarity_computer.matrix import build_matrix
from tests.support.shops import loose_config, random_shop, sales, tiny_config
from tests.support.stage_shops import Stages, list_expected_neighbors, list_neighbors, small_shop
from tests.support.strict_backend import StrictBackend

HAS_FAISS = importlib.util.find_spec("faiss") is not None
pytestmark = pytest.mark.usefixtures("search_all_items")
FEW = {
    "engine": "approximate",
    "min_common_users": 1,
    "top_k": 5,
    "candidates": 1.0,
    "dimension": 3,
}


def larger_shop() -> dict:
    return random_shop(5, n_users=120, n_items=150, n_rows=5000, dates=(30, 40))


@pytest.mark.parametrize("seed", range(4))
def test_all_neighbors_are_found_where_all_items_are_candidates(seed, backend):
    config = tiny_config(
        similarity={"engine": "approximate", "candidates": 100, "min_common_users": 1 + seed % 2}
    )
    stages = Stages(backend, small_shop(seed), config)
    assert list_neighbors(stages) == list_expected_neighbors(stages)
    assert (stages.neighbors.info["recall"], stages.neighbors.info["engine"]) == (
        1.0,
        "approximate",
    )


@pytest.mark.parametrize("seed", range(4))
def test_neighbors_that_are_found_are_the_oracles_in_its_order(seed, backend):
    config = tiny_config(similarity=FEW)
    stages = Stages(backend, small_shop(seed), config)
    everyone = tiny_config(similarity={**FEW, "top_k": 1000})
    oracle = list_expected_neighbors(stages, everyone)
    rows = list_neighbors(stages)
    assert rows == [
        [n for n in all_ if n in set(row)] for row, all_ in zip(rows, oracle, strict=True)
    ]
    # Some are missing: the search was approximate.
    assert 0 < sum(map(len, rows)) < sum(len(row[:5]) for row in oracle)
    assert max(map(len, rows)) <= 5


def test_the_manifest_counts_what_is_missing(backend):
    """All items are sampled here, so the recall is that of the whole matrix."""
    stages = Stages(backend, small_shop(1), tiny_config(similarity=FEW))
    exact = Stages(backend, small_shop(1), tiny_config(similarity={**FEW, "engine": "exact"}))
    pairs = zip(list_neighbors(stages), list_neighbors(exact), strict=True)
    n_found = sum(
        len({item for item, *_ in ours} & {item for item, *_ in theirs}) for ours, theirs in pairs
    )
    info = stages.neighbors.info
    assert (
        info["recall"]
        == info["recall_at_100"]
        == round(n_found / exact.neighbors.info["pairs"], 4)
        < 1
    )
    assert info["candidates"] == 5 and info["dimension"] == 3 and info["nearest"] == "brute"


@pytest.mark.parametrize(("dimension", "floor"), [(16, 0.72), (64, 0.85), (150, 0.99)])
def test_recall_of_a_larger_shop(dimension, floor, backend):
    """80 candidates of 143 items: drawn blindly, they would hold 0.56 of the neighbors.

    Nearly random purchases are hard.
    """
    settings = {
        "engine": "approximate",
        "top_k": 20,
        "min_common_users": 2,
        "dimension": dimension,
        "candidates": 4,
    }
    info = Stages(backend, larger_shop(), tiny_config(similarity=settings)).neighbors.info
    assert info["recall"] > floor
    assert info["recall_sampled_items"] == 143


def test_blocks_threads_and_machines_do_not_show():
    def neighbors(backend, **resources):
        return list_neighbors(
            Stages(
                backend,
                larger_shop(),
                tiny_config(similarity={**FEW, "top_k": 20}, resources=resources),
            )
        )

    usual = neighbors(NumpyBackend(1))
    assert sum(map(len, usual)) > 500
    assert neighbors(NumpyBackend(3), chunk_size=64) == usual
    assert neighbors(NumpyBackend(1), chunk_size=7) == usual
    # This backend adds in another order, and turns vectors around.
    assert neighbors(StrictBackend(seed=3), chunk_size=50) == usual


def test_blocks_of_users_do_not_show(monkeypatch):
    def neighbors():
        return list_neighbors(
            Stages(NumpyBackend(), larger_shop(), tiny_config(similarity={**FEW, "top_k": 20}))
        )

    usual = neighbors()
    monkeypatch.setattr(approximate_neighbors, "_USERS_PER_BLOCK", 7)
    assert neighbors() == usual


def test_another_seed_draws_other_vectors():
    def neighbors(seed):
        return list_neighbors(
            Stages(
                NumpyBackend(),
                larger_shop(),
                tiny_config(seed=seed, similarity={**FEW, "top_k": 20}),
            )
        )

    assert neighbors(1) == neighbors(1) != neighbors(2)


def test_vectors_multiply_exactly_in_float32(backend):
    """Vectors are whole numbers, none longer than 2^12; their products approximate cosines.

    With as many dimensions as items they are the cosines themselves.
    """
    stages = Stages(
        backend, small_shop(2), tiny_config(similarity={"engine": "approximate", "dimension": 24})
    )
    matrix = build_matrix(stages.log, stages.windows.cut1, stages.config, backend)
    norms = backend.to_host(matrix.norms).astype(float)
    vectors = backend.to_host(
        approximate_neighbors._compute_vectors(matrix, matrix.norms > 0, stages.config, backend)
    )
    assert vectors.dtype == np.float32 and (vectors == np.rint(vectors)).all()
    assert (vectors.astype(np.int64) ** 2).sum(axis=1).max() < 1 << 24
    dense = backend.to_host(matrix.csr(backend).toarray()) / np.sqrt(np.maximum(norms, 1))
    cosines = vectors.astype(float) @ vectors.astype(float).T / approximate_neighbors.VECTOR_NORM**2
    assert abs(cosines - dense.T @ dense).max() < 2e-3


def test_a_shop_without_neighbors_has_none(backend):
    """Nobody has bought two things before the cut, and no item has two buyers."""
    lonely = sales(
        ("u", "a", 0),
        ("v", "b", 0),
        ("w", "c", 1),
        ("u", "b", 9),
        ("v", "a", 9),
        ("w", "a", 9),
        ("x", "z", 10),
    )
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}
    for min_common in (1, 2):
        settings = {"engine": "approximate", "min_common_users": min_common}
        stages = Stages(backend, lonely, loose_config(similarity=settings, negative_sampling=few))
        assert list_neighbors(stages) == [[], [], [], []]
        assert stages.neighbors.info["recall"] is None


@pytest.mark.parametrize("size", [5, 1000])
def test_items_that_are_counted_have_all_their_neighbors(size, backend):
    config = tiny_config(similarity=FEW, resources={"chunk_size": size})
    stages = Stages(backend, small_shop(1), config)
    matrix = build_matrix(stages.log, stages.windows.cut1, config, backend)
    every = range(len(stages.host(matrix.norms)))

    def neighbors(chosen) -> list[list[tuple]]:
        mask = backend.from_host(np.array([i in chosen for i in every]))
        parts, info = approximate_neighbors.find_neighbors(
            matrix, config, backend, ProgressTracker(), use_search=mask
        )
        assert info["searched_items"] == len(
            set(chosen) & set(np.nonzero(stages.host(matrix.norms))[0])
        )
        lengths, *columns = map(stages.host, parts)
        rows, stops = list(zip(*columns, strict=True)), np.cumsum(lengths)
        return [rows[stop - n : stop] for n, stop in zip(lengths, stops, strict=True)]

    all_counted, all_searched = neighbors(()), neighbors(every)
    assert all_counted == list_neighbors(
        Stages(backend, small_shop(1), tiny_config(similarity={**FEW, "engine": "exact"}))
    )
    assert all_counted != all_searched
    odd = range(1, len(every), 2)
    assert neighbors(odd) == [all_searched[i] if i in odd else all_counted[i] for i in every]


def test_a_search_that_is_not_there_is_refused_with_a_remedy(backend, monkeypatch):
    monkeypatch.setattr(cpu_nearest.importlib.util, "find_spec", lambda name: None)
    for name, remedy in (
        ("faiss", "Install faiss-cpu, or set it to brute or auto"),
        ("cuml", "Set it to brute, faiss or auto"),
    ):
        stages = Stages(backend, small_shop(1), tiny_config(similarity={**FEW, "nearest": name}))
        with pytest.raises(BackendError, match=rf"similarity.nearest {name}: .*\n.*{remedy}"):
            _ = stages.neighbors
    assert (
        Stages(backend, small_shop(1), tiny_config(similarity=FEW)).neighbors.info["nearest"]
        == "brute"
    )


class Reluctant(NumpyBackend):
    """Finds all items, last first, also the item itself, and returns -1 for what is missing."""

    def build_nearest_search(self, vectors, k, engine):
        n = len(vectors)
        ids = np.concatenate(
            [np.full((n, 2), -1), np.tile(np.arange(n)[::-1], (n, 1))], axis=1
        ).astype(np.int32)
        return "reluctant", lambda rows: ids[rows]


def test_what_a_search_adds_or_leaves_out_does_not_show():
    config = tiny_config(similarity={"engine": "approximate", "min_common_users": 1})
    stages = Stages(Reluctant(2), small_shop(3), config)
    assert list_neighbors(stages) == list_expected_neighbors(stages)
    assert stages.neighbors.info["nearest"] == "reluctant"


def whole_vectors(n: int = 300, dimension: int = 8) -> np.ndarray:
    """Small whole numbers, so that many products tie."""
    return np.random.default_rng(4).integers(-4, 5, (n, dimension)).astype(np.float32)


def largest(vectors: np.ndarray, k: int) -> list[list[int]]:
    scores = vectors.astype(int) @ vectors.astype(int).T
    ids = range(len(vectors))
    return [sorted(sorted(set(ids) - {row}, key=lambda j: (-scores[row, j], j))[:k]) for row in ids]


@pytest.mark.parametrize("k", [1, 7, 60, 299])
def test_brute_force_finds_the_largest_products(k, monkeypatch):
    vectors = whole_vectors()
    nearest = largest(vectors, k)
    monkeypatch.setattr(cpu_nearest, "_MAX_SCORES_BYTES", 4 * 300 * 13)
    monkeypatch.setattr(gpu_nearest, "_MAX_KEYS_BYTES", 8 * 300 * 13)
    used, find = NumpyBackend(2).build_nearest_search(vectors, k, "auto")
    assert used == "brute"
    for rows in (np.arange(300), np.array([7, 250, 8]), np.arange(0)):
        expected = [nearest[row] for row in rows]
        for ids in (find(rows), gpu_nearest.search_brute(vectors, k, rows, np)):
            assert ids.dtype == np.int32 and ids.shape == (len(rows), k)
            assert [sorted(row) for row in ids.tolist()] == expected


@pytest.mark.skipif(not HAS_FAISS, reason="FAISS is not installed (pip install faiss-cpu)")
def test_faiss_finds_most_of_the_largest_products(monkeypatch):
    vectors = np.random.default_rng(4).normal(size=(3000, 8)).astype(np.float32)
    ids = NumpyBackend(2).build_nearest_search(vectors, 20, "faiss")[1](np.arange(3000))
    assert ids.shape == (3000, 20) and ids.dtype == np.int32
    true = NumpyBackend(2).build_nearest_search(vectors * 100, 20, "brute")[1](np.arange(3000))
    shared = sum(len(set(a) & set(b)) for a, b in zip(ids.tolist(), true.tolist(), strict=True))
    assert shared > 0.6 * true.size
    monkeypatch.setattr(cpu_nearest, "MAX_BRUTE_VECTORS", 100)
    assert NumpyBackend(1).build_nearest_search(vectors, 20, "auto")[0] == "faiss"


@pytest.mark.skipif(not HAS_FAISS, reason="FAISS is not installed (pip install faiss-cpu)")
def test_neighbors_through_faiss_have_their_true_values():
    settings = {
        "engine": "approximate",
        "top_k": 20,
        "min_common_users": 2,
        "dimension": 32,
        "nearest": "faiss",
    }
    rows = list_neighbors(Stages(NumpyBackend(), larger_shop(), tiny_config(similarity=settings)))
    exact = Stages(
        NumpyBackend(),
        larger_shop(),
        tiny_config(similarity={**settings, "engine": "exact", "top_k": 1000}),
    )
    assert all(
        set(ours) <= set(theirs) for ours, theirs in zip(rows, list_neighbors(exact), strict=True)
    )
    assert sum(map(len, rows)) > 500


@pytest.mark.slow
def test_a_real_shop_is_built_with_true_similarities(online_retail, tmp_path):
    """The command line with a YAML file; the manifest says what was approximate."""
    settings = tmp_path / "approximate.yaml"
    settings.write_text("similarity: {engine: approximate, top_k: 100, candidates: 4}\n")
    folders = {engine: tmp_path / engine for engine in ("approximate", "exact")}
    more = {"approximate": ["--config", str(settings)], "exact": ["--set", "similarity.top_k=1000"]}
    for engine, folder in folders.items():
        result = CliRunner().invoke(
            app, ["build", str(online_retail), str(folder), "--quiet", *more[engine]]
        )
        assert result.exit_code == 0, result.output

    def pairs(engine):
        columns = (
            pq.read_table(folders[engine] / "item_similarity_matrix.parquet")
            .drop_columns("rank")
            .columns
        )
        return {
            (item, other): value
            for item, other, *value in zip(*(column.to_pylist() for column in columns), strict=True)
        }

    exact, approximate = pairs("exact"), pairs("approximate")
    assert {pair: value for pair, value in approximate.items() if exact[pair] != value} == {}
    assert max(Counter(item for item, _ in approximate).values()) == 100
    info = json.loads((folders["approximate"] / "manifest.json").read_text())["similarity"]
    assert (info["engine"], info["reason"], info["nearest"], info["dimension"]) == (
        "approximate",
        "configured",
        "brute",
        64,
    )
    assert info["candidates"] == 400 and 0.85 < info["recall"] < 1
