"""A log that grows: `append` gives what a build from the start gives, and makes only what has
changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpu_dcgen.auditing import audit
from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator import builder as dataset_generator
from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.dataset_generator.builder import append, build
from gpu_dcgen.dataset_generator.reuse import PreviousDataset
from gpu_dcgen.errors import InputError
from gpu_dcgen.outputs import part_writer
from gpu_dcgen.storage.integrity import validate
from tests.support.growing import (
    TODAY,
    build_and_append,
    build_once,
    cut_log,
    growing_config,
    list_inodes,
    make_log,
    select_rows,
    select_split,
)
from tests.support.shops import DAY, write_shop

STRATEGIES = ("temporal", "hash")
SHAPES: dict[str, dict[str, Any]] = {
    "as usual": {},
    "one file a split": {"output": {"groups_per_part": 10_000}},
    "n-tuples": {"output": {"shape": "n_tuple"}},
    "shuffled": {"output": {"order": "shuffled"}},
    "resampled": {"category_balancing": {"mode": "resample"}},
    "unbalanced": {"category_balancing": {"mode": "off"}},
    "no prices": {"inputs": {"price": "none"}},
    "random only": {"negative_sampling": {"hard_negatives_per_positive": 0}},
    "lists of candidates": {"output": {"hard_candidates": True}},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_append_gives_what_a_build_from_the_start_gives(strategy, seed, tmp_path):
    tables = make_log(seed)
    old, whole, new = build_and_append(
        tmp_path, growing_config(strategy), tables, cut_log(tables, TODAY)
    )
    assert new.manifest.digests == whole.manifest.digests
    assert new.manifest.counts == whole.manifest.counts != old.manifest.counts
    assert {"train", "val"} == new.manifest.append.reused.keys()
    assert {"test"} == new.manifest.append.rebuilt.keys()
    assert "its window ends with 2018-11-1" in new.manifest.append.rebuilt["test"]
    assert validate(new.output, checksums=True) == []
    added = new.manifest.vocabulary.users - old.manifest.vocabulary.users
    assert added >= 1 and new.manifest.vocabulary.items > old.manifest.vocabulary.items


def test_rare_users_that_are_rare_no_more_are_in_test_alone(tmp_path):
    """Whoever reaches the minimum by new rows is let in where those rows are."""
    counts = []
    for seed in range(4):
        tables = make_log(seed)
        folder = tmp_path / str(seed)
        old, _, new = build_and_append(
            folder,
            growing_config(filtering={"min_user_interactions": 9}),
            tables,
            cut_log(tables, TODAY),
        )
        assert new.manifest.append.reused.keys() == {"train", "val"}
        counts.append(new.manifest.vocabulary.users - old.manifest.vocabulary.users)
    assert max(counts) > 1, "nobody crosses the threshold but the new customer"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_data_set_can_grow(shape, tmp_path):
    tables = make_log()
    _, whole, new = build_and_append(
        tmp_path, growing_config(**SHAPES[shape]), tables, cut_log(tables, TODAY)
    )
    assert new.manifest.digests == whole.manifest.digests
    assert new.manifest.append.reused.keys() == {"train", "val"}


def test_what_is_kept_is_the_same_file(tmp_path):
    config, tables = growing_config(output={"groups_per_part": 7}), make_log()
    old = build_once(cut_log(tables, TODAY), tmp_path / "tables", tmp_path / "dataset", config)
    before = list_inodes(old.output)
    new = append(write_shop(tables, tmp_path / "tables"), old.output, backend="cpu")
    after = list_inodes(new.output)
    for split in ("train", "val"):
        assert (
            select_split(after, split) == select_split(before, split)
            and len(select_split(after, split)) > 1
        )
    assert not set(select_split(after, "test").values()) & set(before.values())
    assert not (tmp_path / ".dataset.staging").exists()


def test_a_data_set_can_grow_again_and_again(tmp_path):
    config, tables = growing_config(), make_log()
    first = build(
        write_shop(cut_log(tables, TODAY - 5), tmp_path / "tables"),
        tmp_path / "dataset",
        config,
        backend="cpu",
    )
    for day in (TODAY, TODAY + 4, 60):
        now = tables if day == 60 else cut_log(tables, day)
        new = append(write_shop(now, tmp_path / "tables"), tmp_path / "dataset", backend="cpu")
        assert new.manifest.append.reused == dict.fromkeys(
            ("train", "val"), first.manifest.generated_at
        )
    whole = build(tmp_path / "tables", tmp_path / "whole", config, backend="cpu")
    assert new.manifest.digests == whole.manifest.digests
    again = append(tmp_path / "tables", tmp_path / "dataset", backend="cpu")
    assert again.manifest.append.rebuilt == {} and again.manifest.digests == whole.manifest.digests


def test_the_report_counts_the_whole(tmp_path):
    """But for negatives that are bought later: reused splits count those of the earlier build."""
    tables = make_log()
    _, whole, new = build_and_append(tmp_path, growing_config(), tables, cut_log(tables, TODAY))
    whole_content, new_content = (
        json.loads((result.output / "quality_report.json").read_text()) for result in (whole, new)
    )
    assert len(whole_report := without_later(whole_content)) > 5
    assert without_later(new_content) == whole_report


def test_the_weeks_of_the_report_count_from_the_first_row(tmp_path):
    """Also where that row is of a customer too rare to be in the dataset: it moves no sample, and
    every week.
    """
    tables = make_log()
    first = min(row["t_dat"] for row in tables["transactions"]) // DAY * DAY
    for row in tables["transactions"]:
        if row["t_dat"] < first + DAY:
            row["t_dat"] = first + DAY - 1
    rare = {
        **tables["transactions"][0],
        "t_dat": first,
        "customer_id": tables["customers"][-1]["customer_id"],
    }
    more = {**tables, "transactions": [*tables["transactions"], rare]}
    _, whole, new = build_and_append(tmp_path, growing_config(), more, tables)
    assert new.manifest.digests == whole.manifest.digests
    whole_content, new_content = (
        json.loads((result.output / "quality_report.json").read_text()) for result in (whole, new)
    )
    assert without_later(new_content) == without_later(whole_content)
    assert (
        "the log begins with 2018-09-20 instead of 2018-09-20 23:59:59"
        in new.manifest.append.rebuilt["val"]
    )


def without_later(value: Any) -> Any:
    """A report without what tells of later purchases, of the machine or of the day."""
    if isinstance(value, list):
        return [
            without_later(entry)
            for entry in value
            if not (isinstance(entry, dict) and is_left_out(entry))
        ]
    if isinstance(value, dict):
        return {
            name: without_later(entry) for name, entry in value.items() if name not in NOT_COMPARED
        }
    return value


def is_left_out(gate: dict[str, Any]) -> bool:
    return gate.get("name") in NOT_COMPARED or gate.get("section") in NOT_COMPARED


NOT_COMPARED = ("later_bought", "later_bought_share", "performance", "generated_at")


def test_the_audit_holds_for_what_has_grown(tmp_path):
    tables = make_log()
    _, _, new = build_and_append(tmp_path, growing_config(), tables, cut_log(tables, TODAY))
    certificate = audit(tmp_path / "now", new.output)
    assert certificate["verdict"] == "holds", certificate["checks"]


# -- what can go wrong


def test_new_rows_alone_are_refused(tmp_path):
    tables = make_log()
    old = build_once(
        cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config()
    )
    only = {**tables, "transactions": select_rows(tables, TODAY, 99)}
    with pytest.raises(InputError, match="INPUT must hold the old rows and the new ones"):
        append(write_shop(only, tmp_path / "new"), old.output, backend="cpu")
    assert validate(old.output, checksums=True) == []
    assert not (tmp_path / ".dataset.staging").exists()


def test_a_data_set_that_says_nothing_of_itself_is_refused(tmp_path):
    tables = write_shop(make_log(), tmp_path / "tables")
    with pytest.raises(InputError, match="manifest.json: does not exist; expected a dataset"):
        append(tables, tmp_path / "nothing")
    old = build(
        tables, tmp_path / "dataset", growing_config(output={"appendable": False}), backend="cpu"
    )
    assert not (old.output / "append.json").exists()
    with pytest.raises(InputError, match="built without output.appendable"):
        append(tables, old.output)
    for content, fault in (
        ("[]", "expected a JSON object, found list"),
        ("{}", "cannot be understood"),
        ("{", "not valid JSON"),
    ):
        (old.output / "append.json").write_text(content)
        with pytest.raises(InputError, match=f"{fault}.*\\n"):
            append(tables, old.output)


def test_fingerprints_that_were_changed_are_refused(tmp_path):
    """They go into the new manifest, and the files of the split do not prove them."""
    tables = write_shop(make_log(), tmp_path / "tables")
    old = build(tables, tmp_path / "dataset", growing_config(), backend="cpu").output
    content = json.loads((old / "append.json").read_text())
    content["splits"]["train"]["digest"]["label"] = "0" * 16
    (old / "append.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match="append.json: was changed after the dataset was published"
    ):
        append(tables, old, backend="cpu")


@contextmanager
def an_append_that_dies(tmp_path, monkeypatch) -> Iterator[Path]:
    """The dataset that stands after an append to it has died; while the context lasts, so does
    every other build.
    """
    tables = make_log()
    old = build_once(
        cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config()
    )
    write_shop(tables, tmp_path / "now")
    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "write_tables", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            append(tmp_path / "now", old.output, backend="cpu")
        yield old.output


def test_a_build_that_dies_leaves_what_it_linked_alone(tmp_path, monkeypatch):
    """Linked files belong to the published dataset: a resumed build must not write into them."""
    with an_append_that_dies(tmp_path, monkeypatch) as old:
        linked = list_inodes(tmp_path / ".dataset.staging" / "data")
        assert set(select_split(linked, "train").items()) <= set(list_inodes(old).items())
        with pytest.raises(ZeroDivisionError):
            build(
                tmp_path / "now", old, growing_config(), backend="cpu", overwrite=True, resume=True
            )
        assert validate(old, checksums=True) == []
    new = append(tmp_path / "now", old, backend="cpu", resume=True)
    whole = build_once(make_log(), tmp_path / "now", tmp_path / "whole", growing_config())
    assert (
        new.manifest.digests == whole.manifest.digests
        and validate(new.output, checksums=True) == []
    )


def test_an_append_that_died_is_gone_on_from(tmp_path, monkeypatch):
    with an_append_that_dies(tmp_path, monkeypatch) as old:
        pass
    calls = []
    monkeypatch.setattr(part_writer._SampleWriter, "_prepare", lambda *_: calls.append(1))
    new = append(tmp_path / "now", old, backend="cpu", resume=True)
    assert not calls and new.manifest.append.reused.keys() == {"train", "val"}
    assert validate(new.output, checksums=True) == []


def test_resources_can_be_others(tmp_path):
    tables = make_log()
    old = build_once(
        cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config()
    )
    new = append(
        write_shop(tables, tmp_path / "now"),
        old.output,
        backend="cpu",
        resources={"num_workers": 1},
    )
    assert new.manifest.config["resources"]["num_workers"] == 1 and new.manifest.append.reused
    with pytest.raises(
        dataset_generator.ConfigError,
        match=r"^resources.num_workers: .*, found -1\.\nGive another value",
    ):
        append(tmp_path / "now", old.output, resources={"num_workers": -1})


def test_who_works_is_said_anew(tmp_path, monkeypatch):
    """A dataset that a cluster built grows without it, where the command says by whom."""
    tables = write_shop(cut_log(make_log(), TODAY), tmp_path / "tables")
    old = build(tables, tmp_path / "dataset", growing_config(), backend="cpu").output
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["config"]["resources"] |= {
        "distributed_processing": True,
        "scheduler": "tcp://gone:8786",
    }
    (old / "manifest.json").write_text(json.dumps(manifest))
    asked = []
    monkeypatch.setattr(
        dataset_generator, "append", lambda *_, resources, **__: asked.append(resources) or 1 / 0
    )
    for options in (["--threads", "1"], ["--workers", "2"], ["--scheduler", "tcp://new:8786"], []):
        CliRunner().invoke(app, ["append", str(tables), str(old), *options])
    resources = [PreviousDataset(old).config(given).resources for given in asked]
    assert [(entry.distributed_processing, entry.scheduler) for entry in resources] == [
        (False, None),
        (True, None),
        (True, "tcp://new:8786"),
        (True, "tcp://gone:8786"),
    ]


def test_the_command_says_what_was_kept_and_why_not(tmp_path):
    tables = make_log()
    build_once(cut_log(tables, TODAY), tmp_path / "before", tmp_path / "dataset", growing_config())
    now = str(write_shop(tables, tmp_path / "now"))
    shown = CliRunner().invoke(
        app, ["append", now, str(tmp_path / "dataset"), "--backend", "cpu", "--threads", "1"]
    )
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert (
        "; reused " in words
        and "reused train, val" in words
        and "test rebuilt its window ends with 2018-11-" in words
    )
    shown_json = CliRunner().invoke(
        app, ["append", now, str(tmp_path / "dataset"), "--backend", "cpu", "--json"]
    )
    (built,) = [
        event
        for event in map(json.loads, shown_json.stdout.splitlines())
        if event["event"] == "built"
    ]
    assert built["manifest"]["append"]["anew"] == {}
    refused = CliRunner().invoke(app, ["append", now, str(tmp_path / "nothing")])
    assert refused.exit_code == 2 and "Give the folder of a dataset" in refused.stderr
