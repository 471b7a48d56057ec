"""What a machine lacks is reported before it is needed: memory, disk, names, open files."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from gpu_dcgen import resources
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import BackendError, InputError, OutputError
from gpu_dcgen.resources import available_memory, estimated_bytes, require_memory, require_room

CONFIG = DatasetConfig()


@pytest.fixture
def roomy(monkeypatch):
    """A machine that has room for anything, until a test takes some of it away."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**13))
    monkeypatch.setattr(resources, "available_memory", lambda: 10**12)
    monkeypatch.setattr(resources.resource, "getrlimit", lambda which: (1024, 4096))
    return monkeypatch


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


def test_memory_that_is_not_there_is_asked_for_in_words(roomy):
    require_memory(10**12, "a table")
    with pytest.raises(InputError) as caught:
        require_memory(10**12 + 1, "transactions.parquet: 7 rows of 2 columns")
    assert "transactions.parquet: 7 rows of 2 columns need 1,000.00 GB" in str(caught.value)
    assert "Take a bigger machine" in str(caught.value)


def test_room_for_everything_is_an_estimate(roomy, tmp_path):
    assert (
        require_room(tmp_path / "out", 1000, CONFIG)
        == estimated_bytes(1000, CONFIG)
        > 1000 * 16 * 10
    )


def test_the_estimate_is_above_what_builds_took():
    """Complete Journey and Online Retail: positives, neighbors, users, and the bytes of their files."""
    for positives, neighbors, users, seen in (
        (576_268, 4_625_530, 2_442, 134.4e6),
        (187_036, 1_179_686, 4_101, 29.5e6),
    ):
        assert seen < estimated_bytes(positives, CONFIG, neighbors, users) < 3 * seen


def test_a_disk_that_is_too_small_is_said_before_it_is_full(roomy, tmp_path):
    needed = int(estimated_bytes(1000, CONFIG) * resources.DISK_MARGIN)
    roomy.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed))
    require_room(tmp_path / "new" / "out", 1000, CONFIG)
    roomy.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        OutputError,
        match=rf"^{tmp_path}: .* are free on its disk, .*\nMake room, or choose another OUTPUT",
    ):
        require_room(tmp_path / "new" / "out", 1000, CONFIG)


def test_blocks_that_do_not_fit_are_said_before_they_are_made(roomy, tmp_path):
    roomy.setattr(resources, "available_memory", lambda: 2 * 10**9)
    require_room(tmp_path / "out", 10, CONFIG, block_bytes=2 * 10**9)
    with pytest.raises(
        BackendError,
        match=r"need 2.50 GB of memory, and 2.00 GB are available.\nLower resources.batch_size",
    ):
        require_room(tmp_path / "out", 10, CONFIG, block_bytes=25 * 10**8)


def test_names_leave_room_for_the_staging_folders(roomy, tmp_path):
    most = 255 - len("..staging")
    (tmp_path / resources.STAGING.format("ü" + "x" * (most - 2))).mkdir()  # the file system agrees
    require_room(tmp_path / ("ü" + "x" * (most - 2)), 10, CONFIG)
    with pytest.raises(
        OutputError,
        match=f"has {most + 1} bytes; at most {most} can be used.\nChoose a shorter name",
    ):
        require_room(tmp_path / ("ü" + "x" * (most - 1)), 10, CONFIG)


def test_paths_that_are_too_long_are_refused(roomy, tmp_path):
    deep = tmp_path.joinpath(*["x" * 200] * 20)
    with pytest.raises(
        OutputError, match="fewer than 4,096 can be.\nChoose an OUTPUT nearer to the root"
    ):
        require_room(deep / "out", 10, CONFIG)


def test_too_few_open_files_are_said_with_the_command_that_allows_more(roomy, tmp_path):
    needed = resources.OPEN_FILES + resources.PART_FILES * CONFIG.n_threads
    roomy.setattr(resources.resource, "getrlimit", lambda which: (needed, needed))
    require_room(tmp_path / "out", 10, CONFIG)
    roomy.setattr(resources.resource, "getrlimit", lambda which: (needed - 1, needed))
    with pytest.raises(
        OutputError,
        match=rf"{needed - 1} files .* needs about {needed}.\nRaise the limit \(ulimit -n {needed}\)",
    ):
        require_room(tmp_path / "out", 10, CONFIG)
    roomy.setattr(
        resources.resource, "getrlimit", lambda which: (resources.resource.RLIM_INFINITY,) * 2
    )
    require_room(tmp_path / "out", 10, CONFIG)
