"""Hard negatives drawn in each epoch: by the law of the build, never an item that is owned."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")

from cpu_fallback import NumpyBackend
from gpu_dcgen import build
from gpu_dcgen.context import BuildContext
from gpu_dcgen.dataset_generator.pipeline import run_stages
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.kernels.hard import (
    PROBABILITY_ONE,
    Probabilities,
    find_probabilities,
    mark_free_candidates,
)
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.monitoring.timing import BuildTimer
from gpu_dcgen.negative_sampler import find_lists, gather_positives
from gpu_dcgen.negative_sampler.sampling import prepare_drawing
from gpu_dcgen.training.files import open_split
from gpu_dcgen.training.hard_candidates import HardNegativeDrawer
from gpu_dcgen.training.in_batch import InBatch
from gpu_dcgen.training.records import concatenate, pack
from gpu_dcgen.training.row_groups import RowGroupReader
from gpu_dcgen.training.stream import ContrastiveStream
from gpu_dcgen.training.systematic import DrawLimits, plan_draws
from gpu_dcgen.training.vocabularies import load_vocabularies
from tests.support.reference.draw import divide, inclusion
from tests.support.shops import random_shop, tiny_config, write_shop
from tests.support.training_datasets import (
    change_json,
    copy_dataset,
    get_dataset,
    read_item_index,
    read_user_index,
)

N_HARD = 3
# Sequences hold all purchases, so that the files name all that a user owns.
CONFIG = tiny_config(
    output={"hard_candidates": True, "groups_per_part": 120, "groups_per_row_group": 40},
    negative_sampling={
        "hard_negatives_per_positive": N_HARD,
        "candidates": 12,
        "collaborative_buyers": 9,
        "collaborative_items": 4,
        "collaborative_days": 20,
        "category_draws": 12,
        "diversity_threshold": 0.34,
    },
    sequence_processing={"max_sequence_length": 80},
    filtering={"max_user_interactions": 80},
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A folder with tables in `in` and a dataset of them in `out`."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(
        random_shop(5, n_users=24, n_items=50, n_rows=900, dates=(30, 60), minutes=True),
        folder / "in",
    )
    build(folder / "in", folder / "out", CONFIG, backend="cpu")
    return folder


def open_drawer(dataset: Path, split: str = "train"):
    """A drawer, and all groups of the split as they are stored."""
    files, vocabularies = open_split(dataset, split), load_vocabularies(dataset)
    reader = RowGroupReader(files, vocabularies)
    pieces = [pack(reader.read(row_group)) for row_group in files.row_groups]
    drawer = HardNegativeDrawer(files, vocabularies, reader.columns)
    return drawer, concatenate(pieces).to_groups()


def list_hard(groups, n_hard: int = N_HARD) -> tuple[np.ndarray, np.ndarray]:
    """Items and log-probabilities of the hard negatives."""
    hard = slice(1, 1 + n_hard)
    item, log_q = groups.item_features["item_index"], groups.metadata["negative_log_q"]
    return item[:, hard].numpy(), log_q[:, hard].numpy()


def find_kernel_probabilities(folder: Path) -> list[dict[int, float]]:
    """By train positive: the probability of each candidate, by item_index, as the kernel has it."""
    backend = NumpyBackend(1)
    context = BuildContext(CONFIG, backend, BuildTimer(backend, ProgressTracker()))
    results = run_stages(folder / "in", context).results
    train = results.plan.positives[0]
    positives = gather_positives(train.row, train.copy, train.window_end, results)
    rows = find_lists(positives, results, backend)
    drawing = prepare_drawing(rows, results, CONFIG, backend)
    n, width = len(train), CONFIG.negative_sampling.candidates
    is_free = np.zeros((n, width), dtype=np.int8)
    cells = np.zeros((n, width), np.int32), np.zeros((n, width), np.int32)
    marking = drawing.rows, drawing.tables, drawing.scratch, is_free
    backend.for_each(mark_free_candidates, n, *marking, lanes=drawing.n_lanes)
    finding = *drawing, Probabilities(is_free, *cells)
    backend.for_each(find_probabilities, n, *finding, lanes=drawing.n_lanes)
    return [
        {
            int(results.item_codes[item]): value / PROBABILITY_ONE
            for item, value in zip(items, values, strict=True)
            if value
        }
        for items, values in zip(*(cell.tolist() for cell in cells), strict=True)
    ]


def test_probabilities_are_those_of_the_kernel(shop):
    """Whatever is drawn has the probability with which a build draws it, to the kernel's 2^-16."""
    drawer, groups = open_drawer(shop / "out")
    expected = find_kernel_probabilities(shop)
    stored = list_hard(groups)[0]
    n_drawn = 0
    for epoch in range(20):
        item, log_q = list_hard(drawer.replace(groups, seed=0, epoch=epoch))
        for group, probabilities in enumerate(expected):
            if len(probabilities) < N_HARD:
                assert item[group].tolist() == stored[group].tolist()
                continue
            n_drawn += 1
            for j, x in zip(item[group].tolist(), log_q[group].tolist(), strict=True):
                assert math.exp(x) == pytest.approx(probabilities[j], abs=1.1 / PROBABILITY_ONE)
    assert n_drawn > 20 * 0.8 * len(groups)
    split = [p for p in expected if 1 in p.values() and len(p) > N_HARD]
    assert split, "no list has a candidate that is certain"


def test_frequencies_are_the_probabilities(shop):
    """Over many epochs; by group and candidate, and over all of them (chi-square)."""
    drawer, groups = open_drawer(shop / "out")
    n_epochs, drawn, log_q_of = 400, Counter(), {}
    for epoch in range(n_epochs):
        item, log_q = list_hard(drawer.replace(groups, seed=1, epoch=epoch))
        for group, (items, logs) in enumerate(zip(item.tolist(), log_q.tolist(), strict=True)):
            drawn.update((group, j) for j in items)
            for j, x in zip(items, logs, strict=True):
                assert log_q_of.setdefault((group, j), x) == x
    stored = list_hard(groups)[0]
    is_drawn = [drawn[(group, int(items[0]))] < n_epochs for group, items in enumerate(stored)]
    chi_square, n = 0.0, 0
    for (group, j), count in drawn.items():
        p = math.exp(log_q_of[group, j])
        if is_drawn[group] and p < 1:
            deviation = n_epochs * p * (1 - p)
            z = (count - n_epochs * p) / math.sqrt(deviation)
            assert abs(z) < 5 or deviation < 5, (group, j, count, p)
            chi_square, n = chi_square + z * z, n + 1
    assert n > 500
    assert abs(chi_square - n) < 5 * math.sqrt(2 * n)
    # Nothing that may be drawn was left out: probabilities add up to the number of negatives.
    for group in np.flatnonzero(is_drawn).tolist():
        total = sum(math.exp(x) for (g, _), x in log_q_of.items() if g == group)
        assert total == pytest.approx(N_HARD, abs=0.05)


@pytest.mark.parametrize("seed", range(30))
def test_the_law_is_that_of_the_reference(seed):
    """On lists of random weights, with and without candidates that are certain."""
    random = np.random.default_rng(seed)
    width, limits = 9, DrawLimits(4, int(random.integers(0, 4)))
    weight = random.integers(1, 50 if seed % 2 else 5000, (40, width)) * (
        random.random((40, width)) < 0.8
    )
    is_own = random.random((40, width)) < 0.5
    enough = (weight > 0).sum(axis=1) >= limits.n
    weight, is_own = weight[enough], is_own[enough] & (weight[enough] > 0)
    plan = plan_draws(weight, is_own, limits)
    log_q = plan.compute_log_q()
    for row in range(len(weight)):
        weights = {j: int(w) for j, w in enumerate(weight[row]) if w}
        own = {j for j in weights if is_own[row, j]}
        parts, _ = divide(weights, limits.n, own, limits.n_own)
        expected = {j: a / b for part in parts for j, (a, b) in inclusion(part).items()}
        actual = {j: math.exp(log_q[row, j]) for j in weights}
        assert actual == pytest.approx(expected)
        assert np.isneginf(log_q[row][weight[row] == 0]).all()
    keys = random.integers(0, 2**64, (len(weight),), dtype=np.uint64)
    assert (plan.draw(keys).sum(axis=1) == limits.n).all()
    assert not plan.draw(keys)[weight == 0].any()


def list_owned(dataset: Path, split: str) -> dict[int, set[int]]:
    """By user_index: the items that the split's rows and user_sequences name."""
    users, items = read_user_index(dataset), read_item_index(dataset)
    owned: dict[int, set[int]] = {user: set() for user in users.values()}
    columns = ["user_id", "item_id", "label", "user_interaction_sequence"]
    for row in pq.read_table(dataset / f"{split}_dataset.parquet", columns=columns).to_pylist():
        user = users[row["user_id"]]
        owned[user].update(row["user_interaction_sequence"])
        if row["label"]:
            owned[user].add(items[row["item_id"]])
    table = pq.read_table(dataset / "user_sequences.parquet").to_pylist()
    for row in table:
        owned[users[row["user_id"]]].update(row["item_indices"])
    return owned


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_drawn_negative_is_not_owned_and_has_the_features_of_its_list(split, shop):
    dataset = shop / "out"
    items, owned = read_item_index(dataset), list_owned(dataset, split)
    of_list = {
        (items[row["item_id"]], row["snapshot"].value, items[row["candidate_id"]]): row
        for row in pq.read_table(dataset / "hard_candidates.parquet").to_pylist()
    }
    drawer, groups = open_drawer(dataset, split)
    groups = drawer.replace(groups, seed=3, epoch=1)
    grid, categories = drawer._grid, drawer._vocabularies.categories
    names = {name: {code: text for text, code in categories[name].items()} for name in categories}
    for group in range(len(groups)):
        user = int(groups.user_features["user_index"][group])
        own = int(groups.item_features["item_index"][group, 0])
        k = int(grid.find(groups.metadata["timestamp"][group]))
        scores = []
        for slot in range(1, 1 + N_HARD):
            cells = {
                name: part[name][group, slot].item()
                for part in (groups.item_features, groups.metadata)
                for name in part
                if part[name].dim() == 2
            }
            j = cells["item_index"]
            assert j not in owned[user] and j != own
            if names["negative_detail"][cells["negative_detail"]] == "fallback":
                continue
            row = of_list[own, grid.first_ns + k * grid.step_ns, j]
            scores.append(row["score"])
            assert names["negative_detail"][cells["negative_detail"]] == row["source"]
            assert cells["similarity_score"] == (row["similarity"] or 0)
            assert cells["item_popularity_score"] == row["popularity_score"]
            assert cells["item_price_normalized"] == (row["price_normalized"] or 0)
            category = names["item_price_category"].get(cells["item_price_category"])
            assert category == row["price_category"]
            for name, codes in drawer._vocabularies.item_categories.items():
                assert cells[name] == codes[j]
        assert scores == sorted(scores, reverse=True)


def read_epochs(dataset: Path, n_epochs: int = 2, **settings) -> list[dict[int, tuple]]:
    """By epoch and group: items and log-probabilities of all candidates."""
    stream = ContrastiveStream(
        dataset,
        layout="groups",
        hard_negatives="drawn",
        **{"batch_size": 7, "num_workers": 0, **settings},
    )
    epochs = []
    for _ in range(n_epochs):
        epochs.append({})
        for batch in stream:
            epochs[-1] |= read_groups(batch)
    return epochs


def read_groups(batch) -> dict[int, tuple]:
    columns = (
        batch["metadata"]["group_number"],
        batch["item_features"]["item_index"],
        batch["metadata"]["negative_log_q"],
    )
    return {
        number: (tuple(items), tuple(log_q))
        for number, items, log_q in zip(*(c.tolist() for c in columns), strict=True)
    }


def test_epochs_differ_and_workers_ranks_and_batch_sizes_do_not(shop):
    dataset = shop / "out"
    first, second = epochs = read_epochs(dataset)
    assert first != second
    assert epochs != read_epochs(dataset, seed=8)
    assert epochs == read_epochs(dataset, num_workers=3, batch_size=5, window=2)
    ranks = [read_epochs(dataset, rank=rank, n_ranks=2) for rank in range(2)]
    assert [one | other for one, other in zip(*ranks, strict=True)] == epochs
    some = read_epochs(dataset, n_hard=1, n_random=2)
    for chosen, whole in zip(some, epochs, strict=True):
        for number, (items, _) in chosen.items():
            assert set(items[1:2]) <= set(whole[number][0][1 : 1 + N_HARD])


def test_an_interrupted_epoch_goes_on_with_the_same_negatives(shop):
    settings = {"layout": "groups", "batch_size": 7, "hard_negatives": "drawn"}
    whole = read_epochs(shop / "out", 1)[0]
    stream = ContrastiveStream(shop / "out", **settings)
    batches = iter(stream)
    groups = read_groups(next(batches)) | read_groups(next(batches))
    again = ContrastiveStream(shop / "out", **settings)
    again.load_state_dict(stream.state_dict())
    for batch in again:
        groups |= read_groups(batch)
    assert groups == whole
    stored = ContrastiveStream(shop / "out", batch_size=7)
    with pytest.raises(ConfigError, match="hard_negatives is 'drawn', this stream has 'stored'"):
        stored.load_state_dict(stream.state_dict())


def test_in_batch_weighs_drawn_negatives_by_their_own_probability(shop):
    collate = InBatch(shop / "out")
    stream = ContrastiveStream(
        shop / "out", batch_size=20, hard_negatives="drawn", n_random=0, collate=collate
    )
    for batch in stream:
        log_q = batch["metadata"]["negative_log_q"]
        assert torch.equal(batch["log_q"][:, 1:], log_q[:, 1:]) and (log_q[:, 1:] <= 0).all()


@pytest.mark.parametrize("shape", ["labeled_pair", "n_tuple"])
def test_a_list_that_is_too_short_leaves_what_is_stored(shape):
    dataset = get_dataset(shape)
    lists = Counter(
        (row["item_id"], row["snapshot"])
        for row in pq.read_table(dataset / "hard_candidates.parquet").to_pylist()
    )
    assert min(lists.values()) < 5
    drawer, groups = open_drawer(dataset)
    changed = drawer.replace(groups, seed=0, epoch=0)
    names = drawer._vocabularies.categories["negative_detail"]
    is_fallback = groups.metadata["negative_detail"][:, 1:3] == names["fallback"]
    is_kept = is_fallback.any(dim=1)
    assert is_kept.any() and not is_kept.all()
    for part in ("item_features", "metadata"):
        for name, tensor in getattr(groups, part).items():
            after = getattr(changed, part)[name]
            assert after.dtype == tensor.dtype
            if tensor.dim() == 2:
                assert torch.equal(after[:, 0], tensor[:, 0])
                assert torch.equal(after[:, 3:], tensor[:, 3:])
                assert torch.equal(after[is_kept], tensor[is_kept])
            else:
                assert torch.equal(after, tensor)
    drawn = changed.item_features["item_index"][:, 1:3, None]
    assert not (drawn == groups.user_features["user_interaction_sequence"][:, None]).any()
    assert not torch.equal(changed.item_features["item_index"], groups.item_features["item_index"])


def test_what_cannot_be_drawn_from_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ConfigError, match="'fresh': expected 'stored' or 'drawn'"):
        ContrastiveStream(get_dataset(), hard_negatives="fresh")
    with pytest.raises(ConfigError, match="--set output.shape=n_tuple"):
        ContrastiveStream(get_dataset("triplet"), hard_negatives="drawn")
    columns = ["user_id", "item_id", "timestamp"]
    with pytest.raises(ConfigError, match="lack user_interaction_sequence;"):
        ContrastiveStream(get_dataset(), columns=columns, hard_negatives="drawn")
    assert ContrastiveStream(get_dataset(), columns=columns, hard_negatives="drawn", n_hard=0)
    dataset = copy_dataset(tmp_path)
    (dataset / "hard_candidates.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="hard_candidates.parquet: 4 bytes, manifest.json says"):
        ContrastiveStream(dataset, hard_negatives="drawn")
    change_json(
        dataset / "manifest.json", lambda m: m["files"].update({"hard_candidates.parquet": 4})
    )
    with pytest.raises(InputError, match="hard_candidates.parquet: cannot be read"):
        ContrastiveStream(dataset, hard_negatives="drawn")
    change_json(dataset / "manifest.json", lambda m: m["files"].pop("hard_candidates.parquet"))
    with pytest.raises(ConfigError, match="--set output.hard_candidates=true"):
        ContrastiveStream(dataset, hard_negatives="drawn")
