"""A bucket that tests read and write without the package, and builds that publish there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_dcgen.dataset_generator.builder import BuildResult, build
from tests.support.shops import tiny_config

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
            entry["Key"].removeprefix(start) for page in pages for entry in page.get("Contents", [])
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


def publish(inputs: Path, output: Path | str, seed: int = 42, **options: Any) -> BuildResult:
    """Build with `tiny_config`."""
    return build(inputs, output, tiny_config(seed=seed), backend="cpu", **options)


def leftovers(tmp_path: Path) -> list[str]:
    """List what builds of remote outputs have left in their local workplace."""
    return sorted(
        path.name
        for path in tmp_path.glob("temporary/gpu-dcgen-*/*")
        if path.name != ".gpu-dcgen.identity"
    )
