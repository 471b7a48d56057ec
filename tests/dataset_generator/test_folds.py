"""Rolling windows: each fold is a build of the log that ends with it."""

from __future__ import annotations

import gc
import shlex
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cpu_fallback import NumpyBackend
from gpu_dcgen import build_folds
from gpu_dcgen.auditing import audit
from gpu_dcgen.cards.description import describe
from gpu_dcgen.config import DatasetConfig, SplitConfig
from gpu_dcgen.contract.folds import list_folds, suggest_fold
from gpu_dcgen.dataset_generator import builder, shared_tables
from gpu_dcgen.dataset_generator.builder import BuildResult, build
from gpu_dcgen.dataset_generator.folds import run_folds
from gpu_dcgen.errors import ConfigError, InputError, OutputError
from gpu_dcgen.inputs import opening
from gpu_dcgen.preparation.windows import cut_folds
from gpu_dcgen.reporting.documents import read_documents
from gpu_dcgen.storage.scratch import hold_scratch
from tests.support.audited_shops import get_faults
from tests.support.command_line import run
from tests.support.csv_tables import convert_folder
from tests.support.shops import (
    DAY,
    TINY_SETTINGS,
    Tables,
    random_shop,
    set_options,
    tiny_config,
    write_shop,
)

SHOP = random_shop(4, n_users=18, n_items=22, n_rows=620, dates=(60, 80), minutes=True, views=True)
CPU = NumpyBackend()


def build_three(folder: Path, **options: Any) -> list[BuildResult]:
    split = {"folds": 3, "train_share": 0.6, "val_share": 0.2, **options.pop("split", {})}
    config = tiny_config(split=split, **options.pop("settings", {}))
    return build_folds(folder / "input", folder / "output", config, backend="cpu", **options)


@pytest.fixture(scope="module")
def folds(tmp_path_factory) -> tuple[Path, list[BuildResult]]:
    folder = tmp_path_factory.mktemp("folds")
    write_shop(SHOP, folder / "input")
    return folder, build_three(folder)


def cut_log(tables: Tables, end: int | None) -> Tables:
    """Return the tables with the rows of logs before a time."""
    return {
        name: [row for row in rows if end is None or row.get("t_dat", 0) < end]
        for name, rows in tables.items()
    }


def windows_of(result: BuildResult) -> tuple[int, int]:
    windows = result.manifest.split.windows_ns
    return windows.cut1, windows.cut2


def test_each_fold_equals_a_build_of_the_log_cut_at_its_end(folds, tmp_path):
    _, results = folds
    ends = [windows_of(later)[1] for later in results[1:]] + [None]
    seen = set()
    for number, (result, end) in enumerate(zip(results, ends, strict=True)):
        write_shop(cut_log(SHOP, end), tmp_path / f"{number}")
        split = dict(result.manifest.config["split"])
        alone = build(
            tmp_path / f"{number}",
            tmp_path / f"out{number}",
            tiny_config(split=split),
            backend="cpu",
        )
        assert alone.manifest.config["inputs"]["time_until"] is None
        assert alone.manifest.content_digest == result.manifest.content_digest
        assert alone.manifest.ledger == result.manifest.ledger
        seen.add(result.manifest.content_digest)
    assert len(seen) == 3


def test_the_audit_holds_on_each_fold(folds):
    folder, results = folds
    assert [result.output.name for result in results] == ["fold-0", "fold-1", "fold-2"]
    for result in results:
        assert get_faults(audit(folder / "input", result.output)) == {}


def test_windows_roll_by_the_length_of_test(folds):
    """And the last fold has the windows of the whole log."""
    _, results = folds
    times = [row["t_dat"] for row in SHOP["transactions"]]
    first, last = min(times), max(times)
    wanted = [first + share * (last - first) / 5 for share in (3, 4)]
    cuts = [windows_of(result) for result in results]
    assert np.allclose(cuts[-1], wanted, rtol=0, atol=1000)
    length = last + 1 - cuts[-1][1]
    for earlier, later in zip(cuts, cuts[1:], strict=False):
        assert np.allclose(np.array(later) - earlier, length, rtol=0, atol=2000)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"folds": 3}, [(20, 40, 60), (40, 60, 80), (60, 80, None)]),
        ({"folds": 2, "windows": "rows"}, [(40, 60, 80), (60, 80, None)]),
    ],
)
def test_folds_by_hand(split, expected):
    """A row a day, and test is the last fifth: of a hundred days, or of as many rows."""
    times = np.arange(101 if "windows" not in split else 100, dtype=np.int64) * DAY
    config = SplitConfig(train_share=0.6, val_share=0.2, **split)
    days = [
        tuple(None if time is None else round(time / DAY) for time in fold)
        for fold in cut_folds(times, config, CPU)
    ]
    assert days == expected


def test_pinned_cuts_are_those_of_the_last_fold():
    times = np.arange(100, dtype=np.int64) * DAY
    config = SplitConfig(folds=2, val_from="1970-02-20", test_from="1970-03-12")
    (early, last) = cut_folds(times, config, CPU)
    assert (last.val_from // DAY, last.test_from // DAY, last.until) == (50, 70, None)
    assert early.until == last.test_from
    # Test takes 29 days and a nanosecond; cuts are whole microseconds.
    assert early == (21 * DAY, 41 * DAY, 70 * DAY)


@pytest.mark.parametrize("windows", ["calendar", "rows"])
def test_more_folds_than_the_log_has_room_for_are_refused(windows):
    times = np.arange(100, dtype=np.int64) * DAY
    with pytest.raises(ConfigError, match=r"found 20; the log from .* has room for 8, each"):
        cut_folds(times, SplitConfig(folds=20, windows=windows), CPU)
    assert len(cut_folds(times, SplitConfig(folds=8, windows=windows), CPU)) == 8


def test_a_run_that_is_resumed_leaves_the_folds_that_are_there(folds, monkeypatch):
    folder, results = folds

    def refuse(*args, **kwargs):
        raise AssertionError("a fold is built again")

    monkeypatch.setattr(builder.BuildRun, "execute", refuse)
    again = build_three(folder, resume=True)
    assert [r.manifest.content_digest for r in again] == [
        r.manifest.content_digest for r in results
    ]


def test_a_run_that_died_goes_on_where_it_was(tmp_path):
    write_shop(SHOP, tmp_path / "input")
    split = {"folds": 3, "train_share": 0.6, "val_share": 0.2}
    started = run_folds(
        tmp_path / "input", tmp_path / "output", tiny_config(split=split), backend="cpu"
    )
    first = next(started)
    started.close()
    modified = (first.output / "manifest.json").stat().st_mtime_ns
    assert len(build_three(tmp_path, resume=True)) == 3
    assert (first.output / "manifest.json").stat().st_mtime_ns == modified


def test_what_a_killed_run_left_is_removed_and_one_that_runs_is_not_disturbed(tmp_path):
    scratch = tmp_path / ".output.scratch"
    (scratch / "content" / "decoded").mkdir(parents=True)
    (scratch / "content" / "decoded" / "rows.npy").write_bytes(b"0" * 100)
    (scratch / "lock").write_text("process 1")
    write_shop(SHOP, tmp_path / "input")
    with hold_scratch(tmp_path / "output") as content:
        assert list(content.iterdir()) == []
        with pytest.raises(OutputError, match=r"output: another process builds it \(process \d"):
            build_three(tmp_path)
        assert content.exists() and not (tmp_path / "output").exists()
    assert not scratch.exists()
    assert len(build_three(tmp_path)) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"input", "output"}


def test_folds_replace_nothing_unasked(folds):
    folder, _ = folds
    with pytest.raises(OutputError, match=r"fold-0: already exists"):
        build_three(folder)
    with pytest.raises(OutputError, match="already exists"):  # of other settings
        build_three(folder, resume=True, settings={"seed": 7})


def test_a_single_build_refuses_folds(tmp_path):
    with pytest.raises(ConfigError, match="gpu_dcgen.build_folds"):
        build(tmp_path, tmp_path / "out", tiny_config(split={"folds": 2}))
    with pytest.raises(ConfigError, match="local folders"):
        build_folds("s3://bucket/log", tmp_path, tiny_config(split={"folds": 2}))
    with pytest.raises(ValidationError, match="strategy leave_last with folds"):
        SplitConfig(strategy="leave_last", folds=2)


def test_the_command_builds_folds_and_shows_each(tmp_path):
    write_shop(SHOP, tmp_path / "input")
    words = set_options([*TINY_SETTINGS, "split.folds=2", "quality.thresholds.split_floor=1"])
    result = run("build", tmp_path / "input", tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("transactions (split.strategy") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"fold-0", "fold-1"}
    refused = run("build", tmp_path / "input", tmp_path / "o", *words, "--baseline", tmp_path)
    assert refused.exit_code == 2 and "--baseline: found with split.folds" in refused.stderr


def test_tables_in_memory_and_csv_files_give_the_same_folds(folds, tmp_path):
    folder, results = folds
    expected = [result.manifest.content_digest for result in results]
    split = {"folds": 3, "train_share": 0.6, "val_share": 0.2}
    tables = {file.stem: pq.read_table(file) for file in (folder / "input").glob("*.parquet")}
    config = tiny_config(split=split)
    built = build_folds(output=tmp_path / "memory", config=config, tables=tables, backend="cpu")
    assert [result.manifest.content_digest for result in built] == expected
    csv = convert_folder(folder / "input", tmp_path / "csv")
    built = build_folds(csv, tmp_path / "from_csv", config, backend="cpu")
    assert [result.manifest.content_digest for result in built] == expected
    with pytest.raises(ConfigError, match="inputs, tables: found neither"):
        build_folds(output=tmp_path / "nothing", config=config, backend="cpu")


def test_a_stream_is_enough_as_folds_read_their_tables_once(folds, tmp_path):
    folder, results = folds
    tables = {
        file.stem: pq.read_table(file).to_reader() for file in (folder / "input").glob("*.parquet")
    }
    split = {"folds": 3, "train_share": 0.6, "val_share": 0.2}
    built = build_folds(
        output=tmp_path / "out", config=tiny_config(split=split), tables=tables, backend="cpu"
    )
    assert [result.manifest.content_digest for result in built] == [
        result.manifest.content_digest for result in results
    ]


def test_each_file_is_converted_and_read_once_for_all_folds(folds, tmp_path, monkeypatch):
    folder, _ = folds
    csv = convert_folder(folder / "input", tmp_path / "csv")
    reads, conversions = Counter(), Counter()
    read_columns, convert = NumpyBackend.read_columns, opening.convert_csv

    def count_reads(backend: Any, files: Any, names: Any) -> Any:
        reads.update(file.name for file in files)
        return read_columns(backend, files, names)

    def count_conversions(file: Path, target: Path, *options: Any) -> Any:
        conversions[file.name, options[-1]] += 1
        return convert(file, target, *options)

    monkeypatch.setattr(NumpyBackend, "read_columns", count_reads)
    monkeypatch.setattr(opening, "convert_csv", count_conversions)
    split = {"folds": 3, "train_share": 0.6, "val_share": 0.2}
    built = build_folds(csv, tmp_path / "out", tiny_config(split=split), backend="cpu")
    assert len(built) == 3
    names = {path.name for path in csv.iterdir()}
    assert len(names) == 4
    assert reads == dict.fromkeys(names, 1)  # each was 4 when every fold read the tables
    previews = {(name, 1): 1 for name in names}  # their first blocks, to find faults of columns
    assert conversions == previews | {(name, None): 1 for name in names}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_no_decoded_table_is_in_memory_while_folds_are_built(folds, tmp_path, monkeypatch):
    folder, _ = folds
    times: list[weakref.ref] = []
    n_alive: list[int] = []
    read_shop, execute = shared_tables.read_shop, builder.BuildRun.execute

    def remember(*these: Any) -> Any:
        shop, decoded = read_shop(*these)
        times.extend(weakref.ref(rows.time.values) for rows in decoded.logs)
        return shop, decoded

    def look(*these: Any) -> Any:
        gc.collect()
        n_alive.append(sum(time() is not None for time in times))
        return execute(*these)

    monkeypatch.setattr(shared_tables, "read_shop", remember)
    monkeypatch.setattr(builder.BuildRun, "execute", look)
    split = {"folds": 3, "train_share": 0.6, "val_share": 0.2}
    build_folds(folder / "input", tmp_path / "out", tiny_config(split=split), backend="cpu")
    assert (len(times), n_alive) == (2, [0, 0, 0])


def test_folds_of_bare_events_with_bad_rows_equal_builds_with_their_settings(tmp_path):
    """Users and items have the codes of the cut log, and each fold its own rejected rows."""
    rows = [dict(row) for row in SHOP["transactions"]]
    for number in (5, 200, 400, 610):  # bad rows in each fold's time
        rows[number]["price"] = -1.0
    write_shop({"transactions": rows}, tmp_path / "input")
    inputs = {"on_bad_rows": "reject", "min_quality_score": 0.5}
    results = build_three(tmp_path, settings={"inputs": inputs})
    n_rejected = []
    for number, result in enumerate(results):
        config = DatasetConfig.model_validate(result.manifest.config)
        alone = build(tmp_path / "input", tmp_path / f"alone{number}", config, backend="cpu")
        assert alone.manifest.content_digest == result.manifest.content_digest
        assert alone.manifest.inputs == result.manifest.inputs
        rejects = [pq.read_table(r.output / "rejects.parquet") for r in (alone, result)]
        assert rejects[0].equals(rejects[1])
        n_rejected.append(rejects[0].num_rows)
    assert n_rejected[-1] == 4 and n_rejected == sorted(n_rejected)


def test_decoded_tables_that_are_lost_are_no_empty_log(folds, tmp_path, monkeypatch):
    folder, _ = folds
    monkeypatch.setattr(shared_tables.Checkpoints, "load", lambda *these: None)
    split = {"folds": 2, "train_share": 0.6, "val_share": 0.2}
    with pytest.raises(OutputError, match="decoded tables cannot be read back"):
        build_folds(folder / "input", tmp_path / "out", tiny_config(split=split), backend="cpu")


@pytest.mark.parametrize("words", [["audit", "INPUT"], ["validate"]])
def test_a_folder_of_folds_names_the_commands_for_each(folds, words):
    folder, _ = folds
    words = [str(folder / "input") if word == "INPUT" else word for word in words]
    result = run(*words, folder / "output")
    assert result.exit_code == 2
    commands = [line for line in result.stderr.splitlines() if line.startswith("gpu-dcgen ")]
    assert [command.rpartition("/")[2] for command in commands] == ["fold-0", "fold-1", "fold-2"]
    for command in commands:
        assert run(*shlex.split(command)[1:]).exit_code == 0


def open_for_training(folder: Path) -> Any:
    pytest.importorskip("torch", reason="pip install '.[torch]'")
    from gpu_dcgen.training.files import open_split

    return open_split(folder)


@pytest.mark.parametrize("read", [open_for_training, describe, read_documents])
def test_readers_of_datasets_name_the_folds_of_a_folder(folds, read):
    folder, _ = folds
    with pytest.raises(InputError, match="It holds 3 folds; name one of them: .*/output/fold-0, "):
        read(folder / "output")


def test_folds_are_named_in_their_order_and_only_where_there_are_some(tmp_path):
    for number in range(11):
        (tmp_path / f"fold-{number}").mkdir()
        (tmp_path / f"fold-{number}" / "manifest.json").touch()
    (tmp_path / "fold-one").mkdir()
    (tmp_path / "fold-one" / "manifest.json").touch()
    assert [path.name for path in list_folds(tmp_path)] == [f"fold-{n}" for n in range(11)]
    assert suggest_fold(tmp_path / "fold-0", "No dataset.") == "No dataset."
