"""certificate.json: what it holds, when it verifies, and the commands for it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from gpu_dcgen.auditing import audit, read_key, verify
from gpu_dcgen.auditing.rules import RULES
from gpu_dcgen.errors import InputError, OutputError
from tests.support.audited_shops import build_shop, shop_with_views
from tests.support.command_line import run

KEY = b"sixteen bytes or more"


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """A folder with input, output and certificates: plain.json and keyed.json."""
    folder = tmp_path_factory.mktemp("audited")
    output = build_shop(shop_with_views(), folder)
    audit(folder / "input", output, certificate=folder / "plain.json")
    audit(folder / "input", output, certificate=folder / "keyed.json", key=KEY)
    return folder


def test_the_certificate_describes_the_dataset_and_its_inputs(audited):
    certificate = json.loads((audited / "plain.json").read_text("utf-8"))
    manifest = json.loads((audited / "output" / "manifest.json").read_text("utf-8"))
    assert (
        certificate["content_digest"] == manifest["content_digest"]
        and certificate["digests"] == manifest["digests"]
    )
    assert (
        certificate["inputs"] == manifest["inputs"]["files"]
        and certificate["config"] == manifest["config"]
    )
    assert {entry["file"] for entry in certificate["outputs"]} == manifest["files"].keys() | {
        "manifest.json"
    }
    assert dt.datetime.fromisoformat(certificate["audited_at"]).tzinfo is not None
    proves = certificate["signature"]["proves"]
    assert "whoever can change the certificate can compute the value again" in proves


def test_an_untouched_certificate_and_dataset_verify(audited):
    assert verify(audited / "plain.json", audited / "output") == []
    assert verify(audited / "keyed.json", audited / "output", KEY) == []


@pytest.mark.parametrize(("name", "key"), [("plain.json", None), ("keyed.json", KEY)])
def test_a_changed_certificate_does_not_verify(name, key, audited, tmp_path):
    certificate = json.loads((audited / name).read_text("utf-8"))
    certificate["checks"][0]["n_checked"] += 1
    (tmp_path / name).write_text(json.dumps(certificate), "utf-8")
    assert "the signature does not match" in verify(tmp_path / name, key=key)[0]


def test_another_key_does_not_verify(audited):
    assert (
        "the signature does not match"
        in verify(audited / "keyed.json", key=b"another key of 16 bytes")[0]
    )
    with pytest.raises(InputError, match="was signed with a key"):
        verify(audited / "keyed.json")
    with pytest.raises(InputError, match="was signed without a key"):
        verify(audited / "plain.json", key=KEY)


def test_files_that_changed_after_the_audit_are_named(tmp_path):
    output = build_shop(shop_with_views(), tmp_path)
    audit(tmp_path / "input", output)
    (output / "vocabulary.json").write_text("{}")
    (output / "item_vocabulary.parquet").unlink()
    (output / "more.txt").write_text("more")
    assert verify(output / "certificate.json", output) == [
        "item_vocabulary.parquet: is missing",
        "more.txt: was added after the audit",
        "vocabulary.json: was changed after the audit",
    ]


def test_a_second_audit_of_the_same_folder_sees_the_same(tmp_path):
    """The certificate beside the dataset is no file of it."""
    output = build_shop(shop_with_views(), tmp_path)
    first, second = (audit(tmp_path / "input", output) for _ in range(2))
    for certificate in (first, second):
        del certificate["audited_at"], certificate["signature"]
    assert first == second


def test_a_key_must_exist_and_be_long_enough(tmp_path):
    with pytest.raises(InputError, match="the key cannot be read"):
        read_key(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(InputError, match="has 5 bytes; expected at least 16"):
        read_key(tmp_path / "short")
    assert read_key(None) is None


def test_a_certificate_that_cannot_be_written_is_an_error(audited, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the certificate cannot be written"):
        audit(
            audited / "input",
            audited / "output",
            certificate=tmp_path / "file" / "folder.json",
        )


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"signature": {}}'])
def test_a_file_that_is_no_certificate_is_refused(content, tmp_path):
    (tmp_path / "certificate.json").write_text(content)
    with pytest.raises(InputError, match="is no certificate of gpu-dcgen"):
        verify(tmp_path / "certificate.json")


# The commands


def test_the_command_shows_every_rule_and_verifies(audited, tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    path = tmp_path / "certificate.json"
    result = run(
        "audit",
        audited / "input",
        audited / "output",
        "--certificate",
        path,
        "--key",
        tmp_path / "key",
        "--sample",
        5,
    )
    assert result.exit_code == 0, result.output
    assert "Every rule holds." in result.stdout and str(path) in result.stdout.replace("\n", "")
    assert all(rule in result.stdout for rule in RULES)
    checked = run("verify", path, audited / "output", "--key", tmp_path / "key")
    assert (checked.exit_code, checked.stdout.split(":")[1][:10]) == (0, " unchanged")


def test_a_rule_that_does_not_hold_is_exit_3_and_shown(tmp_path):
    output = build_shop(shop_with_views(), tmp_path)
    manifest = json.loads((output / "manifest.json").read_text("utf-8"))
    manifest["ledger"]["history"] += 1
    (output / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    result = run("audit", tmp_path / "input", output)
    assert result.exit_code == 3
    assert (
        f"1 of {len(RULES)} rules do not hold." in result.stdout
        and "counts (D7, D20): 1 wrong" in result.stdout
    )
    events = [
        json.loads(line)
        for line in run("audit", tmp_path / "input", output, "--json").stdout.splitlines()
    ]
    assert events[-1]["event"] == "audited" and events[-1]["certificate"]["verdict"] == "fails"
    refused = run("verify", output / "certificate.json", output)
    assert refused.exit_code == 3 and "the audit's verdict is 'fails'" in refused.stdout


def test_bad_input_is_exit_2(tmp_path):
    assert run("audit", tmp_path, tmp_path).exit_code == 2
    assert run("verify", tmp_path / "none.json").exit_code == 2
