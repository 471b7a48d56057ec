"""Memory that is full: blocks are done in halves, the dataset stays the same, and a build that
cannot go on says so.
"""

import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.halving import MAX_HALVINGS, split_on_out_of_memory
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import BackendError
from tests.support.shops import random_shop, tiny_config, write_shop


class Full(NumpyBackend):
    """A machine whose memory holds `room` entries of a block."""

    def __init__(self, room: int, n_threads: int = 1) -> None:
        super().__init__(n_threads)
        self.room = room

    def single_threaded(self):
        return self

    def find_similar_items(self, first, last, matrix, **limits):
        self.hold(last - first)
        return super().find_similar_items(first, last, matrix, **limits)

    def for_each(self, kernel, n, *arrays, lanes=1):
        if kernel.python.__name__ == "draw_random":
            self.hold(n)
        super().for_each(kernel, n, *arrays, lanes=lanes)

    def hold(self, n: int) -> None:
        if n > self.room:
            raise MemoryError(f"no room for {n}")


def test_what_fits_is_done_at_once():
    machine = Full(8)
    assert split_on_out_of_memory(range, 3, 11, "things", machine) == [range(3, 11)]
    assert machine.memory_usage()["n_out_of_memory"] == 0


def test_what_does_not_fit_is_done_in_halves_in_order():
    machine = Full(3)

    def make(first: int, last: int) -> list[int]:
        machine.hold(last - first)
        return list(range(first, last))

    parts = split_on_out_of_memory(make, 0, 11, "things", machine)
    assert sum(parts, []) == list(range(11))
    assert max(map(len, parts)) == 3
    assert machine.memory_usage()["n_out_of_memory"] == len(parts) - 1


@pytest.mark.parametrize(("n", "smallest"), [(3, 1), (1000 << MAX_HALVINGS, 1000)])
def test_what_never_fits_is_an_error_that_names_it(n, smallest):
    machine = Full(0)
    with pytest.raises(
        BackendError, match=rf"^things 0\.\.{smallest - 1}: the cpu backend ran out of memory"
    ) as error:
        split_on_out_of_memory(
            lambda first, last: machine.hold(last - first), 0, n, "things", machine
        )
    assert isinstance(error.value.__cause__, MemoryError)


def test_full_memory_in_any_stage_is_an_error_that_names_it(tmp_path, monkeypatch):
    def full(*arguments):
        raise MemoryError("std::bad_alloc: planted")

    tables = write_shop(random_shop(1), tmp_path / "shop")
    monkeypatch.setattr(NumpyBackend, "stable_argsort", full)
    with pytest.raises(
        BackendError, match=r"^interactions: the cpu backend ran out of memory \(std::bad_alloc"
    ) as error:
        build(tables, tmp_path / "out", tiny_config(), backend="cpu")
    assert "nothing was published" in str(error.value) and not (tmp_path / "out").exists()


def test_a_build_counts_from_its_own_beginning(tmp_path):
    tables, machine = write_shop(random_shop(1), tmp_path / "shop"), Full(1000)
    machine.release_memory()
    manifest = build(tables, tmp_path / "out", tiny_config(), backend=machine).manifest
    assert manifest.performance.halved_blocks == 0


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        split_on_out_of_memory(lambda first, last: 1 / 0, 0, 8, "things", Full(0))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_data_set_built_in_halves_is_the_same(tmp_path, n_threads):
    tables, config = (
        write_shop(random_shop(1), tmp_path / "shop"),
        tiny_config(resources={"batch_size": 40, "chunk_size": 20}),
    )
    roomy, full = Full(1000, n_threads), Full(3, n_threads)
    whole = build(tables, tmp_path / "whole", config, backend=roomy).manifest.to_dict()
    halved = build(tables, tmp_path / "halved", config, backend=full).manifest.to_dict()
    assert halved["content_digest"] == whole["content_digest"]
    assert halved["counts"] == whole["counts"]
    assert whole["performance"]["halved_blocks"] == 0
    assert halved["performance"]["halved_blocks"] == full.memory_usage()["n_out_of_memory"] > 10
