"""Missing memory, disk space and open files are reported before they are needed."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from gpu_dcgen import resources
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import InputError, OutputError
from gpu_dcgen.resources import (
    FILES_PER_THREAD,
    OTHER_OPEN_FILES,
    add_disk_margin,
    available_memory,
    estimate_dataset_bytes,
    require_disk_space,
    require_memory,
    require_open_files,
)

CONFIG = DatasetConfig()


def cgroups(folder, limit, used, cached):
    (folder / "most").write_text(f"{limit}\n")
    (folder / "used").write_text(f"{used}\n")
    (folder / "stat").write_text(f"anon 5\ninactive_file {cached}\nfile 9\n")
    group = resources.CONTROL_GROUPS[0]
    return (
        group._replace(limit=folder / "most", usage=folder / "used", statistics=folder / "stat"),
    )


def test_a_container_leaves_what_its_limit_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    monkeypatch.setattr(resources, "CONTROL_GROUPS", cgroups(tmp_path, 5000, 3000, 500))
    assert available_memory() == 2500
    monkeypatch.setattr(resources, "CONTROL_GROUPS", cgroups(tmp_path, "max", 3000, 500))
    assert available_memory() == 9000
    monkeypatch.setattr(resources, "CONTROL_GROUPS", cgroups(tmp_path, 5000, 9000, 0))
    assert available_memory() == 0
    (tmp_path / "most").unlink()
    assert available_memory() == 9000


def test_this_machine_has_some_memory():
    assert 0 < available_memory() <= resources.psutil.virtual_memory().total


def test_memory_that_is_not_there_is_asked_for_in_words(monkeypatch):
    monkeypatch.setattr(resources, "available_memory", lambda: 10**12)
    require_memory(10**12, "a table")
    with pytest.raises(InputError) as caught:
        require_memory(10**12 + 1, "transactions.parquet: 7 rows of 2 columns")
    assert "transactions.parquet: 7 rows of 2 columns need 1,000.00 GB" in str(caught.value)
    assert "Use a bigger machine" in str(caught.value)


def test_the_estimate_is_above_what_builds_took():
    """Complete Journey and Online Retail: positives, neighbors, users, bytes of their files."""
    for positives, neighbors, users, seen in (
        (576_268, 4_625_530, 2_442, 134.4e6),
        (187_036, 1_179_686, 4_101, 29.5e6),
    ):
        assert seen < estimate_dataset_bytes(positives, CONFIG, neighbors, users) < 3 * seen


def test_lists_of_candidates_need_room_where_they_are_written():
    with_lists = DatasetConfig(output={"hard_candidates": True})
    plain = estimate_dataset_bytes(1000, CONFIG, n_candidates=500)
    assert plain == estimate_dataset_bytes(1000, CONFIG)
    assert estimate_dataset_bytes(1000, with_lists, n_candidates=500) == plain + 500 * 11
    # At most a list for each positive.
    assert estimate_dataset_bytes(1000, with_lists) == plain + 1000 * 64 * 11


def test_a_disk_that_is_too_small_is_said_before_it_is_full(tmp_path, monkeypatch):
    needed = add_disk_margin(10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed))
    require_disk_space(tmp_path / "new" / "out", 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        OutputError,
        match=rf"^{tmp_path}: 1.25 GB are free on its disk, and the dataset needs about 1.00 GB "
        r"\(1.25 GB with a margin of 25%\)\.\nFree up disk space, or choose another OUTPUT",
    ):
        require_disk_space(tmp_path / "new" / "out", 10**9)


def test_too_few_open_files_are_said_with_the_command_that_allows_more(monkeypatch):
    needed = OTHER_OPEN_FILES + FILES_PER_THREAD * 8
    monkeypatch.setattr(resources.resource, "getrlimit", lambda which: (needed, needed))
    require_open_files(8)
    monkeypatch.setattr(resources.resource, "getrlimit", lambda which: (needed - 1, needed))
    with pytest.raises(
        OutputError,
        match=rf"{needed - 1} files .* needs about {needed}\.\n"
        rf"Raise the limit \(ulimit -n {needed}\)",
    ):
        require_open_files(8)
    unlimited = (resources.resource.RLIM_INFINITY,) * 2
    monkeypatch.setattr(resources.resource, "getrlimit", lambda which: unlimited)
    require_open_files(8)
