"""The benchmarks measure what they claim, on a tiny shop; no test depends on a clock."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from gpu_dcgen.example_data.fashion_shop import generate
from tests.benchmarks import __main__ as command
from tests.benchmarks import (
    approximate,
    builds,
    csv_reading,
    machine,
    negatives,
    plot,
    report,
    sequences,
    similarity,
    stages,
    writing,
)
from tests.benchmarks.growth import fit_exponent, fit_growth
from tests.benchmarks.measure import REPEATS, ROOT, Case, Log, Work, measure, run_case

MEGABYTE = 1 << 20
SUITES = {
    "similarity": similarity,
    "negatives": negatives,
    "sequences": sequences,
    "writing": writing,
}
CASES = [case for suite in SUITES.values() for case in suite.cases(2)]
TOO_LARGE = Case(
    "sequences", "small logs only", "per_user", "lists", {"threads": 1}, max_transactions=10
)


@pytest.fixture(scope="module")
def shops(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    generate(folder / "synth_0.001", scale=0.001)
    stages.prepare(folder / "synth_0.001", folder / "stages" / "synth_0.001", 2)
    return folder


@pytest.fixture
def log(shops) -> Log:
    return command.open_log("synth_0.001", shops / "synth_0.001", shops / "stages")


def run_case_here(case: Case, log: Log):
    """Run the case in this process; return its result and figures."""
    work = getattr(SUITES[case.suite], case.function)(log, **case.arguments)
    result = work.run()
    assert work.amount(result) > 0
    return result, work.examine(result)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.suite}: {case.name}" for case in CASES])
def test_every_case_does_its_work(case, log):
    if reason := case.refusal(log):
        pytest.skip(reason)
    with warnings.catch_warnings():
        if case.peer:
            warnings.simplefilter("ignore")  # theirs
        _, figures = run_case_here(case, log)
    assert all(value == value for value in figures.values())


def test_ours_without_a_minimum_are_the_similarities_of_the_matrix_that_peers_get(log):
    (matrix,) = stages.load_results(log, "matrix")
    unit = similarity._scale_columns(matrix.astype(np.float64))
    every = similarity._measure_pairs(similarity._drop_diagonal(unit.T @ unit))
    case = Case(
        "similarity", "all", "ours", "products", {"threads": 2, "top_k": 10_000, "min_common": 1}
    )
    _, figures = run_case_here(case, log)
    assert figures["pairs"] == every["pairs"] > 0
    assert figures["similarity_sum"] == pytest.approx(every["similarity_sum"], rel=1e-5)


def test_a_false_a_repeated_and_an_unsold_negative_are_counted(log):
    interactions, features, plan = stages.load_results(log, "log", "features", "plan")
    rows, cut1, snapshots = plan.positives[0].row[-3:], plan.windows.cut1, features.snapshots
    user = interactions.user[rows]
    snapshot = (interactions.time[rows] - snapshots.origin) // snapshots.step
    owned = [set(interactions.item[interactions.user == u].tolist()) for u in user]
    live, unsold = (
        [
            [i for i in np.flatnonzero(snapshots.on_sale[k] == on).tolist() if i not in mine]
            for k, mine in zip(snapshot, owned, strict=True)
        ]
        for on in (True, False)
    )
    good = np.array([items[:4] for items in live])
    assert set(negatives.measure_defects(good, rows, interactions, features, cut1).values()) == {
        0.0
    }
    bad = good.copy()
    bad[0, 0] = interactions.item[rows[0]]  # the user's own, and the group's positive
    bad[1, 1] = bad[1, 0]
    bad[2, 3] = unsold[2][0]
    defects = negatives.measure_defects(bad, rows, interactions, features, cut1)
    assert defects == pytest.approx(
        {"false_share": 1 / 12, "repeated_share": 2 / 12, "not_on_sale_share": 1 / 12}
    )


def test_a_positives_list_is_what_was_bought_before_its_basket(log):
    interactions, plan = stages.load_results(log, "log", "plan")
    blocks = sequences.per_positive(log, threads=2).run()
    lists = [entry for block in blocks for entry in block.to_pylist()]
    rows = plan.positives[0].row
    assert len(lists) == len(rows)
    for row, items in list(zip(rows, lists, strict=True))[::101]:
        before = (interactions.user == interactions.user[row]) & (
            interactions.time < interactions.time[row]
        )
        assert items == interactions.item[before].tolist()[-sequences.LENGTH :]


def test_polars_and_pandas_make_the_same_lists(log):
    pytest.importorskip("polars")
    pytest.importorskip("pandas")
    ours = sequences.polars_per_user(log).run().sort("user")["item"].to_list()
    assert sequences.pandas_per_user(log).run().sort_index()["item"].tolist() == ours


def test_blocks_are_spread_over_all_rows_and_no_more_than_asked():
    blocks = stages.spread_blocks(1_000, 10, 100)
    assert len(blocks) == 10 and blocks[0].start == 0 and blocks[-1].start >= 900
    assert stages.spread_blocks(95, 10, 1_000)[-1] == slice(90, 95)


def test_a_measurement_runs_on_the_tiny_log_first_and_then_repeats():
    seen = []
    tiny, log = (Log(name, Path(), Path(), 1) for name in ("tiny", "log"))

    def set_up(log):
        return Work(lambda: seen.append(log.name) or 40, lambda result: result)

    answer = measure(set_up, log, tiny)
    assert seen == ["tiny"] + ["log"] * REPEATS
    assert len(answer["seconds"]) == REPEATS and answer["amount"] == 40
    assert answer["best_s"] == min(answer["seconds"]) <= answer["median_s"]
    assert len(measure(set_up, log, None)["seconds"]) == 1


def test_a_long_run_is_measured_once(monkeypatch):
    monkeypatch.setattr("tests.benchmarks.measure.LONG_S", -1.0)
    log = Log("log", Path(), Path(), 1)
    assert (
        len(measure(lambda log: Work(lambda: 1, lambda result: result), log, log)["seconds"]) == 1
    )


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system cannot reset a memory peak"
)
def test_peak_memory_is_that_of_the_runs_alone():
    """In another process, as measurements are: this one may already have more memory."""
    program = "from tests.benchmarks.test_benchmarks import measure_growth; print(measure_growth())"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert 95 * MEGABYTE < int(run.stdout) < 200 * MEGABYTE


def measure_growth() -> int:
    """Return by how many bytes the peak of a 100 MiB run is above the memory before it.

    400 MiB were allocated and freed during setup.
    """
    log = Log("log", Path(), Path(), 1)

    def set_up(_):
        np.ones(400 * MEGABYTE, np.uint8).sum()
        return Work(lambda: int(np.ones(100 * MEGABYTE, np.uint8)[0]), lambda result: result)

    answer = measure(set_up, log, log)
    return answer["peak_bytes"] - answer["resident_before_bytes"]


def test_a_missing_peer_is_skipped_with_what_to_install(log):
    case = Case(
        "similarity", "nobody", "ours", "products", needs=("sparse_dot_nothing", "numpy"), peer=True
    )
    skipped = run_case(case, log, log)
    assert (skipped["status"], skipped["reason"]) == (
        "skipped",
        "not installed: sparse_dot_nothing (pip install sparse_dot_nothing)",
    )
    assert run_case(TOO_LARGE, log, log)["reason"] == "run up to 10 transactions only"


def test_a_case_that_fails_has_a_reason_and_the_next_still_runs(log):
    failed = run_case(replace(TOO_LARGE, max_transactions=None, arguments={"fast": True}), log, log)
    assert failed["status"] == "failed" and "unexpected keyword argument 'fast'" in failed["reason"]
    measurement = run_case(replace(TOO_LARGE, max_transactions=None), log, log)
    assert measurement["status"] == "measured"
    assert measurement["per_s"] > 0 and measurement["peak_bytes"] > 10 * MEGABYTE


def test_a_build_is_measured_by_its_stages(log):
    work = builds.whole(log, threads=2, backend="cpu")
    result = work.run()
    figures = work.examine(result)
    assert work.amount(result) % 16 == 0 < figures["bytes_written"]
    assert {"load", "similarity", "samples"} <= figures["stages"].keys()
    assert not result.output.exists()


def test_the_exponent_of_a_power_law_is_found():
    sizes = [10.0, 200.0, 5_000.0]
    assert fit_exponent(sizes, [3 * n for n in sizes]) == pytest.approx(1)
    assert fit_exponent(sizes, [n**1.5 for n in sizes]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="two different sizes"):
        fit_exponent([10, 10], [1, 2])


def make_measurement(suite: str, name: str, log: str, amount: int, seconds: float, **more) -> dict:
    return {
        "suite": suite, "name": name, "log": log, "status": "measured", "note": "", "peer": False,
        "amount": amount, "unit": "rows", "best_s": seconds, "core_s": 2 * seconds,
        "per_s": round(amount / seconds), "peak_bytes": 10**9, "figures": {}, "load_before": 0.5,
        **more,
    }  # fmt: skip


@pytest.fixture
def results() -> dict:
    build = {"stages": {"load": 0.5, "samples": 3.0}, "bytes_written": 10**8}
    n_transactions = {"synth_0.01": 1_000, "synth_0.1": 10_000, "online-retail": 400}
    return {
        "machine": {**machine.describe(), "commit": "0123456789ab"},
        "threads": 2,
        "logs": {name: {"transactions": n} for name, n in n_transactions.items()},
        "measurements": [
            make_measurement("builds", "build", "synth_0.01", 10**6, 1.0, figures=build),
            make_measurement("builds", "build", "synth_0.1", 10**7, 10.0, figures=build),
            make_measurement("builds", "build", "online-retail", 10**6, 2.0, figures=build),
            make_measurement(
                "writing", "gpu-dcgen", "synth_0.1", 2_000, 1.0, figures={"bytes_a_row": 9.0}
            ),
            make_measurement(
                "writing",
                "pyarrow <table>",
                "synth_0.1",
                1_000,
                1.0,
                figures={"bytes_a_row": 12.0},
                peer=True,
            ),
            {
                "suite": "writing",
                "name": "polars",
                "log": "synth_0.1",
                "status": "skipped",
                "reason": "not installed: polars",
            },
        ],
    }


def test_growth_is_fitted_over_synthetic_shops_only(results):
    fits = fit_growth(results["measurements"])
    assert fits["builds: build"]["exponent"] == 1.0
    assert fits["builds: stage samples"]["exponent"] == 0.0
    assert not any(name.startswith("writing") for name in fits)
    capped = [
        make_measurement("writing", "gpu-dcgen", log, amount, 1.0)
        for log, amount in (("synth_0.01", 100), ("synth_0.1", 110))
    ]
    assert fit_growth(capped) == {}


def test_pictures_are_svg_and_bars_are_as_long_as_rates(results):
    bars = ElementTree.fromstring(plot.draw_peers(results, "synth_0.1")).findall("{*}rect")[1:]
    width = {bar.get("class"): float(bar.get("width")) for bar in bars}
    assert width["ours"] == 2 * width["peer"]
    text = "".join(ElementTree.fromstring(plot.draw_scaling(results)).itertext())
    assert (
        "power 1.00 of the samples" in text
        and "whole build: 10 s" in text
        and "online retail" in text
    )


def test_pictures_of_nothing_are_refused(results):
    results["measurements"] = []
    with pytest.raises(SystemExit, match="--only builds"):
        plot.draw_scaling(results)
    with pytest.raises(SystemExit, match="nothing was measured"):
        plot.draw_peers(results, "synth_0.1")


def test_the_report_has_all_measurements_and_what_was_skipped(results):
    text = report.render_markdown(results)
    assert (
        "| writing | **gpu-dcgen** | 1 s (2), 0.002 M rows/s, 1.00 GB | 9.0 bytes a row |" in text
    )
    assert "| synth_0.1 | build | 10,000,000 | 10 | 1,000,000 | 1 GB | 0.1 GB | 0.5 | 3 |" in text
    assert "polars on synth_0.1 (not installed: polars)" in text
    assert "commit 0123456789ab" in text and "load 0.5 to 0.5" in text
    assert "| writing |" not in report.render_markdown(results, ["synth_0.01"])


def test_later_results_replace_earlier_ones(results, tmp_path):
    later = {
        **results,
        "measurements": [make_measurement("builds", "build", "synth_0.1", 10**7, 5.0)],
    }
    for name, content in (("a.json", results), ("b.json", later)):
        (tmp_path / name).write_text(json.dumps(content))
    merged = report.read_results([tmp_path / "a.json", tmp_path / "b.json"])
    assert len(merged["measurements"]) == len(results["measurements"])
    assert [m["best_s"] for m in report.select_measured(merged, "builds")] == [1.0, 5.0, 2.0]


def test_approximate_neighbors_are_measured_beside_exact_ones():
    exact, brute = (
        approximate.measure(1_000, "light", 20, 4.0, engine, 1) for engine in ("exact", "brute")
    )
    assert exact["products"] == brute["products"] > 0
    assert brute["candidates"] == 80
    assert 0.5 < brute["recall"] <= 1 and 0 < brute["pairs"] <= exact["pairs"]


def test_the_machine_is_described_without_its_name():
    facts = machine.describe()
    assert facts.keys() == {
        "date",
        "commit",
        "processor",
        "cores",
        "memory_bytes",
        "system",
        "python",
        "packages",
    }
    assert facts["packages"]["numpy"] == np.__version__
    words = f"{facts['processor']} {facts['system']} {facts['commit']}".split()
    assert socket.gethostname() not in words


@pytest.mark.slow
def test_the_command_measures_and_writes_results(shops, tmp_path, capfd):
    output = tmp_path / "results.json"
    folders = ["--shops", str(shops), "--stages", str(shops / "stages")]
    command.main(
        [
            "--scale",
            "0.001",
            "--only",
            "sequences",
            "--threads",
            "1",
            "--output",
            str(output),
            *folders,
        ]
    )
    results = json.loads(output.read_text("utf-8"))
    assert {m["suite"] for m in results["measurements"]} == {"sequences"}
    assert all(m["status"] == "measured" for m in results["measurements"] if not m["peer"])
    assert results["logs"]["synth_0.001"]["positives"]["train"] > 0
    assert "gpu-dcgen a user" in capfd.readouterr().out
    assert report.render_markdown(results).count("| sequences |") >= 2


def test_reading_csv_is_measured(shops, tmp_path):
    csv_reading.write_csv(shops / "synth_0.001", tmp_path / "csv")
    result = csv_reading.measure_reading(tmp_path / "csv")
    assert result["rows"] > 1000
    assert result["bytes"] == sum(file.stat().st_size for file in (tmp_path / "csv").iterdir())
    assert result["peak_bytes"] > MEGABYTE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csv"]  # nothing is left
