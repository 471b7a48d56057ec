"""Fixtures of remote storage: an S3 server of the tests (moto), a bucket, a shop to build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import NOW, write_small_shop
from tests.support.storage import BUCKET, SECRET, Bucket


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an S3 server."""
    reason = "pip install '.[test-remote]'"
    pytest.importorskip("s3fs", reason=reason)
    moto = pytest.importorskip("moto.server", reason=reason)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def credentials(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of the storage library in the environment; the machine's own are hidden."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "TMPDIR": str(tmp_path / "temporary"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def bucket(server: str, credentials: None, tmp_path: Path) -> Bucket:
    """A folder of a bucket, named after the test."""
    import botocore.session

    client = botocore.session.get_session().create_client("s3", endpoint_url=server)
    client.create_bucket(Bucket=BUCKET)
    return Bucket(client, tmp_path.name)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a small shop, on this machine."""
    return write_small_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def tables_url(bucket: Bucket, shop: Path) -> str:
    """The URL of the same tables."""
    return bucket.upload(shop, "tables")


@pytest.fixture
def output_url(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL to publish at; every build of the test starts at the same time."""
    monkeypatch.setattr("time.time_ns", lambda: NOW)
    return f"{bucket.url}/sets/one"
