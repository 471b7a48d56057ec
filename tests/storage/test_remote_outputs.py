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
from gpu_dcgen.dataset_generator.builder import BuildResult, build
from gpu_dcgen.errors import ConfigError, InputError, OutputError
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.storage.integrity import validate
from gpu_dcgen.storage.remote import datasets
from gpu_dcgen.storage.remote import folder as storage
from gpu_dcgen.storage.remote import staging as outputs
from gpu_dcgen.storage.remote.folder import RemoteFolder
from gpu_dcgen.storage.remote.staging import LOCK, MANIFEST, UNFINISHED
from tests.support.shops import random_shop, tiny_config, write_shop
from tests.support.storage import Bucket, bucket, credentials, server  # noqa: F401 - fixtures

NOW = 1_700_000_000_000_000_000
TELLING = {
    MANIFEST,
    "quality_report.json",
    "build_log.jsonl",
    "junit.xml",
    "append.json",
}  # of times


class Listener(ProgressTracker):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, level: str, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return write_shop(
        random_shop(1, n_users=16, n_items=24, n_rows=260), tmp_path_factory.mktemp("shop")
    )


@pytest.fixture
def url(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    monkeypatch.setattr(pipeline.time, "time_ns", lambda: NOW)
    return f"{bucket.url}/sets/one"


def made(shop: Path, where: Path | str, seed: int = 42, **options: Any) -> BuildResult:
    return build(shop, where, tiny_config(seed=seed), backend="cpu", **options)


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of a dataset's files but for those that tell of times."""
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name not in TELLING
    }


def dies(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> list[str]:
    """Have the `at`-th call of a method of RemoteFolder end the build; returns the names of the files it was called for."""
    original, names = getattr(RemoteFolder, name), []

    def dying(self: RemoteFolder, *arguments: Any, **options: Any) -> Any:
        names.append(arguments[-1] if name == "put" else arguments[0])
        if len(names) == at:
            raise RuntimeError("died")
        return original(self, *arguments, **options)

    monkeypatch.setattr(RemoteFolder, name, dying)
    return names


def left_here(tmp_path: Path) -> list[str]:
    """What builds have left in their workplace."""
    return sorted(
        path.name
        for path in tmp_path.glob("temporary/gpu-dcgen-*/*")
        if path.name != ".gpu-dcgen.identity"
    )


def test_a_data_set_at_a_url_is_that_of_a_folder(url, bucket, shop, tmp_path):  # noqa: F811
    straight = made(shop, tmp_path / "straight")
    result = made(shop, url)
    assert (
        result.output == url
        and result.manifest.content_digest == straight.manifest.content_digest
    )
    there = bucket.download("sets/one", tmp_path / "there")
    assert content(there) == content(straight.output)
    assert json.loads((there / MANIFEST).read_text()) == result.manifest.to_dict()
    assert validate(there, checksums=True) == validate(url, checksums=True) == validate(url) == []
    assert not left_here(tmp_path) and not {LOCK, UNFINISHED} & set(bucket.names("sets/one"))


def test_the_manifest_comes_last(url, bucket, shop, monkeypatch):  # noqa: F811
    put, before = RemoteFolder.put, []

    def watched(self: RemoteFolder, file: Path, name: str) -> None:
        if name == MANIFEST:
            before.extend(bucket.names("sets/one"))
        else:
            assert MANIFEST not in bucket.names("sets/one")
        put(self, file, name)

    monkeypatch.setattr(RemoteFolder, "put", watched)
    manifest = made(shop, url).manifest.to_dict()
    assert set(before) == {*manifest["files"], LOCK, UNFINISHED}


def test_what_is_there_is_replaced_only_on_request(url, bucket, shop, tmp_path):  # noqa: F811
    first = made(shop, url)
    bucket.put("sets/one/certificate.json", b"of the old set")
    bucket.put("sets/one/train_dataset.parquet/part-99999.parquet", b"of the old set")
    bucket.put("sets/one-more/file", b"of somebody")
    with pytest.raises(
        OutputError,
        match="is there already.\nChoose another OUTPUT, or replace it with --overwrite",
    ):
        made(shop, url, seed=7)
    second = made(shop, url, seed=7, overwrite=True)
    assert first.manifest.content_digest != second.manifest.content_digest
    assert set(bucket.names("sets/one")) == {*second.manifest.files, MANIFEST}
    assert validate(url, checksums=True) == []
    assert bucket.get("sets/one-more/file") == b"of somebody"


def test_a_folder_that_is_no_data_set_is_not_touched(url, bucket, shop, tmp_path):  # noqa: F811
    bucket.put("sets/one/thesis.txt", b"ten years of work")
    for overwrite in (False, True):
        with pytest.raises(
            OutputError, match="is no dataset .it holds no manifest.json, but thesis.txt."
        ):
            made(shop, url, overwrite=overwrite)
    assert bucket.names("sets/one") == ["thesis.txt"] and not left_here(tmp_path)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("s3://shop", "is a whole bucket"),
        ("https://host/sets/one", "a web server cannot be written to"),
        ("s3://no-such-bucket/one", "there is no such bucket"),
    ],
)
def test_where_nothing_can_be_published_nothing_is_built(where, text, bucket, shop, tmp_path):  # noqa: F811
    with pytest.raises(OutputError, match=text):
        made(shop, where)
    assert not left_here(tmp_path)


@pytest.mark.parametrize("at", [1, 4, 9, "manifest"])
def test_an_upload_that_ends_early_is_gone_on_from(at, url, bucket, shop, tmp_path, monkeypatch):  # noqa: F811
    straight = made(shop, tmp_path / "straight")
    at = len(straight.manifest.files) + 1 if at == "manifest" else at
    with monkeypatch.context() as patched:
        patched.setattr(outputs, "_THREADS", 1)
        dies(patched, "put", at)
        with pytest.raises(RuntimeError, match="died"):
            made(shop, url)
    there = set(bucket.names("sets/one"))
    assert UNFINISHED in there and not {MANIFEST, LOCK} & there and len(there) >= at
    with pytest.raises(InputError, match="manifest.json: is not there"):
        validate(url)
    with pytest.raises(OutputError, match="Go on with --resume, replace it with --overwrite"):
        made(shop, url)
    names = dies(monkeypatch, "put", at=-1)
    made(shop, url, resume=True)
    assert content(bucket.download("sets/one", tmp_path / "there")) == content(straight.output)
    assert validate(url, checksums=True) == [] and not left_here(tmp_path)
    assert not set(names) & (there - TELLING), "what was there was sent again"


def test_an_overwriting_upload_that_ends_early_leaves_no_manifest(
    url, bucket, shop, tmp_path, monkeypatch
):  # noqa: F811
    made(shop, url)
    with monkeypatch.context() as patched:
        dies(patched, "put", 3)
        with pytest.raises(RuntimeError, match="died"):
            made(shop, url, seed=7, overwrite=True)
    assert MANIFEST not in bucket.names("sets/one")
    second = made(shop, url, seed=7, overwrite=True)
    assert set(bucket.names("sets/one")) == {*second.manifest.files, MANIFEST}
    assert validate(url, checksums=True) == []


def test_a_build_that_fails_leaves_the_old_data_set(url, bucket, shop, monkeypatch):  # noqa: F811
    made(shop, url)
    before = {name: bucket.get(f"sets/one/{name}") for name in bucket.names("sets/one")}
    monkeypatch.setattr(pipeline, "write_tables", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made(shop, url, overwrite=True)
    assert {name: bucket.get(f"sets/one/{name}") for name in bucket.names("sets/one")} == before


def test_files_that_are_there_already_are_not_sent_again(url, shop, monkeypatch):
    made(shop, url)
    names = dies(monkeypatch, "put", at=-1)
    made(shop, url, overwrite=True)
    assert set(names) <= TELLING


@pytest.mark.parametrize("told", [True, False], ids=["the storage tells MD5", "it does not"])
def test_what_arrives_otherwise_is_not_published(told, url, bucket, shop, monkeypatch):  # noqa: F811
    put = RemoteFolder.put
    if not told:
        monkeypatch.setattr(storage, "_md5", lambda _: None)

    def flipping(self: RemoteFolder, file: Path, name: str) -> None:
        if name != "vocabulary.json":
            return put(self, file, name)
        damaged = bytearray(file.read_bytes())
        damaged[7] ^= 1
        return bucket.put(f"sets/one/{name}", bytes(damaged))

    with monkeypatch.context() as patched:
        patched.setattr(RemoteFolder, "put", flipping)
        with pytest.raises(OutputError, match="vocabulary.json: is not what was written"):
            made(shop, url)
    assert MANIFEST not in bucket.names("sets/one")
    made(shop, url, resume=True)
    assert validate(url, checksums=True) == []


def test_an_md5_that_is_of_something_else_is_no_fault(url, shop, monkeypatch):
    """As that of an object that its storage encrypts."""
    monkeypatch.setattr(storage, "_md5", lambda _: "0" * 32)
    made(shop, url)
    assert validate(url, checksums=True) == []


def test_checksums_are_known_in_the_words_of_three_storages():
    md5 = hashlib.md5(b"x").digest()
    assert storage._md5({"ETag": f'"{md5.hex()}"'}) == md5.hex()
    assert (
        storage._md5({"md5Hash": "nd1eSdSNKyYJz3/p0eZ5xA==", "etag": "CJ"})
        == "9ddd5e49d48d2b2609cf7fe9d1e679c4"
    )
    assert storage._md5({"content_settings": {"content_md5": bytearray(md5)}}) == md5.hex()
    assert (
        storage._md5({"ETag": f'"{md5.hex()}-2"'})
        is storage._md5({})
        is storage._md5({"content_settings": None})
        is None
    )


def test_what_the_old_set_leaves_is_told_and_no_failure(url, bucket, shop, monkeypatch):  # noqa: F811
    made(shop, url)
    bucket.put("sets/one/certificate.json", b"of the old set")
    remove = RemoteFolder.remove

    def refused(self: RemoteFolder, names: list[str]) -> None:
        if "certificate.json" in names:
            raise OutputError("not allowed")
        remove(self, names)

    monkeypatch.setattr(RemoteFolder, "remove", refused)
    told = Listener()
    made(shop, url, overwrite=True, progress=told)
    assert (
        "published, but files of the dataset before it are still there: not allowed" in told.texts
    )
    assert validate(url) == []


def test_the_workplace_can_be_chosen_and_is_for_urls(url, bucket, shop, tmp_path, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patched:
        dies(patched, "put", 1)
        with pytest.raises(RuntimeError):
            made(shop, url, workplace=tmp_path / "place")
    (kept,) = (tmp_path / "place").glob(".one-*.staging")
    assert {path.name for path in kept.iterdir()} >= {"data", "checkpoints"}
    made(shop, url, workplace=tmp_path / "place", resume=True)
    assert [path.name for path in (tmp_path / "place").iterdir()] == [".gpu-dcgen.identity"]
    with pytest.raises(ConfigError, match="a local OUTPUT is built beside itself"):
        made(shop, tmp_path / "output", workplace=tmp_path / "place")


def test_a_workplace_that_others_may_write_to_is_refused(url, shop, tmp_path):
    outputs.default_workplace().mkdir()
    outputs.default_workplace().chmod(0o777)
    with pytest.raises(OutputError, match="is not a folder of this user alone"):
        made(shop, url)


def test_long_footers_are_read_whole(url, shop, monkeypatch):
    made(shop, url)
    monkeypatch.setattr(datasets, "_END_BYTES", 100)
    assert validate(url) == []


@pytest.mark.parametrize("damage", ["gone", "longer", "a bit", "a footer"])
def test_validation_finds_damage_at_a_url(damage, url, bucket, shop):  # noqa: F811
    made(shop, url)
    name = "item_vocabulary.parquet"
    whole = bucket.get(f"sets/one/{name}")
    middle = bytearray(whole)
    middle[10 if damage == "a bit" else -6] ^= 1
    damaged = {"longer": whole + b"x", "a bit": bytes(middle), "a footer": bytes(middle)}
    bucket.put(f"sets/one/{name}", damaged[damage]) if damage in damaged else bucket.remove(
        f"sets/one/{name}"
    )
    result = CliRunner().invoke(app, ["validate", url, "--checksums"])
    text = {
        "gone": "is not there",
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
