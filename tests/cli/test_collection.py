"""Garbage collection leaves the objects of modules alone."""

import gc
import subprocess
import sys

import pytest

from gpu_dcgen.cli.collection import keep_objects


@pytest.fixture
def collections():
    """The generations that are collected, as they are."""
    generations = []
    gc.unfreeze()  # what another test has frozen
    gc.collect()

    def note(phase, info):
        if phase == "start":
            generations.append(info["generation"])

    gc.callbacks.append(note)
    yield generations
    gc.callbacks.remove(note)
    gc.unfreeze()


def make_objects():
    return [[] for _ in range(100_000)]


def test_objects_that_stay_are_not_looked_through(collections):
    with keep_objects():
        objects = make_objects()
    assert not collections
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(objects)


def test_what_comes_after_the_first_time_can_be_collected(collections):
    with keep_objects():
        pass
    frozen = gc.get_freeze_count()
    with keep_objects():
        objects = make_objects()
    assert gc.get_freeze_count() <= frozen and objects


def test_objects_are_collected_otherwise(collections):
    make_objects()
    assert collections


def test_collection_resumes_after_an_error():
    with pytest.raises(ValueError), keep_objects():
        raise ValueError
    assert gc.isenabled()
    gc.unfreeze()


def test_nothing_is_looked_through_when_the_command_ends():
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))  # called last\n"
        "import gpu_dcgen.cli"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
