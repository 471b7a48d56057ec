"""Tables in an object store or on a web server are read as local ones are, or refused in words."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import ConfigError, DcgenError, InputError, MissingPackageError
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.storage.locations import is_url, parse_location, require_local
from gpu_dcgen.storage.remote import inputs as remote_inputs
from gpu_dcgen.storage.remote.inputs import copy_tables
from tests.support.builds import fail_at_call
from tests.support.csv_tables import convert_folder
from tests.support.shops import tiny_config
from tests.support.storage import SECRET


def digest(inputs: Path | str, output: Path, **options: Any) -> dict[str, Any]:
    manifest = build(inputs, output, tiny_config(), backend="cpu", **options).manifest.to_dict()
    # On a busy machine a build may take so long that its rate is warned of.
    warnings = [text for text in manifest["warnings"] if not text.startswith("performance: ")]
    names = ("content_digest", "inputs", "counts", "ledger")
    return {"warnings": warnings, **{name: manifest[name] for name in names}}


def copied(url: str, folder: Path, config: DatasetConfig | None = None) -> Path:
    return copy_tables(url, folder, (config or tiny_config()).inputs, ProgressTracker())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("tables", Path("tables")),
        (Path("a/b"), Path("a/b")),
        ("file:///data/my%20shop", Path("/data/my shop")),
        ("file://localhost/data", Path("/data")),
        ("S3://bucket/Tables/", "s3://bucket/Tables"),
        (
            "abfs://container@account.dfs.core.windows.net/x",
            "abfs://container@account.dfs.core.windows.net/x",
        ),
        ("c:/odd", Path("c:/odd")),
    ],
)
def test_places_are_local_or_urls(given, found):
    assert parse_location(given) == found
    assert is_url(parse_location(given)) == isinstance(found, str)


@pytest.mark.parametrize(
    "given", [f"s3://key:{SECRET}@bucket/x", f"https://host/x?sig={SECRET}", f"s3://b/x#{SECRET}"]
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(given):
    with pytest.raises(ConfigError, match="Leave credentials to the environment") as refusal:
        parse_location(given)
    assert SECRET not in str(refusal.value)


def test_a_path_made_of_a_url_is_refused():
    with pytest.raises(ConfigError, match="Give the URL as text"):
        build(Path("s3://bucket/tables"), Path("nowhere"))
    with pytest.raises(ConfigError, match="Copy it to a local folder first"):
        require_local("s3://bucket/tables")


def test_a_build_from_a_url_is_that_from_a_folder(tables_url, shop, tmp_path):
    assert digest(tables_url, tmp_path / "remote") == digest(shop, tmp_path / "local")
    assert not list(tmp_path.glob(".*")) and not list((tmp_path / "temporary").iterdir())


def test_folders_of_files_come_with_their_partitions_and_nothing_else(bucket, shop, tmp_path):
    names = [
        "transactions/day=1/a.parquet",
        "transactions/day=2/b.parquet",
        "customers.parquet/x.parquet",
        "articles.parquet",
    ]
    for name in [
        *names,
        "transactions/_SUCCESS",
        "transactions2/a.parquet",
        "notes.txt",
        "views/v.parquet",
    ]:
        bucket.put(f"tables/{name}", name.encode())
    folder = copied(f"{bucket.url}/tables", tmp_path / "here", tiny_config(inputs={"views": False}))
    assert sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    ) == sorted(names)
    assert all((folder / name).read_text() == name for name in names)


def test_views_are_copied_where_they_are_wanted(bucket, shop, tmp_path):
    url = bucket.upload(shop, "tables")
    bucket.put("tables/views.parquet", b"views")
    assert (copied(url, tmp_path / "here") / "views.parquet").read_bytes() == b"views"


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1234])
def test_ranges_put_a_file_together(size, bucket, tables_url, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_inputs, "RANGE_BYTES", 100)
    content = bytes(number % 251 for number in range(size))
    bucket.put("tables/articles.parquet", content)
    assert (copied(tables_url, tmp_path / "here") / "articles.parquet").read_bytes() == content


def test_a_short_answer_is_refused(tables_url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_inputs.RemoteFolder, "read", lambda *_: b"short")
    with pytest.raises(InputError, match="5 of .* bytes were received"):
        copied(tables_url, tmp_path / "here")


@pytest.mark.parametrize(
    "key",
    ["transactions/../../../evil.parquet", "transactions//a.parquet", "transactions/./a.parquet"],
)
def test_no_key_leads_out_of_the_folder(key, bucket, tables_url, tmp_path, monkeypatch):
    entry = remote_inputs.Entry(4, "", True, None, True)
    listed = remote_inputs.RemoteFolder.entries
    monkeypatch.setattr(remote_inputs.RemoteFolder, "names", lambda _: ["transactions"])
    monkeypatch.setattr(remote_inputs, "TABLES", ("transactions",))
    monkeypatch.setattr(
        remote_inputs.RemoteFolder,
        "entries",
        lambda self, under="": {key: entry} if under == "transactions" else listed(self, under),
    )
    with pytest.raises(InputError, match="is not a valid file name"):
        copied(tables_url, tmp_path / "here")
    assert not list(tmp_path.rglob("evil.parquet"))


def test_what_does_not_fit_the_disk_is_not_begun(tables_url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_inputs, "free_disk_bytes", lambda _: 1000)
    with pytest.raises(InputError, match=r"bytes to be copied, and 1,000 are free on the disk of"):
        copied(tables_url, tmp_path / "here")
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_file_that_changes_while_it_is_copied_is_refused(
    bucket, tables_url, tmp_path, monkeypatch
):
    copy = remote_inputs._copy

    def changing(*arguments: Any) -> None:
        copy(*arguments)
        bucket.put("tables/customers.parquet", b"other customers")

    monkeypatch.setattr(remote_inputs, "_copy", changing)
    with pytest.raises(InputError, match="customers.parquet: changed while it was copied"):
        digest(tables_url, tmp_path / "output")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["temporary"]


def test_a_resumed_build_copies_only_what_has_changed(
    bucket, tables_url, shop, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        fail_at_call(patched, pipeline, "write_tables")
        with pytest.raises(RuntimeError, match="died"):
            digest(tables_url, tmp_path / "output")
    copied_file = tmp_path / ".output.staging" / "inputs" / "tables" / "articles.parquet"
    copied_file.write_bytes(copied_file.read_bytes()[:-1])
    bucket.put("tables/customers.parquet", (shop / "customers.parquet").read_bytes() + b"")
    read, names = remote_inputs.RemoteFolder.read, []
    monkeypatch.setattr(
        remote_inputs.RemoteFolder,
        "read",
        lambda self, name, *range_: (names.append(name), read(self, name, *range_))[1],
    )
    assert digest(tables_url, tmp_path / "output", resume=True) == digest(
        shop, tmp_path / "straight"
    )
    assert "articles.parquet" in names and "transactions.parquet" not in names


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("s3://no-such-bucket/tables", "no such bucket, container or file"),
        (
            "s3://shop/nothing-here",
            "there is no transactions.parquet or transactions.csv .a file, or a folder of files.",
        ),
        ("nothing://x/y", "unknown kind of storage"),
    ],
)
def test_what_is_not_there_is_named(where, text, bucket, tmp_path):
    with pytest.raises(InputError, match=text) as refusal:
        digest(where, tmp_path / "output")
    assert str(refusal.value).startswith(where) and len(str(refusal.value).splitlines()) == 2
    assert not (tmp_path / ".output.staging").exists()


def test_without_credentials_it_says_where_they_go(tables_url, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        InputError, match="access denied .NoCredentialsError.*\n.*in the environment"
    ):
        copied(tables_url, tmp_path / "here")


def test_without_permission_it_says_so(bucket, tables_url, tmp_path, server):
    import urllib.request

    def authorize(after: bytes) -> None:
        request = urllib.request.Request(
            f"{server}/moto-api/reset-auth", after, {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=5).close()

    authorize(b"0")  # from now on every key must be known
    try:
        with pytest.raises(InputError, match="access denied .PermissionError"):
            copied(tables_url, tmp_path / "here")
    finally:
        authorize(b"inf")


def test_storage_that_does_not_answer_is_named(tables_url, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match="the storage does not answer .EndpointConnectionError"):
        copied(tables_url, tmp_path / "here")


@pytest.mark.parametrize(
    ("where", "how"),
    [("gs://b/x", "remote]' gcsfs"), ("abfs://b/x", "remote]' adlfs"), ("s3://b/x", "remote]'")],
)
def test_a_missing_package_is_named(where, how, tmp_path, monkeypatch):
    known = pytest.importorskip("fsspec.registry", reason="pip install '.[test-remote]'")._registry
    for scheme in ("s3", "gs", "abfs"):
        monkeypatch.delitem(known, scheme, raising=False)
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as refusal:
        copied(where, tmp_path / "here")
    assert str(refusal.value).endswith(f"pip install 'gpu-dcgen[{how}")


def test_without_fsspec_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'gpu-dcgen\[remote\]'"):
        copied("s3://b/x", tmp_path / "here")


def test_no_secret_is_written_anywhere(tables_url, bucket, tmp_path):
    build(tables_url, f"{bucket.url}/sets/one", tiny_config(), backend="cpu")
    bucket.download("sets/one", tmp_path / "set")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [
        path
        for path in files
        if SECRET.encode() in path.read_bytes() or b"AKIATEST" in path.read_bytes()
    ]


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Answers parts of files, as most web servers do, and says so; and knows no listing."""

    ranged = True

    def log_message(self, *_: Any) -> None:
        pass

    def list_directory(self, path: Any) -> None:
        self.send_error(403)

    def do_GET(self) -> None:
        asked, file = self.headers.get("Range"), Path(self.translate_path(self.path))
        if not (self.ranged and asked and file.is_file()):
            return super().do_GET()
        start, end = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        content = file.read_bytes()
        self.send_response(206)
        self.send_header("Content-Length", str(len(content[start : end + 1])))
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.end_headers()
        return self.wfile.write(content[start : end + 1])

    def end_headers(self) -> None:
        if self.ranged:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture(params=["ranges", "whole files"])
def web(request: pytest.FixtureRequest, shop: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="pip install '.[test-remote]'")
    kind = type("Handler", (Ranges,), {"ranged": request.param == "ranges"})
    running = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(kind, directory=str(shop))
    )
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_web_server_will_do_for_reading(web, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_inputs, "RANGE_BYTES", 1000)
    assert digest(web, tmp_path / "remote") == digest(shop, tmp_path / "local")


def test_what_a_web_server_tells_only_the_size_of_is_copied_again(web, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(Ranges, "date_time_string", lambda *_: "")
    copied(web, tmp_path / "here")
    table = shop / "customers.parquet"
    content = table.read_bytes()
    try:
        table.write_bytes(content[::-1])
        assert (copied(web, tmp_path / "here") / "customers.parquet").read_bytes() == content[::-1]
    finally:
        table.write_bytes(content)


def test_a_web_server_without_the_tables_is_refused(web, tmp_path):
    with pytest.raises(InputError, match=r"there is no transactions\.parquet, .*csv\.zst or trans"):
        digest(f"{web}/elsewhere", tmp_path / "output")


def test_manifests_do_not_tell_where_tables_came_from(tables_url, tmp_path):
    digest(tables_url, tmp_path / "output")
    files = json.loads((tmp_path / "output" / "manifest.json").read_text())["inputs"]["files"]
    assert [file["file"] for file in files] == [
        "articles.parquet",
        "customers.parquet",
        "transactions.parquet",
    ]


def test_every_refusal_is_one_of_ours(bucket, tmp_path):
    """A table that is no Parquet file is refused as a local one is."""
    for table in ("articles", "customers", "transactions"):
        bucket.put(f"tables/{table}.parquet", b"PAR1 no")
    with pytest.raises(DcgenError, match="articles.parquet: cannot be read as Parquet"):
        digest(f"{bucket.url}/tables", tmp_path / "output")


def test_files_of_any_suffix_are_copied_and_hidden_ones_are_not(bucket, tmp_path):
    names = ["articles.PQ", "customers.parquet.gzip", "transactions/a", "transactions/b=1/c.parq"]
    hidden = ["transactions/_SUCCESS", "transactions/_temporary/d.parquet", "transactions/.e.crc"]
    for name in [*names, *hidden]:
        bucket.put(f"tables/{name}", name.encode())
    folder = copied(f"{bucket.url}/tables", tmp_path / "here")
    assert sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    ) == sorted(names)


@pytest.mark.parametrize(
    "name", ["_delta_log/00000000000000000000.json", ".hoodie/x", "metadata/v1.metadata.json"]
)
def test_tables_that_also_hold_deleted_rows_are_refused(name, bucket, tmp_path):
    for file in ("articles.parquet", "customers.parquet"):
        bucket.put(f"lake/{file}", b"?")
    bucket.put(f"lake/transactions/{name}", b"{}")
    bucket.put("lake/transactions/a.parquet", b"?")
    with pytest.raises(InputError, match="is a Delta, Iceberg or Hudi table"):
        copied(f"{bucket.url}/lake", tmp_path / "here")
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_web_server_has_csv_tables_too(web, shop, suffix, tmp_path):
    """Web servers list nothing: the usual names are tried."""
    folder = shop / f"csv{suffix}"
    if not folder.exists():
        for file in convert_folder(shop, folder).iterdir():
            data = file.read_bytes()
            name = file.name.replace("_train", "").replace(".csv", suffix)
            file.unlink()
            (folder / name).write_bytes(data if suffix == ".csv" else gzip.compress(data))
    local = digest(folder, tmp_path / "local")
    assert digest(f"{web}/{folder.name}", tmp_path / "remote") == local
