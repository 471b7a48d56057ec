"""An S3 server of the tests' own (moto), and what a test does with it from outside the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECRET = "wJalrXUtnFEMIsecretsecret"
BUCKET = "shop"


class Bucket:
    """A folder of a bucket, named after its test."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client, self.prefix, self.url = client, prefix, f"s3://{BUCKET}/{prefix}"

    def names(self, under: str = "") -> list[str]:
        """Names of all objects below `under`, from there."""
        start = f"{self.prefix}/{under}/" if under else f"{self.prefix}/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=start)
        return sorted(
            found["Key"].removeprefix(start) for page in pages for found in page.get("Contents", [])
        )

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")["Body"].read()

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=content)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")

    def upload(self, folder: Path, under: str) -> str:
        """Copy a local folder there; its URL."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{under}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{under}"

    def download(self, under: str, folder: Path) -> Path:
        """Copy what is below `under` to a local folder."""
        for name in self.names(under):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.get(f"{under}/{name}"))
        return folder


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
    """What the storage library finds in the environment, and nothing of the machine's own."""
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
    import botocore.session

    client = botocore.session.get_session().create_client("s3", endpoint_url=server)
    client.create_bucket(Bucket=BUCKET)
    return Bucket(client, tmp_path.name)
