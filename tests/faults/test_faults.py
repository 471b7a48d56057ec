"""Whatever befalls a build: the older dataset stays whole, nothing half is published, the next
build is as if unhurt.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import Case, Workshop, contents, every_case, kind_of, outcome, whole
from tests.support.shops import random_shop, write_shop

NOBODY = 65_534
KILLS = (
    "write lock#1",
    "lock#1",
    "mkdir checkpoints#1",
    "rename checkpoints/key.new#1",
    "stage load_shop#1",
    "bytes checkpoints/interactions.bin#20",
    "rename checkpoints/interactions.new#1",
    "stage compute_neighbors#1",
    "open data/train_dataset.parquet/part-00000.parquet#1",
    "after append data/val_dataset.parquet/part-00001.parquet#2",
    "finish data/train_dataset.parquet/part-00003.parquet#1",
    "after finish data/test_dataset.parquet/part-00000.parquet#1",
    "write data/quality_report.json#1",
    "write data/manifest.json#1",
    "fsync data#2",
    "write publishing#1",
    "exchange#1",
    "after exchange#1",
    "fsync ..#1",
    "remove publishing#1",
    "remove lock#1",
    "rmdir .#1",
)
OTHERS = (
    ("SIGTERM", "append data/train_dataset.parquet/part-00001.parquet#1"),
    ("SIGTERM", "stage compute_features#1"),
    ("SIGTERM", "after exchange#1"),
    ("SIGINT", "after open data/val_dataset.parquet/part-00000.parquet#1"),
    ("SIGINT", "after exchange#1"),
    ("Ctrl-C twice", "append data/test_dataset.parquet/part-00001.parquet#1"),
    ("EIO", "bytes checkpoints/features.bin#3"),
    ("EIO", "rename checkpoints/train-00001.new#1"),
    ("EIO", "append data/train_dataset.parquet/part-00002.parquet#2"),
    ("EIO", "fsync data/train_dataset.parquet#1"),
    ("ENOSPC", "write checkpoints/splits.bin#1"),
    ("ENOSPC", "after finish data/val_dataset.parquet/part-00001.parquet#1"),
    ("ENOSPC", "write publishing#1"),
    ("ENOSPC", "exchange#1"),
    ("EIO", "remove publishing#1"),
    ("EIO", "rmdir .#1"),
    ("no memory", "stage compute_neighbors#1"),
    ("no memory", "append data/train_dataset.parquet/part-00000.parquet#1"),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    yield workshop
    workshop.close()


def older(shop: Workshop, output: Path) -> dict[str, str]:
    """A dataset of an earlier build at the output."""
    shutil.copytree(shop.folder / "older" / "output", output)
    return whole(output)


def test_the_chosen_points_lie_along_the_whole_river(shop, tmp_path):
    shutil.copytree(shop.folder / "older" / "output", tmp_path / "output")
    there = shop.build(tmp_path / "output", "--overwrite")["points"]
    chosen = {*KILLS, *(at for _, at in OTHERS)}
    assert chosen <= set(there)
    assert len({kind_of(point) for point in chosen}) >= 25


def spare_half(cases: tuple) -> list:
    """Make half of the cases slow tests: each is a build in a child, and one after it.

    The first and the last of four remain: the last is the one that is not resumed.
    """
    return [
        pytest.param(
            *([case] if isinstance(case, str) else case),
            marks=[pytest.mark.slow] * ((k + 1) // 2 % 2),
        )
        for k, case in enumerate(cases)
    ]


@pytest.mark.parametrize("at", spare_half(KILLS))
def test_a_build_that_is_killed_loses_nothing(at, shop, tmp_path):
    k = KILLS.index(at)
    case = Case("SIGKILL", at, resume=k % 4 != 3)
    ended = outcome(shop, case, tmp_path / "set")
    assert ended == ("published" if k >= KILLS.index("after exchange#1") else "kept the older one")


@pytest.mark.parametrize(("fault", "at"), spare_half(OTHERS), ids=lambda value: str(value))
def test_a_build_that_fails_or_is_interrupted_loses_nothing(fault, at, shop, tmp_path):
    ended = outcome(shop, Case(fault, at), tmp_path / "set")
    if "checkpoints" in at or at.startswith(("remove", "rmdir")):
        assert ended == "finished", "neither a copy for safety nor the rubbish is worth a build"
    else:
        assert ended == ("published" if at.startswith("after exchange") else "kept the older one")


def test_without_an_older_data_set_there_is_none_after_a_fault(shop, tmp_path):
    point = "after append data/train_dataset.parquet/part-00000.parquet#1"
    assert (
        outcome(shop, Case("SIGKILL", point, overwrite=False), tmp_path / "set")
        == "published nothing"
    )


@pytest.mark.slow
def test_every_fault_at_every_kind_of_point(shop, tmp_path):
    broken = []
    for k, case in enumerate(every_case(shop, tmp_path / "points")):
        try:
            outcome(shop, case, tmp_path / str(k))
        except AssertionError as error:
            broken.append(str(error))
        shutil.rmtree(tmp_path / str(k))
    assert broken == []


def test_of_many_that_resume_at_once_one_does(shop, tmp_path):
    output = tmp_path / "output"
    died = shop.build(output, expect=False, fault="SIGKILL", at="stage write_tables#1")
    assert died["code"] == -9
    answers = shop.race(output, "--resume", n=4)
    assert sorted(answer["code"] for answer in answers) == [0, 2, 2, 2]
    for answer in answers:
        message = " ".join(answer["stderr"].split())
        assert (
            answer["code"] == 0
            or "another build of it is running" in message
            or "already exists" in message
        )
    assert contents(output) == shop.files
    assert os.listdir(tmp_path) == ["output"]


def test_a_clock_that_jumps_changes_no_sample(shop, tmp_path):
    """What time it is shows in `generated_at` alone, and that is when the first of the builds
    began.
    """
    died = shop.build(
        tmp_path / "output", expect=False, clock="jumps", fault="SIGKILL", at="stage write_tables#1"
    )
    assert died["code"] == -9
    shop.build(tmp_path / "output", "--resume", clock="jumps")
    straight = shop.folder / "straight" / "output"
    assert digests(tmp_path / "output") == digests(straight)


def digests(output: Path) -> dict[str, dict[str, str]]:
    return json.loads((output / "manifest.json").read_text())["digests"]


def test_inputs_that_change_after_they_were_read_change_nothing(shop, tmp_path):
    """A build that died is then not gone on from: it would be of other inputs than those that are
    there.
    """
    inputs, output = tmp_path / "input", tmp_path / "sets" / "output"
    shutil.copytree(shop.inputs, inputs)
    died = shop.build(
        output, expect=False, inputs=str(inputs), fault="SIGKILL", at="stage write_tables#1"
    )
    assert died["code"] == -9
    for table in inputs.iterdir():
        os.utime(table, ns=(0, 0))  # the time of a file says nothing of its content
    resumed = shop.build(output, "--resume", inputs=str(inputs))
    assert not any("stage load_shop" in point for point in resumed["points"])
    shutil.rmtree(output)
    shop.build(output, expect=False, inputs=str(inputs), fault="SIGKILL", at="stage write_tables#1")
    write_shop(random_shop(2, n_users=16, n_items=24, n_rows=260), inputs)
    resumed = shop.build(output, "--resume", inputs=str(inputs))
    assert "--resume: starting over, inputs changed since" in " ".join(resumed["stderr"].split())
    straight = shop.build(tmp_path / "straight" / "output", inputs=str(inputs))
    assert straight["code"] == 0
    assert contents(output) == contents(tmp_path / "straight" / "output")


@pytest.mark.parametrize("megabytes", [16, 32])
def test_a_limit_on_memory_loses_nothing(megabytes, shop, tmp_path):
    assert outcome(shop, Case(None), tmp_path / "set", memory=megabytes << 20) in (
        "finished",
        "kept the older one",
    )


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_nobody_else_may_write_to_what_was_made(mask, shop, tmp_path):
    shop.build(tmp_path / "output", umask=mask)
    died = shop.build(
        tmp_path / "died" / "output", expect=False, umask=mask, fault="SIGKILL", at="exchange#1"
    )
    assert died["code"] in (0, -9)
    for path in (
        tmp_path / "output",
        *(tmp_path / "output").rglob("*"),
        *(tmp_path / "died").rglob("*"),
    ):
        assert not stat.S_IMODE(path.stat().st_mode) & mask, path


needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="to be another user than the one of the files, one has to be root"
)


@needs_root
@pytest.mark.parametrize("what", ["parent", "older dataset"])
def test_what_may_not_be_written_to_is_said_at_once(what, shop, tmp_path):
    output = tmp_path / "sets" / "output"
    before = older(shop, output)
    for folder in (shop.folder, *tmp_path.parents, tmp_path):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(0o755)
    for folder in (tmp_path / "sets", output):
        folder.chmod(0o777)
    (output if what == "older dataset" else tmp_path / "sets").chmod(0o555)
    met = shop.build(output, "--overwrite", expect=False, uid=NOBODY)
    assert met["code"] == 2, met["stderr"]
    assert "stage load_shop#1" not in met["points"], "not after hours"
    assert str(output if what == "older dataset" else tmp_path / "sets") in " ".join(
        met["stderr"].split()
    )
    assert whole(output) == before
    assert os.listdir(tmp_path / "sets") == ["output"]


def may_mount() -> bool:
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not may_mount(), reason="no file system may be mounted here")
def test_a_disk_that_is_full_loses_nothing_and_can_be_gone_on_from(tmp_path):
    """A real one, of fewer and fewer bytes; with more room, the build goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    shop = Workshop(
        tmp_path,
        prefix=(
            "unshare",
            "-rm",
            "sh",
            "-c",
            f'mount -t tmpfs -o size=64m disk {disk}; exec "$@"',
            "sh",
        ),
    )
    seen = shop.seen(disk)
    ends = []
    for kilobytes in (40, 200, 320, 440, 560, 680, 800, 920, 1040, 1160):
        shop.mount(disk, f"{kilobytes}k")
        met = shop.build(disk / "output", expect=False, room=64 << 20)
        ends.append(met["code"])
        message = " ".join(met["stderr"].split())
        if met["code"] != 0:
            assert met["code"] == 2 and (
                "No space left" in message or "the disk is full" in message
            ), message
            assert not (seen / "output").exists()
        shop.mount(disk, "64m")
        shop.build(disk / "output", *(["--resume"] if met["code"] else ["--overwrite"]))
        assert contents(seen / "output") == shop.files
        assert os.listdir(seen) == ["output"]
        shutil.rmtree(seen / "output")
    shop.close()
    assert ends[0] == 2 and ends[-1] == 0 and ends == sorted(ends, reverse=True)


@pytest.mark.skipif(
    shutil.which("cc") is None,
    reason="no C compiler here: writes of the kernel cannot be made to fail",
)
def test_writes_that_are_short_or_fail_in_the_kernel(tmp_path):
    """Where Arrow writes in C++, and Python sees nothing of it."""
    preload, source = tmp_path / "writes.so", Path(__file__).parent / "writes.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", preload, source, "-ldl"], check=True)
    shop = Workshop(tmp_path, preload=preload)
    assert outcome(shop, Case(None), tmp_path / "short", writes=["short", 0]) == "finished"
    for kind in ("EIO", "ENOSPC"):
        ends = {
            outcome(shop, Case(kind), tmp_path / f"{kind}{at}", writes=[kind, at])
            for at in (1, 9, 40, 100, 200, 300, 400)
        }
        assert "kept the older one" in ends
    shop.close()
