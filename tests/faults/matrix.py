"""What a build promises of faults, held against builds that meet them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpu_dcgen.storage.checksums import sha256_of
from gpu_dcgen.storage.integrity import validate
from tests.support.shops import random_shop, tiny_config, write_shop

TELLING = (
    "manifest.json",
    "quality_report.json",
    "build_log.jsonl",
    "junit.xml",
    "append.json",
)  # files that tell of times
FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "Ctrl-C twice", "EIO", "ENOSPC", "no memory")
ENDS = {"SIGKILL": (-9,), "SIGTERM": (143,), "SIGINT": (130,), "Ctrl-C twice": (130,)}


class Workshop:
    """A shop, a driver, and what a build that meets nothing makes of it."""

    def __init__(
        self, folder: Path, *, prefix: tuple[str, ...] = (), preload: Path | None = None
    ) -> None:
        self.folder = folder
        self.inputs = write_shop(
            random_shop(1, n_users=16, n_items=24, n_rows=260), folder / "input"
        )
        for name, config in {"config": tiny_config(), "other": tiny_config(seed=7)}.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        module = (*prefix, sys.executable, "-W", "ignore", "-m", "tests.faults.driver")
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            **({"LD_PRELOAD": str(preload)} if preload else {}),
        }
        self._driver = subprocess.Popen(
            [*module, self.inputs, folder / "warm", folder / "other.yaml"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        )
        if self._driver.stdout.readline() != "warm\n":
            raise RuntimeError("the driver did not start")
        self.points = self.build(folder / "straight" / "output")["points"]
        self.files = contents(folder / "straight" / "output")
        self.build(folder / "older" / "output", config="other")

    def close(self) -> None:
        with self._driver:
            self._driver.stdin.close()

    def build(self, output: Path, *options: str, expect: bool = True, **job: Any) -> dict[str, Any]:
        """A build in a child; `expect`: RuntimeError unless it succeeds."""
        (answer,) = self.race(output, *options, n=1, **job)
        if expect and answer["code"] != 0:
            raise RuntimeError(f"a build that meets nothing failed: {answer['stderr']}")
        return answer

    def race(
        self, output: Path, *options: str, n: int, config: str = "config", **job: Any
    ) -> list[dict[str, Any]]:
        """`n` builds of one output at the same time."""
        output.parent.mkdir(parents=True, exist_ok=True)
        asked = {"inputs": str(self.inputs), "config": str(self.folder / f"{config}.yaml"), **job}
        asked |= {"output": str(output), "options": options}
        self._driver.stdin.write(
            json.dumps([{**asked, "folder": str(self.folder / f"run{k}")} for k in range(n)]) + "\n"
        )
        self._driver.stdin.flush()
        return json.loads(self._driver.stdout.readline())

    def seen(self, folder: Path) -> Path:
        """A folder as the driver sees it, which may have mounted something there."""
        return Path(f"/proc/{self._driver.pid}/root{folder}")

    def mount(self, folder: Path, size: str) -> None:
        """Let the file system that is mounted there have another size."""
        self._inside("mount", "-o", f"remount,size={size}", folder)

    def _inside(self, *command: str | Path) -> None:
        subprocess.run(
            [
                "nsenter",
                "-t",
                str(self._driver.pid),
                "-U",
                "-m",
                "--preserve-credentials",
                *command,
            ],
            check=True,
        )


AREAS = {
    "publishing": (
        r"(write|read|fsync) publishing|(after )?exchange|(read|fsync) (\.|\.\.)$|read output"
    ),
    "removing what is left": r"(remove|rmdir) ",
    "stages": r"stage ",
    "checkpoints": r".*checkpoints",
    "parts of samples": r".*data/\w+_dataset",
    "flush": r"(fsync|read) data",
    "other files": r".*data/",
}


def area_of(point: str) -> str:
    """Where along the river a point lies."""
    name = point.partition("#")[0]
    return next(
        (area for area, pattern in AREAS.items() if re.match(pattern, name)), "the lock and folders"
    )


def kind_of(point: str) -> str:
    """A point without numbers and without the names of splits: what it is, wherever it happens."""
    return re.sub(
        r"\d+", "", re.sub(r"\b(train|val|test)(?=[-_])", "split", point.partition("#")[0])
    )


def every_case(shop: Workshop, folder: Path) -> Iterator[Case]:
    """Each fault at each kind of point: at its first, a middle and its last time in turn; some
    begin anew, some alone.
    """
    shutil.copytree(shop.folder / "older" / "output", folder / "output")
    by_kind: dict[str, list[str]] = {}
    for point in shop.build(folder / "output", "--overwrite")["points"]:
        by_kind.setdefault(kind_of(point), []).append(point)
    number = 0
    for points in by_kind.values():
        for fault in FAULTS:
            at = (points[0], points[len(points) // 2], points[-1])[number % 3]
            alone = number % 5 == 4 and at in shop.points
            yield Case(fault, at, overwrite=not alone, resume=number % 4 != 3)
            number += 1


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a dataset, by name, but for those that tell of times."""
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name not in TELLING
    }


@dataclass(frozen=True)
class Case:
    """A fault at a point, over an older dataset or none; what follows goes on (`resume`) or begins
    anew.
    """

    fault: str | None
    at: str | None = None
    overwrite: bool = True
    resume: bool = True

    def __str__(self) -> str:
        manner = (
            "over an older one" if self.overwrite else "alone",
            "resume" if self.resume else "anew",
        )
        return f"{self.fault} at {self.at}, {', '.join(manner)}"


def outcome(shop: Workshop, case: Case, folder: Path, **job: Any) -> str:
    """Let a build meet a fault, and hold what it promises; how it ended. AssertionError where a
    promise is broken.
    """
    output = folder / "output"
    folder.mkdir(parents=True)
    if case.overwrite:
        shutil.copytree(shop.folder / "older" / "output", output)
    older = whole(output) if case.overwrite else None
    options = ("--overwrite",) if case.overwrite else ()
    met = shop.build(output, *options, expect=False, fault=case.fault, at=case.at, **job)
    assert "left" not in met, f"{case}: {met['left']}"
    assert met.get("outside", []) == [], f"{case}: files elsewhere: {met['outside']}"
    finished = met["code"] == 0
    assert finished or met["code"] in ENDS.get(case.fault, (1, 2)), (
        f"{case}: exit code {met['code']}: {met['stderr']}"
    )
    published = finished or (output.exists() and whole(output) != older)
    stands(shop, output, older, published, case)
    if not finished and met["code"] > 0:
        message = " ".join(met["stderr"].split())
        assert not (published and "nothing was published" in message), f"{case}: {message}"
        is_reported = "had been published" in message
        assert is_reported == published or case.fault == "Ctrl-C twice", (
            f"{case}: {message}"
        )  # the second one comes before the word
    names = {path.name for path in folder.iterdir()}
    assert names <= {"output", ".output.staging"}, f"{case}: {names} left"
    if finished and "cannot be removed" not in met["stderr"]:
        assert names == {"output"}, f"{case}: staging left after a build that ended well"
    follow_up(shop, case, output)
    return (
        "finished"
        if finished
        else "published"
        if published
        else "kept the older one"
        if older
        else "published nothing"
    )


def whole(output: Path) -> dict[str, str] | None:
    """SHA-256 of every file of a dataset; None where there is none."""
    if not output.exists():
        return None
    return {
        str(path.relative_to(output)): sha256_of(path)
        for path in output.rglob("*")
        if path.is_file()
    }


def stands(
    shop: Workshop, output: Path, older: dict[str, str] | None, published: bool, case: Case
) -> None:
    """What is at the output is the older dataset, untouched, or the new one, complete."""
    if not published:
        assert whole(output) == older, f"{case}: the older dataset was touched"
        return
    assert validate(output, checksums=True) == [], f"{case}: half a dataset is published"
    assert contents(output) == shop.files, f"{case}: another dataset is published"


def follow_up(shop: Workshop, case: Case, output: Path) -> None:
    """The next build makes what a build that met nothing makes, and leaves nothing else."""
    options = ["--overwrite"] if output.exists() else []
    next_one = shop.build(output, *options, *(["--resume"] if case.resume else []), expect=False)
    assert next_one["code"] == 0, f"{case}: the next build: {next_one['stderr']}"
    assert validate(output, checksums=True) == [], f"{case}: the next build is broken"
    assert contents(output) == shop.files, f"{case}: the next build made something else"
    assert {path.name for path in output.parent.iterdir()} == {"output"}, (
        f"{case}: files left after the next build"
    )
