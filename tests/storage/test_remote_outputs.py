"""A dataset at a URL is whole or has no manifest, and is that of a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.errors import ConfigError, InputError, OutputError
from gpu_dcgen.storage.integrity import validate
from gpu_dcgen.storage.remote import datasets
from gpu_dcgen.storage.remote import folder as storage
from gpu_dcgen.storage.remote import staging as outputs
from gpu_dcgen.storage.remote.folder import RemoteFolder
from gpu_dcgen.storage.remote.staging import LOCK, MANIFEST, UNFINISHED
from tests.support.builds import TIMED_FILES, RecordingTracker, fail_at_call, hash_files
from tests.support.storage import leftovers, publish


def fail_at_upload(monkeypatch: pytest.MonkeyPatch, at: int) -> list[tuple[Any, ...]]:
    """Let the `at`-th upload of a file fail; returns (remote folder, file, name) of each upload."""
    return fail_at_call(monkeypatch, RemoteFolder, "put", at)


def test_a_data_set_at_a_url_is_that_of_a_folder(output_url, bucket, shop, tmp_path):
    straight = publish(shop, tmp_path / "straight")
    result = publish(shop, output_url)
    assert (
        result.output == output_url
        and result.manifest.content_digest == straight.manifest.content_digest
    )
    remote = bucket.download("sets/one", tmp_path / "there")
    assert hash_files(remote) == hash_files(straight.output)
    assert json.loads((remote / MANIFEST).read_text()) == result.manifest.to_dict()
    assert (
        validate(remote, checksums=True)
        == validate(output_url, checksums=True)
        == validate(output_url)
        == []
    )
    assert not leftovers(tmp_path) and not {LOCK, UNFINISHED} & set(bucket.names("sets/one"))


def test_the_manifest_comes_last(output_url, bucket, shop, monkeypatch):
    put, before = RemoteFolder.put, []

    def watched(self: RemoteFolder, file: Path, name: str) -> None:
        if name == MANIFEST:
            before.extend(bucket.names("sets/one"))
        else:
            assert MANIFEST not in bucket.names("sets/one")
        put(self, file, name)

    monkeypatch.setattr(RemoteFolder, "put", watched)
    manifest = publish(shop, output_url).manifest
    assert set(before) == {*manifest.files, LOCK, UNFINISHED}


def test_what_is_there_is_replaced_only_on_request(output_url, bucket, shop, tmp_path):
    first = publish(shop, output_url)
    bucket.put("sets/one/certificate.json", b"of the old set")
    bucket.put("sets/one/train_dataset.parquet/part-99999.parquet", b"of the old set")
    bucket.put("sets/one-more/file", b"of somebody")
    with pytest.raises(
        OutputError,
        match="already exists.\nChoose another OUTPUT, or replace it with overwrite=True",
    ):
        publish(shop, output_url, seed=7)
    second = publish(shop, output_url, seed=7, overwrite=True)
    assert first.manifest.content_digest != second.manifest.content_digest
    assert set(bucket.names("sets/one")) == {*second.manifest.files, MANIFEST}
    assert validate(output_url, checksums=True) == []
    assert bucket.get("sets/one-more/file") == b"of somebody"


def test_a_folder_that_is_no_data_set_is_not_touched(output_url, bucket, shop, tmp_path):
    bucket.put("sets/one/thesis.txt", b"ten years of work")
    for overwrite in (False, True):
        with pytest.raises(
            OutputError, match="is not a dataset .it has no manifest.json, but thesis.txt."
        ):
            publish(shop, output_url, overwrite=overwrite)
    assert bucket.names("sets/one") == ["thesis.txt"] and not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("s3://shop", "is a whole bucket"),
        ("https://host/sets/one", "a web server cannot be written to"),
        ("s3://no-such-bucket/one", "no such bucket"),
    ],
)
def test_where_nothing_can_be_published_nothing_is_built(where, text, bucket, shop, tmp_path):
    with pytest.raises(OutputError, match=text):
        publish(shop, where)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("at", [1, 4, 9, "manifest"])
def test_an_upload_that_ends_early_is_gone_on_from(
    at, output_url, bucket, shop, tmp_path, monkeypatch
):
    straight = publish(shop, tmp_path / "straight")
    at = len(straight.manifest.files) + 1 if at == "manifest" else at
    with monkeypatch.context() as patched:
        patched.setattr(outputs, "_THREADS", 1)
        fail_at_upload(patched, at)
        with pytest.raises(RuntimeError, match="died"):
            publish(shop, output_url)
    remote = set(bucket.names("sets/one"))
    assert UNFINISHED in remote and not {MANIFEST, LOCK} & remote and len(remote) >= at
    with pytest.raises(InputError, match="manifest.json: not found"):
        validate(output_url)
    with pytest.raises(
        OutputError, match="Resume with resume=True, replace it with overwrite=True"
    ):
        publish(shop, output_url)
    uploads = fail_at_upload(monkeypatch, at=-1)
    publish(shop, output_url, resume=True)
    assert hash_files(bucket.download("sets/one", tmp_path / "there")) == hash_files(
        straight.output
    )
    assert validate(output_url, checksums=True) == [] and not leftovers(tmp_path)
    assert not {name for _, _, name in uploads} & (remote - TIMED_FILES), (
        "what was there was sent again"
    )


def test_an_overwriting_upload_that_ends_early_leaves_no_manifest(
    output_url, bucket, shop, tmp_path, monkeypatch
):
    publish(shop, output_url)
    with monkeypatch.context() as patched:
        fail_at_upload(patched, 3)
        with pytest.raises(RuntimeError, match="died"):
            publish(shop, output_url, seed=7, overwrite=True)
    assert MANIFEST not in bucket.names("sets/one")
    second = publish(shop, output_url, seed=7, overwrite=True)
    assert set(bucket.names("sets/one")) == {*second.manifest.files, MANIFEST}
    assert validate(output_url, checksums=True) == []


def test_a_build_that_fails_leaves_the_old_data_set(output_url, bucket, shop, monkeypatch):
    publish(shop, output_url)
    before = {name: bucket.get(f"sets/one/{name}") for name in bucket.names("sets/one")}
    monkeypatch.setattr(pipeline, "write_tables", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(shop, output_url, overwrite=True)
    assert {name: bucket.get(f"sets/one/{name}") for name in bucket.names("sets/one")} == before


def test_files_that_are_there_already_are_not_sent_again(output_url, shop, monkeypatch):
    publish(shop, output_url)
    uploads = fail_at_upload(monkeypatch, at=-1)
    publish(shop, output_url, overwrite=True)
    assert {name for _, _, name in uploads} <= TIMED_FILES


@pytest.mark.parametrize("has_md5", [True, False], ids=["the storage tells MD5", "it does not"])
def test_what_arrives_otherwise_is_not_published(has_md5, output_url, bucket, shop, monkeypatch):
    put = RemoteFolder.put
    if not has_md5:
        monkeypatch.setattr(storage, "_reported_md5", lambda _: None)

    def flipping(self: RemoteFolder, file: Path, name: str) -> None:
        if name != "vocabulary.json":
            return put(self, file, name)
        damaged = bytearray(file.read_bytes())
        damaged[7] ^= 1
        return bucket.put(f"sets/one/{name}", bytes(damaged))

    with monkeypatch.context() as patched:
        patched.setattr(RemoteFolder, "put", flipping)
        with pytest.raises(OutputError, match="vocabulary.json: differs from the file"):
            publish(shop, output_url)
    assert MANIFEST not in bucket.names("sets/one")
    publish(shop, output_url, resume=True)
    assert validate(output_url, checksums=True) == []


def test_an_md5_that_is_of_something_else_is_no_fault(output_url, shop, monkeypatch):
    """As that of an object that its storage encrypts."""
    monkeypatch.setattr(storage, "_reported_md5", lambda _: "0" * 32)
    publish(shop, output_url)
    assert validate(output_url, checksums=True) == []


def test_checksums_are_known_in_the_words_of_three_storages():
    md5 = hashlib.md5(b"x").digest()
    assert storage._reported_md5({"ETag": f'"{md5.hex()}"'}) == md5.hex()
    assert (
        storage._reported_md5({"md5Hash": "nd1eSdSNKyYJz3/p0eZ5xA==", "etag": "CJ"})
        == "9ddd5e49d48d2b2609cf7fe9d1e679c4"
    )
    assert storage._reported_md5({"content_settings": {"content_md5": bytearray(md5)}}) == md5.hex()
    assert (
        storage._reported_md5({"ETag": f'"{md5.hex()}-2"'})
        is storage._reported_md5({})
        is storage._reported_md5({"content_settings": None})
        is None
    )


def test_what_the_old_set_leaves_is_told_and_no_failure(output_url, bucket, shop, monkeypatch):
    publish(shop, output_url)
    bucket.put("sets/one/certificate.json", b"of the old set")
    remove = RemoteFolder.remove

    def refused(self: RemoteFolder, names: list[str]) -> None:
        if "certificate.json" in names:
            raise OutputError("not allowed")
        remove(self, names)

    monkeypatch.setattr(RemoteFolder, "remove", refused)
    tracker = RecordingTracker()
    publish(shop, output_url, overwrite=True, progress=tracker)
    assert (
        "published, but files of the previous dataset could not be removed: not allowed"
        in tracker.texts
    )
    assert validate(output_url) == []


def test_the_workplace_can_be_chosen_and_is_for_urls(
    output_url, bucket, shop, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        fail_at_upload(patched, 1)
        with pytest.raises(RuntimeError):
            publish(shop, output_url, workplace=tmp_path / "place")
    (staging_folder,) = (tmp_path / "place").glob(".one-*.staging")
    assert {path.name for path in staging_folder.iterdir()} >= {"data", "checkpoints"}
    publish(shop, output_url, workplace=tmp_path / "place", resume=True)
    assert [path.name for path in (tmp_path / "place").iterdir()] == [".gpu-dcgen.identity"]
    with pytest.raises(ConfigError, match="a local OUTPUT is built beside itself"):
        publish(shop, tmp_path / "output", workplace=tmp_path / "place")


def test_a_workplace_that_others_may_write_to_is_refused(output_url, shop, tmp_path):
    outputs.default_workplace().mkdir()
    outputs.default_workplace().chmod(0o777)
    with pytest.raises(OutputError, match="other users may write to it"):
        publish(shop, output_url)


def test_long_footers_are_read_whole(output_url, shop, monkeypatch):
    publish(shop, output_url)
    monkeypatch.setattr(datasets, "_TAIL_BYTES", 100)
    assert validate(output_url) == []


@pytest.mark.parametrize("damage", ["gone", "longer", "a bit", "a footer"])
def test_validation_finds_damage_at_a_url(damage, output_url, bucket, shop):
    publish(shop, output_url)
    name = "item_vocabulary.parquet"
    whole = bucket.get(f"sets/one/{name}")
    middle = bytearray(whole)
    middle[10 if damage == "a bit" else -6] ^= 1
    damaged = {"longer": whole + b"x", "a bit": bytes(middle), "a footer": bytes(middle)}
    bucket.put(f"sets/one/{name}", damaged[damage]) if damage in damaged else bucket.remove(
        f"sets/one/{name}"
    )
    result = CliRunner().invoke(app, ["validate", output_url, "--checksums"])
    text = {
        "gone": "is missing",
        "longer": "bytes, ",
        "a bit": "its content changed",
        "a footer": "its footer cannot be read",
    }
    assert (
        result.exit_code == 3
        and result.output.startswith(f"{name}: ")
        and text[damage] in result.output
    )


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "tables", "URL"],
        ["probe", "URL"],
        ["plan", "URL"],
        ["doctor", "URL"],
        ["export", "URL", "x", "--format", "inter"],
    ],
)
def test_other_commands_ask_for_a_copy(command, tmp_path):
    result = CliRunner().invoke(app, [part.replace("URL", "s3://bucket/one") for part in command])
    assert result.exit_code == 2
    assert "Copy it to a local folder first" in " ".join(result.output.replace("│", " ").split())


def test_training_asks_for_a_copy():
    pytest.importorskip("torch", reason="pip install '.[torch]'")
    from gpu_dcgen.training.files import open_split

    with pytest.raises(ConfigError, match="Copy it to a local folder first"):
        open_split("s3://bucket/one", "train")
