"""manifest.json and quality_report.json as models: what is read comes out as it was, what lacks a
part is refused.
"""

from __future__ import annotations

import json

import pytest

from gpu_dcgen import build
from gpu_dcgen.contract.manifest import Manifest
from gpu_dcgen.contract.quality_report import QUALITY_REPORT, QualityReport
from gpu_dcgen.errors import InputError
from tests.support.shops import random_shop, tiny_config, write_shop


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    return build(write_shop(random_shop(1), folder / "shop"), folder / "out", tiny_config())


def test_a_manifest_is_written_as_it_was_read(built):
    path = built.output / "manifest.json"
    assert Manifest.load(path).to_json().encode() == path.read_bytes()
    assert built.manifest == Manifest.load(path)


def test_a_quality_report_is_written_as_it_was_read(built):
    path = built.output / QUALITY_REPORT
    assert QualityReport.load(path).to_json().encode() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "model", "open_sections"),
    [
        ("manifest.json", Manifest, ["ledger"]),
        (QUALITY_REPORT, QualityReport, ["funnel.transactions"]),
    ],
)
def test_every_value_has_a_typed_field(built, name, model, open_sections):
    """Extra keys are for other versions and for reasons: this version declares all others."""

    def sections(value, path=()):
        if isinstance(value, dict):
            for key, entry in value.items():
                yield from sections(entry, (*path, key))
        elif isinstance(value, list):
            for entry in value:
                yield from sections(entry, path)
        elif hasattr(value, "model_extra"):
            yield ".".join(path), value
            yield from sections(dict(value), path)

    sections_by_name = dict(sections(model.load(built.output / name)))
    assert len(sections_by_name) > 10
    assert [
        path for path, section in sections_by_name.items() if section.model_extra
    ] == open_sections


def test_the_ledger_adds_up(built):
    ledger = built.manifest.ledger
    n_accepted = built.manifest.inputs.accepted_transactions
    assert sum(ledger.emitted.values()) + sum(ledger.losses.values()) == n_accepted


def test_keys_of_other_versions_are_kept(built):
    content = json.loads((built.output / "manifest.json").read_text())
    content["counts"]["train"]["bytes"] = [1.0, 1]
    content["since"] = {"a": None}
    read = Manifest.parse(content, built.output / "manifest.json")
    assert json.loads(read.to_json()) == content
    assert read.model_copy(update={"seed": 7}).to_dict() == content | {"seed": 7}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("counts"), "counts: Field required"),
        (lambda m: m["counts"]["val"].pop("rows"), "counts.val.rows: Field required"),
        (lambda m: m["counts"]["val"].update(rows="9"), "counts.val.rows: Input should be a valid"),
        (lambda m: m["inputs"].update(files=[7]), "inputs.files.0: Input should be a valid dict"),
    ],
)
def test_a_manifest_without_a_part_is_refused(built, change, words, tmp_path):
    content = json.loads((built.output / "manifest.json").read_text())
    change(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"is no manifest of this version .{words}"):
        Manifest.load(tmp_path / "manifest.json")
