"""The command line: how options reach the functions behind it, and what is printed.

`build` itself is replaced by a fake.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpu_dcgen
from gpu_dcgen.backend.gpu import device
from gpu_dcgen.cli.console import Terminated
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import (
    BackendError,
    ConfigError,
    DcgenError,
    GateError,
    InputError,
    OutputError,
)
from gpu_dcgen.preflight import doctor
from tests.support.command_line import MANIFEST, FakeBuild, run


def test_options_reach_the_build(fake_build, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("split: {train_share: 0.7}")
    options = [
        "--config",
        file,
        "--set",
        "split.val_share=0.2",
        "--set",
        "inputs.views=false",
        "--seed",
        7,
        "--threads",
        3,
    ]
    options += ["--on-bad-rows", "reject", "--baseline", "old"]
    result = run(
        "build",
        "in",
        "out",
        *options,
        "--backend",
        "cpu",
        "--profile",
        "cloud_processing",
        "--overwrite",
    )
    assert result.exit_code == 0, result.output
    config = fake_build.call.config
    assert (config.split.train_share, config.split.val_share, config.inputs.views) == (
        0.7,
        0.2,
        False,
    )
    assert (config.seed, config.resources.num_workers, config.resources.batch_size) == (
        7,
        3,
        50_000,
    )
    assert config.inputs.on_bad_rows == "reject"
    assert (fake_build.call.inputs, fake_build.call.output) == (Path("in"), Path("out"))
    assert (fake_build.call.backend, fake_build.call.overwrite, fake_build.call.baseline) == (
        "cpu",
        True,
        Path("old"),
    )


def test_without_options_the_defaults_are_built_and_nothing_is_overwritten(fake_build):
    assert run("build", "in", "out").exit_code == 0
    assert fake_build.call.config == DatasetConfig()
    assert (fake_build.call.backend, fake_build.call.overwrite) == ("auto", False)


def test_the_summary_says_what_was_made(fake_build):
    shown = " ".join(run("build", "in", "out").stdout.split())
    for fact in (
        "Built 159,984 samples in 2.5 s on the cpu (asked for)",
        "train 500 8,000 80.0% 128,000",
        "test 61 999 10.0% 15,984",
        "short_history 1,234, not_on_sale 56",
        "item_cf 25.0%, collaborative 50.0%, category_crossing 22.5%, fallback 2.5%;",
        "shortfall 1, group limit relaxed 7",
        "54,321 pairs of 987 items (exact)",
        "63,994 samples/s",
        "1.50 GB",
        "00c0ffee00c0ffee",
        "out (3.5 MB)",
        "val_dataset.parquet",
    ):
        assert fact in shown


def test_the_next_command_is_never_broken_over_lines(fake_build, tmp_path):
    long = tmp_path / ("a" * 100) / ("b" * 100)
    (line,) = [line for line in run("build", "in", long).stdout.splitlines() if "python -c" in line]
    assert line.strip().endswith("/val_dataset.parquet').slice(0, 16))\"")


def test_results_go_to_stdout_and_progress_and_warnings_to_stderr(fake_build):
    result = run("build", "in", "out")
    assert "quartile Q2" in result.stderr and "quartile Q2" not in result.stdout
    assert "samples: 50% done" in result.stderr
    assert "Built" in result.stdout and "Built" not in result.stderr


def test_quiet_prints_warnings_only(fake_build):
    result = run("build", "in", "out", "--quiet")
    assert result.stdout == "" and result.stderr == "warning: quartile Q2 is empty\n"


def test_json_prints_objects_only_and_ends_with_the_manifest(fake_build):
    result = run("build", "in", "out", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0]["event"] == "stage_began"
    assert (
        lines[-1]["event"] == "built"
        and lines[-1]["manifest"] == MANIFEST
        and lines[-1]["output"] == "out"
    )
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("no such table"), 2),
        (ConfigError("no such key"), 2),
        (BackendError("no such machine"), 2),
        (OutputError("already exists"), 2),
        (GateError("2 critical gates failed"), 3),
        (DcgenError("something else"), 1),
        (ValueError("a bug"), 1),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
    ],
)
def test_each_error_has_its_exit_code_and_its_text_alone(fake_build, error, code):
    fake_build.error = error
    result = run("build", "in", "out")
    assert result.exit_code == code
    assert str(error) in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_expected_error_is_printed_as_it_stands(fake_build):
    fake_build.error = GateError(
        "gate ratio: found 1:9, expected 1:11.\nThe staging folder out.staging says more."
    )
    result = run("build", "in", "out", "--quiet")
    assert result.stderr.splitlines()[1:] == str(fake_build.error).splitlines()


def test_an_interrupted_build_says_that_nothing_was_published(fake_build):
    fake_build.error = KeyboardInterrupt()
    assert run("build", "in", "out", "--quiet").stderr.splitlines()[1:] == ["Interrupted."]


def test_an_unexpected_error_names_its_kind_and_points_to_debug(fake_build):
    fake_build.error = ValueError("a bug")
    assert "Unexpected ValueError: a bug" in run("build", "in", "out").stderr
    assert "--debug" in run("build", "in", "out").stderr


@pytest.mark.parametrize("error", [ValueError("a bug"), InputError("no such table")])
def test_debug_shows_the_traceback(fake_build, error):
    fake_build.error = error
    result = run("build", "in", "out", "--debug")
    assert "Traceback" in result.stderr and "command_line.py" in result.stderr


def test_an_error_with_json_is_also_an_event(fake_build):
    fake_build.error = GateError("2 critical gates failed")
    result = run("build", "in", "out", "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 3 and last["event"] == "error" and last["exit_code"] == 3
    assert result.stderr == "2 critical gates failed\n"


@pytest.fixture
def shop(tmp_path):
    """A folder of three tables that a build would read."""
    tables = {"articles": ["article_id", "product_group_name"], "customers": ["customer_id"]}
    tables["transactions"] = ["t_dat", "customer_id", "article_id"]
    for name, columns in tables.items():
        price = {"price": [1.0]} if name == "transactions" else {}
        pq.write_table(
            pa.table({column: ["2020-01-01"] for column in columns} | price),
            tmp_path / f"{name}.parquet",
        )
    return tmp_path


def test_tables_in_folders_reach_the_build(monkeypatch, shop):
    """Each table may be a folder NAME/ instead of NAME.parquet (D1)."""
    fake_build = FakeBuild()
    monkeypatch.setitem(
        sys.modules, "gpu_dcgen.dataset_generator.builder", SimpleNamespace(build=fake_build)
    )
    for name in ("articles", "transactions"):
        (shop / name).mkdir()
        (shop / f"{name}.parquet").rename(shop / name / "part-0.parquet")
    result = run("build", shop, shop / "out")
    assert result.exit_code == 0 and fake_build.call.inputs == shop, result.output


def test_what_is_wrong_with_the_tables_is_the_builds_to_say(tmp_path):
    result = run("build", tmp_path / "nowhere", tmp_path / "out", "--quiet")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-2:] == [
        f"{tmp_path / 'nowhere'}: the folder does not exist.",
        "Name the folder that holds the table of transactions.",
    ]


def test_a_warned_check_is_reported_and_a_good_one_is_not(fake_build, monkeypatch):
    few = doctor.Check("cores", "2", ">= 8", "warn", "It takes longer.")
    good = doctor.Check("memory", "64.0 GB", ">= 16 GB", "ok")
    monkeypatch.setattr(doctor, "prebuild", lambda inputs, output, config: [few, good])
    result = run("build", "in", "out")
    assert result.exit_code == 0
    assert (
        "warning: cores: 2; expected >= 8. It takes longer." in result.stderr
        and "memory:" not in result.stderr
    )


def test_a_mistaken_setting_stops_before_the_build(fake_build):
    result = run("build", "in", "out", "--set", "split.train_shar=0.7")
    assert (
        result.exit_code == 2
        and fake_build.call is None
        and "split.train_shar: unknown key" in result.stderr
    )


def test_an_unknown_backend_is_a_usage_error(fake_build):
    assert run("build", "in", "out", "--backend", "tpu").exit_code == 2 and fake_build.call is None


def test_gpu_without_a_gpu_is_exit_2_and_builds_nothing(tmp_path, monkeypatch):
    pytest.importorskip("gpu_dcgen.dataset_generator.builder")
    monkeypatch.setattr(doctor, "prebuild", lambda inputs, output, config: [])
    monkeypatch.setattr(device, "PACKAGES", ("no_such_package",))
    result = run("build", tmp_path, tmp_path / "out", "--backend", "gpu")
    assert (
        result.exit_code == 2
        and "--backend gpu: no_such_package is not installed." in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_demo_converts_builds_and_shows_a_group(fake_build, monkeypatch, tmp_path):
    from gpu_dcgen.example_data import complete_journey as demo

    rows = [
        {
            "item": "MILK",
            "group": "DAIRY",
            "label": 1.0,
            "source": None,
            "detail": None,
            "similarity": None,
        },
        {
            "item": "BREAD",
            "group": None,
            "label": 0.0,
            "source": "hard",
            "detail": "item_cf",
            "similarity": 0.4321,
        },
    ]
    report = demo.DemoReport({"articles": 3, "customers": 2, "transactions": 10}, 12, 2, 1)
    monkeypatch.setattr(demo, "write_tables", lambda folder: report)
    monkeypatch.setattr(
        demo,
        "find_example_group",
        lambda dataset, tables: demo.ExampleGroup("17", "2017-05-01 12:00", ["EGGS", "TEA"], rows),
    )
    result = run("demo", tmp_path / "out", "--threads", 2)
    assert result.exit_code == 0, result.output
    assert (fake_build.call.inputs, fake_build.call.output) == (
        tmp_path / "out" / "input",
        tmp_path / "out" / "dataset",
    )
    shown = " ".join(result.stdout.split())
    assert "2 of 12 transactions" in shown
    assert "household 17 on 2017-05-01 12:00" in shown and "EGGS, TEA" in shown
    assert "1 MILK DAIRY" in shown and "0 BREAD hard: item_cf 0.432" in shown


def test_demo_never_writes_into_an_existing_folder(fake_build, monkeypatch, tmp_path):
    from gpu_dcgen.example_data import complete_journey as demo

    monkeypatch.setattr(
        demo, "write_tables", lambda folder: pytest.fail("wrote into an existing folder")
    )
    (tmp_path / "input").mkdir()
    result = run("demo", tmp_path)
    assert result.exit_code == 2 and "--overwrite" in result.stderr and fake_build.call is None


def test_synth_prints_rows_and_fit(monkeypatch, tmp_path):
    fit = [
        SimpleNamespace(name="rows per customer", target=23.3, measured=23.1, unit="rows"),
        SimpleNamespace(name="not published", target=None, measured=0.5, unit="share"),
    ]
    module = ModuleType("gpu_dcgen.example_data.fashion_shop")
    module.generate = lambda folder, *, scale, seed, progress: SimpleNamespace(
        rows={"transactions": 31788}, seconds=1.5, fit=fit
    )
    monkeypatch.setitem(sys.modules, "gpu_dcgen.example_data.fashion_shop", module)
    result = run("synth", tmp_path / "shop", "--scale", 0.001, "--seed", 3)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "transactions 31,788" in shown and "rows per customer 23.3 23.1 rows" in shown
    assert "not published 0.5 share" in shown


def test_synth_never_replaces_an_existing_table(monkeypatch, tmp_path):
    module = ModuleType("gpu_dcgen.example_data.fashion_shop")
    module.generate = lambda folder, **options: pytest.fail("overwrote an existing table")
    monkeypatch.setitem(sys.modules, "gpu_dcgen.example_data.fashion_shop", module)
    (tmp_path / "customers.parquet").touch()
    result = run("synth", tmp_path)
    assert result.exit_code == 2 and "customers.parquet already exists" in result.stderr


def test_doctor_is_exit_2_when_something_fails_and_0_when_it_only_warns(monkeypatch, tmp_path):
    warned = doctor.Check("cores", "2", ">= 8", "warn", "It takes longer.")
    failed = doctor.Check("Python", "3.10", "3.11", "fail", "Upgrade.")
    monkeypatch.setattr(doctor, "checks", lambda inputs, output, config: [warned])
    result = run("doctor")
    assert result.exit_code == 0 and "cores: It takes longer." in result.stdout
    monkeypatch.setattr(doctor, "checks", lambda inputs, output, config: [warned, failed])
    assert run("doctor").exit_code == 2


def test_doctor_looks_at_what_it_is_given(shop):
    result = run("doctor", shop, "--output", shop / "out")
    assert result.exit_code == 0, result.output
    assert "transactions.parquet" in result.stdout and "GPU" in result.stdout
    (shop / "transactions.parquet").unlink()
    result = run("doctor", shop)
    assert result.exit_code == 2
    assert "tables: Put the table of transactions there" in result.stdout


def test_config_prints_yaml_that_config_accepts(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(run("config").stdout)
    result = run("config", "--check", file)
    assert result.exit_code == 0 and f"{file}: valid." in result.stdout
    assert run("config", "--yaml").stdout == file.read_text()


def test_config_check_refuses_a_mistake(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("output: {order: random}")
    result = run("config", "--check", file)
    assert result.exit_code == 2 and "output.order" in result.stderr


def test_config_schema_is_json():
    assert "split" in json.loads(run("config", "--schema").stdout)["properties"]


def test_version_is_the_packages(tmp_path):
    assert run("--version").stdout == f"gpu-dcgen {gpu_dcgen.__version__}\n"
