"""The matrix of faults as a table, or a soak of kills: `python -m tests.faults [--soak INPUT
--kills 50]`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.faults.matrix import FAULTS, Workshop, area_of, contents, every_case, outcome


def matrix(shop: Workshop, folder: Path, seconds: float) -> None:
    """Every fault at every kind of point, for so many seconds at most, in a seeded order; a table
    of what came of it.
    """
    cases = list(every_case(shop, folder / "points"))
    random.Random(0).shuffle(cases)
    table: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    began, tried = time.monotonic(), 0
    for case in cases:
        if time.monotonic() - began > seconds:
            break
        try:
            ended = outcome(shop, case, folder / "case")
        except AssertionError as error:
            ended = "BROKEN"
            print(error, flush=True)
        table[area_of(case.at)][case.fault][ended] += 1
        shutil.rmtree(folder / "case")
        tried += 1
    print(f"{tried} of {len(cases)} cases")
    print(f"| point | {' | '.join(FAULTS)} |\n|{'---|' * (len(FAULTS) + 1)}")
    for area, outcomes in table.items():
        cells = (
            ", ".join(f"{n} {ended}" for ended, n in outcomes[fault].most_common())
            for fault in FAULTS
        )
        print(f"| {area} | {' | '.join(cells)} |")


def soak(shop: Workshop, folder: Path, inputs: Path, n_kills: int) -> None:
    """Kill builds of one dataset at random times, go on from what is there, and compare with one
    that nobody killed.
    """
    (shop.folder / "soak.yaml").write_text("output:\n  groups_per_part: 2000\n")
    job = {"inputs": str(inputs), "config": "soak"}
    began = time.monotonic()
    shop.build(folder / "straight" / "output", **job)
    straight_s = time.monotonic() - began
    straight, output = contents(folder / "straight" / "output"), folder / "soaked" / "output"
    chance, kills, finished = random.Random(0), 0, 0
    while kills < n_kills:
        options = ("--overwrite",) if output.exists() else ()
        met = shop.build(
            output,
            "--resume",
            *options,
            expect=False,
            kill_after_s=chance.uniform(0, 0.4 * straight_s),
            **job,
        )
        kills += met["code"] == -9
        if met["code"] == 0:
            finished += 1
            assert contents(output) == straight
    shop.build(output, "--resume", *(("--overwrite",) if output.exists() else ()), **job)
    same = contents(output) == straight
    print(
        f"{kills} kills; {finished + 1} builds finished, the last one the same: {same}; "
        f"without kills, one takes {straight_s:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--soak", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        shop = Workshop(Path(name) / "shop")
        try:
            if given.soak is None:
                matrix(shop, Path(name), given.seconds)
            else:
                soak(shop, Path(name), given.soak, given.kills)
        finally:
            shop.close()


if __name__ == "__main__":
    main()
