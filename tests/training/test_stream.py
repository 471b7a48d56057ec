"""`ContrastiveStream`: an epoch is every positive once, in one order, whoever reads.

Also when it is interrupted and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from torch.utils.data import DataLoader

from gpu_dcgen.errors import ConfigError
from gpu_dcgen.training.row_groups import RowGroupReader
from gpu_dcgen.training.stream import ContrastiveStream
from tests.support.training_datasets import ALL_SHAPES, get_dataset, make_long_dataset

ROOT = Path(__file__).parents[2]


def numbers(batches):
    return [batch["metadata"]["group_number"].tolist() for batch in batches]


def stream(**settings):
    return ContrastiveStream(
        get_dataset(), **{"batch_size": 5, "window": 3, "layout": "groups", "seed": 1, **settings}
    )


def everything(**settings):
    return list(range(stream(**settings).files.n_groups))


@pytest.mark.parametrize("shape", ALL_SHAPES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shuffle": False},
        {"distinct_items": True},
        {"num_workers": 0},
        {"batch_size": 1000},
        {"batches": "snapshot"},
        {"batches": "snapshot", "distinct_items": True},
        {"batches": "snapshot", "shuffle": False},
    ],
)
def test_an_epoch_has_every_positive_once(shape, settings):
    groups = sum(
        numbers(
            ContrastiveStream(
                get_dataset(shape), **{"batch_size": 5, "window": 3, "layout": "groups", **settings}
            )
        ),
        [],
    )
    assert sorted(groups) == everything()
    assert (groups == everything()) == ("shuffle" in settings)


def test_the_length_is_the_number_of_batches():
    for settings in ({}, {"drop_last": True}, {"n_ranks": 3, "rank": 2}, {"batch_size": 7}):
        for batches in ("shuffled", "snapshot"):
            source = stream(batches=batches, **settings)
            lengths = {len(source), len(numbers(source)), len(source), len(numbers(source))}
            assert len(lengths) == 1, (settings, batches)


def test_the_order_does_not_depend_on_the_number_of_workers():
    wanted = numbers(stream(num_workers=0))
    assert numbers(stream(num_workers=1)) == wanted
    assert numbers(stream(num_workers=2)) == wanted
    assert numbers(stream(num_workers=5)) == wanted


def test_each_epoch_has_an_order_of_its_own_and_the_seed_decides_it():
    fresh, twin = stream(), stream()
    first, second = numbers(fresh), numbers(fresh)
    assert first != second
    assert [first, second] == [numbers(twin), numbers(twin)]
    assert numbers(stream(seed=2)) != first
    twin.set_epoch(1)
    assert numbers(twin) == second


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_deal_out_the_order_of_one(n_ranks):
    ranks = [numbers(stream(rank=rank, n_ranks=n_ranks)) for rank in range(n_ranks)]
    assert len({len(batches) for batches in ranks}) == 1
    dealt = [group for batches in zip(*ranks, strict=True) for batch in batches for group in batch]
    assert dealt == sum(numbers(stream()), [])


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_each_row_group_is_read_once_an_epoch_whoever_reads(monkeypatch, num_workers):
    decoded = []
    plain = RowGroupReader.read
    monkeypatch.setattr(
        RowGroupReader,
        "read",
        lambda self, group: decoded.append(group.first) or plain(self, group),
    )
    list(stream(num_workers=num_workers))
    assert sorted(decoded) == [group.first for group in stream().files.row_groups]


def test_reading_stops_when_the_iteration_is_given_up(monkeypatch):
    decoded = []
    plain = RowGroupReader.read
    monkeypatch.setattr(
        RowGroupReader,
        "read",
        lambda self, group: decoded.append(group.first) or plain(self, group),
    )
    batches = iter(stream(num_workers=2, window=1, batch_size=1))
    next(batches)
    batches.close()
    assert len(decoded) <= 2  # the current window and the next one


@pytest.mark.parametrize(
    ("before", "after", "settings"),
    [
        *((before, after, {}) for before in range(3) for after in range(3)),
        (2, 0, {"distinct_items": True}),
        (2, 1, {"batches": "snapshot"}),
        (0, 2, {"batches": "snapshot", "distinct_items": True}),
        (0, 1, {"n_random": 2}),
    ],
)
def test_an_epoch_is_resumed_where_it_stood_with_another_number_of_workers(before, after, settings):
    whole = list(stream(num_workers=0, **settings))
    for stop in (0, 4, len(whole)):
        first = stream(num_workers=before, **settings)
        batches = iter(first)
        done = [next(batches) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        batches.close()
        second = stream(num_workers=after, **settings)
        second.load_state_dict(state)
        batches_read = [*done, *second]
        assert numbers(batches_read) == numbers(whole)
        for resumed_batch, batch in zip(batches_read, whole, strict=True):
            assert torch.equal(
                resumed_batch["item_features"]["item_index"], batch["item_features"]["item_index"]
            )


@pytest.mark.parametrize(
    "disturb",
    [
        lambda source: next(iter(source)),
        lambda source: source.set_epoch(3),
        lambda source: resumed(source),
    ],
)
def test_an_iteration_that_another_one_has_upset_does_not_go_on(disturb):
    source = stream()
    batches = iter(source)
    next(batches)
    disturb(source)
    with pytest.raises(
        ConfigError, match="another iteration, set_epoch or load_state_dict has begun"
    ):
        next(batches)


def resumed(source):
    source.load_state_dict(source.state_dict())


def test_an_iteration_that_was_left_is_gone_on_with():
    source = stream()
    batches = iter(source)
    done = [next(batches) for _ in range(2)]
    assert numbers(done) + numbers(source) == numbers(stream())


def test_after_the_last_batch_the_state_is_of_the_next_epoch():
    first = stream()
    list(first)
    second = stream()
    second.load_state_dict(first.state_dict())
    assert second.state_dict()["epoch"] == 1
    assert numbers(second) == numbers(first)


def test_other_ranks_and_another_batch_size_go_on_from_the_same_place():
    two = [iter(source := stream(rank=rank, n_ranks=2)) for rank in range(2)]
    done = [next(batches)["metadata"]["group_number"].tolist() for _ in range(2) for batches in two]
    state = source.state_dict()
    rest = stream(batch_size=3)
    rest.load_state_dict(state)
    assert sum([*done, *numbers(rest)], []) == sum(numbers(stream()), [])


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"seed": 9}, "seed"),
        ({"shuffle": False}, "shuffle"),
        ({"window": 2}, "window"),
        ({"n_hard": 1}, "negatives"),
        ({"distinct_items": True}, "distinct_items"),
        ({"batches": "snapshot"}, "batches"),
        ({"split": "val"}, "split"),
    ],
)
def test_a_state_of_another_order_is_refused(other, name):
    with pytest.raises(ConfigError, match=f"state_dict: {name} is"):
        stream(**other).load_state_dict(stream().state_dict())


def test_a_state_of_another_data_set_or_version_is_refused():
    state = stream().state_dict()
    for name in ("content_digest", "version"):
        with pytest.raises(ConfigError, match=f"state_dict: {name} is 'x'"):
            stream().load_state_dict({**state, name: "x"})


KILLED = """
import json, os, signal, sys
from gpu_dcgen.training.stream import ContrastiveStream
options = {"batch_size": 5, "window": 3, "layout": "groups", "seed": 1}
stream = ContrastiveStream(sys.argv[1], num_workers=int(sys.argv[2]), **options)
with open(sys.argv[3], "w") as log:
    for number, batch in enumerate(stream):
        groups = batch["metadata"]["group_number"].tolist()
        log.write(json.dumps({"groups": groups, "state": stream.state_dict()}) + "\\n")
        log.flush()
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_killed_process_leaves_a_state_from_which_the_epoch_is_completed(tmp_path, num_workers):
    log = tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(get_dataset()), str(num_workers), str(log)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr
    written = [json.loads(line) for line in log.read_text().splitlines()]
    for other in (0, 1, 2):
        rest = stream(num_workers=other)
        rest.load_state_dict(written[-1]["state"])
        assert [line["groups"] for line in written] + numbers(rest) == numbers(stream())


def test_a_batch_has_an_item_as_positive_once_as_far_as_the_window_allows():
    together = {}
    for distinct in (False, True):
        items = [
            batch["item_features"]["item_index"][:, 0]
            for batch in stream(distinct_items=distinct, window=99)
        ]
        together[distinct] = sum(len(item) - len(item.unique()) for item in items)
    assert together[True] == 0 < together[False]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_data_loader_workers_that_would_each_read_everything_are_refused(num_workers):
    """Also a single one: it would repeat its epoch, as its parent does not know its position."""
    with pytest.raises(
        ConfigError, match="each process would read every row group, and the stream would not know"
    ):
        list(DataLoader(stream(), batch_size=None, num_workers=num_workers))
    assert numbers(DataLoader(stream(), batch_size=None)) == numbers(stream())


def test_batches_can_be_pinned_or_put_on_a_device():
    if not torch.cuda.is_available():
        batches_read = list(stream(device="cpu"))
        assert numbers(batches_read) == numbers(stream())
        pytest.skip("no CUDA device: only device='cpu' was looked at")
    assert all(batch["label"].is_cuda for batch in stream(device="cuda"))
    assert all(batch["label"].is_pinned() for batch in stream(pin_memory=True))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"window": 0}, "window 0"),
        ({"num_workers": -1}, "num_workers -1"),
        ({"rank": 2, "n_ranks": 2}, "rank 2 of n_ranks 2"),
        ({"n_ranks": 10**6}, "fewer than one for each rank"),
        ({"device": "cpu", "pin_memory": True}, "device and pin_memory"),
        ({"n_hard": 9}, "n_hard 9: this dataset stores 2"),
        ({"layout": "x"}, "layout 'x'"),
        ({"batches": "x"}, "batches 'x'"),
        ({"distinct_items": True, "columns": ["season"]}, "needs the column item_id"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(wrong, text):
    with pytest.raises(ConfigError, match=text):
        stream(**wrong)


LIMITED = """
import resource, sys, torch
from gpu_dcgen.training.stream import ContrastiveStream
torch.set_num_threads(1)
options = {"batch_size": 512, "window": 2, "num_workers": 2, "seed": 1}
stream = ContrastiveStream(sys.argv[1], layout="samples", **options)
batches = iter(stream)
next(batches)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]), -1))
parts = (part for batch in batches for part in batch.values() if isinstance(part, dict))
print(sum(tensor.numel() * tensor.element_size() for part in parts for tensor in part.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="counts memory as Linux does")
def test_a_data_set_larger_than_the_memory_streams_through(tmp_path):
    limit = 96 * 2**20
    dataset = make_long_dataset(tmp_path, 100)
    command = [sys.executable, "-c", LIMITED, str(dataset), str(limit)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 2 * limit
