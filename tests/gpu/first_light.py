"""`python -m tests.gpu.first_light`: what only a GPU can tell, in at most twelve minutes.

Asks one question after another, the decisive ones first, and prints a line for each; answers are
written to a JSON file as soon as they are known. What needs no RAPIDS comes first. The expected
digests are made before, on any machine, with `--make-digests`. `--long` asks more, for owners of
a GPU. The exit code is 1 if anything failed or nothing was answered.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.gpu.asking import Question, Report, ask_all

TOTAL_S = 700.0  # within 12 minutes
LONG_TOTAL_S = 4 * 3600.0
SLOWNESS = {"device": 1, "strict": 4}  # of a place: its time limits are so many times as long
TOOLKIT = Path("/usr/local/cuda")
ON_A_DEVICE = ("driver", "NVVM", "device tests")  # not asked where there is a stand-in


def list_questions(settings: dict[str, Any], is_long: bool) -> list[Question]:
    """Return the questions in the order in which they are asked."""

    def ask(name: str, function: str, limit_s: float, *needs: str, arguments: tuple = ()) -> None:
        function = f"tests.gpu.questions:{function}"
        selected.append(Question(name, function, limit_s, needs, (settings, *arguments)))

    selected: list[Question] = []
    ask("packages", "list_packages", 60)
    ask("driver", "describe_driver", 60, "packages")
    ask("NVVM", "compile_with_nvvm", 60, "packages")
    ask("one kernel", "run_kernel", 90, "packages", "driver", "NVVM")
    ask("one sort", "sort", 60, "packages", "driver")
    shops, last = ("tiny", "online_retail"), "one kernel"
    for shop in shops:
        ask(f"{shop} without RAPIDS", "build_shop", 240, last, "one sort", arguments=(shop, False))
        last = "tiny without RAPIDS"
    ask("similarity time", "time_similarity", 60, last)
    ask("RAPIDS", "open_rapids", 90, "one kernel")
    ask("files of libcudf", "write_and_read", 60, "RAPIDS")
    for shop in shops:
        ask(f"{shop} with RAPIDS", "build_shop", 240, "RAPIDS", "one sort", arguments=(shop, True))
    ask("device tests", "run_device_tests", 150, "tiny with RAPIDS")
    ask("tables of synth_0.1", "write_tables", 90, "tiny with RAPIDS", arguments=("synth_0.1",))
    synth = ("synth_0.1", True)
    ask("synth_0.1", "build_shop", 180, "tables of synth_0.1", arguments=synth)
    ask("synth_0.1 again", "build_again", 120, "synth_0.1", arguments=synth)
    if is_long:
        _add_long_questions(ask)
    return selected


def _add_long_questions(ask: Any) -> None:
    ask("copy bandwidth", "measure_copies", 60, "one kernel")
    for shop, limit_s in (("complete_journey", 600), ("synth_1.0", 3600)):
        tables = f"tables of {shop}"
        ask(tables, "write_tables", 1200, "tiny with RAPIDS", arguments=(shop,))
        ask(shop, "build_shop", limit_s, tables, arguments=(shop, True))
        ask(f"{shop} again", "build_again", limit_s, shop, arguments=(shop, True))
        ask(f"engines on {shop}", "compare_ways", 1200, tables, arguments=(shop,))
    ask("all tests", "run_all_tests", 5400, "RAPIDS")


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    settings = {
        "place": options.place,
        "work": str(options.work.resolve()),
        "online_retail": str(options.online_retail.resolve()) if options.online_retail else None,
        "digests": str((options.digests or options.make_digests).resolve()),
    }
    if options.make_digests:
        from tests.gpu.expected_digests import make_digests

        shops = [*options.shops, *(["complete_journey", "synth_1.0"] if options.long else [])]
        make_digests(settings, shops)
        return 0
    if "CUDA_HOME" not in os.environ and (TOOLKIT / "nvvm").is_dir():
        os.environ["CUDA_HOME"] = str(TOOLKIT)  # NVVM, where the package nvidia-nvvm is missing
    questions = list_questions(settings, options.long)
    if unknown := set(options.only) - {question.name for question in questions}:
        names = ", ".join(question.name for question in questions)
        print(f"no question is called {', '.join(sorted(unknown))}; there are: {names}")
        return 2
    left_out = ON_A_DEVICE if options.place == "strict" else ()
    about = {
        "python": sys.version,
        "host": platform.platform(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "arguments": sys.argv[1:] if arguments is None else arguments,
        "CUDA_HOME": os.environ.get("CUDA_HOME"),
    }
    report = Report(options.out, about)
    slowness = SLOWNESS[options.place]
    asked = [
        replace(question, limit_s=slowness * question.limit_s)
        for question in questions
        if question.name not in left_out and question.name in (options.only or [question.name])
    ]
    ask_all(asked, report, slowness * (LONG_TOTAL_S if options.long else TOTAL_S))
    counts = {name: len(report.names(name)) for name in ("ok", "failed", "skipped")}
    print(", ".join(f"{n} {name}" for name, n in counts.items()) + f"; written to {options.out}")
    return 0 if report.is_good else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--digests", type=Path, metavar="FILE", help="the expected digests")
    what.add_argument(
        "--make-digests", type=Path, metavar="FILE", help="make them, on the CPU of this machine"
    )
    parser.add_argument("--long", action="store_true", help="ask more; takes hours")
    parser.add_argument("--out", type=Path, default=Path("first_light.json"), metavar="FILE")
    parser.add_argument(
        "--work", type=Path, default=Path("first_light"), help="folder for tables and datasets"
    )
    parser.add_argument(
        "--online-retail",
        type=Path,
        default=os.environ.get("GPU_DCGEN_ONLINE_RETAIL"),
        metavar="FOLDER",
        help="the tables of Online Retail (default: GPU_DCGEN_ONLINE_RETAIL)",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="QUESTION", help="ask these questions alone"
    )
    parser.add_argument(
        "--shops",
        nargs="+",
        default=["tiny", "online_retail", "synth_0.1"],
        help="make digests of these",
    )
    parser.add_argument(
        "--place",
        choices=("device", "strict"),
        default="device",
        help="strict: arrays of the host that refuse what CuPy refuses, to try this program",
    )
    options = parser.parse_args(arguments)
    if options.online_retail:
        options.online_retail = Path(options.online_retail)
    return options


if __name__ == "__main__":
    sys.exit(main())
