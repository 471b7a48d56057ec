"""`gpu-dcgen validate` finds what is missing, cut, swapped, or a single flipped bit."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import InputError
from gpu_dcgen.storage.integrity import validate
from tests.support.shops import random_shop, tiny_config, write_shop


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_shop(random_shop(4, n_users=16, n_items=24, n_rows=260), folder / "input")
    return build(folder / "input", folder / "output", tiny_config(), backend="cpu").output


@pytest.fixture
def dataset(published, tmp_path) -> Path:
    return shutil.copytree(published, tmp_path / "dataset")


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_published_is_valid(dataset):
    assert validate(dataset) == validate(dataset, checksums=True) == []


def test_every_file_is_listed(dataset):
    manifest = json.loads((dataset / "manifest.json").read_text())
    names = {path.relative_to(dataset).as_posix() for path in files_of(dataset)} - {"manifest.json"}
    assert manifest["files"].keys() == manifest["checksums"].keys() == names
    assert {
        "quality_report.json",
        "build_log.jsonl",
        "vocabulary.json",
        "train_dataset.parquet/part-00000.parquet",
    } <= names


def test_a_flipped_bit_is_found_in_every_file(dataset):
    chance = random.Random(0)
    for path in files_of(dataset):
        content = path.read_bytes()
        for _ in range(5):
            bit = chance.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            problems = validate(dataset, checksums=True)
            name = path.relative_to(dataset).as_posix()
            assert [problem.partition(":")[0] for problem in problems][:1] == [name], (
                name,
                bit,
                problems,
            )
        path.write_bytes(content)


@pytest.mark.parametrize("checksums", [False, True])
def test_a_missing_and_a_cut_file_are_named(checksums, dataset):
    (dataset / "vocabulary.json").unlink()
    part = dataset / "train_dataset.parquet" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-3])
    left = part.stat().st_size
    assert validate(dataset, checksums=checksums) == [
        f"{part.relative_to(dataset)}: has {left:,} bytes, {left + 3:,} in the manifest",
        "vocabulary.json: is missing",
    ]


def test_a_footer_that_cannot_be_read_is_seen_without_checksums(dataset):
    path = dataset / "item_vocabulary.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"PAR2")
    (problem,) = validate(dataset)
    assert problem.startswith("item_vocabulary.parquet: its footer cannot be read")


def test_what_was_added_later_is_nobodys_fault(dataset):
    (dataset / "report.html").write_text("<p>")
    assert validate(dataset, checksums=True) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', "\x00"])
def test_a_manifest_that_makes_no_sense_is_a_finding(text, dataset):
    (dataset / "manifest.json").write_text(text)
    (problem,) = validate(dataset)
    assert problem.startswith("manifest.json: is not valid")


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read"):
        validate(tmp_path)


def test_the_command_tells_by_its_exit_code(dataset):
    result = CliRunner().invoke(app, ["validate", str(dataset), "--checksums"])
    assert (result.exit_code, result.output) == (
        0,
        f"{dataset}: every file is present and unchanged.\n",
    )
    (dataset / "vocabulary.json").write_text("{}")
    result = CliRunner().invoke(app, ["validate", str(dataset)])
    assert result.exit_code == 3
    assert result.output.startswith("vocabulary.json: has 2 bytes")
