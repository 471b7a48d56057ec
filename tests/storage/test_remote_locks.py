"""One build at a time publishes at a URL; whose lock it is, is known, also after it has died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator import pipeline
from gpu_dcgen.errors import OutputError
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.storage.remote import staging as outputs
from gpu_dcgen.storage.remote.folder import RemoteFolder
from gpu_dcgen.storage.remote.staging import LOCK, MANIFEST, UNFINISHED
from tests.support.shops import TINY
from tests.support.storage import leftovers, publish

ROOT = Path(__file__).parents[2]


def test_two_builds_do_not_publish_at_one_place(output_url, bucket, shop, tmp_path):
    bucket.put(
        f"sets/one/{LOCK}",
        json.dumps({"owner": "another machine", "holder": "process 7 on elsewhere"}).encode(),
    )
    with pytest.raises(
        OutputError, match="another build of it is running .process 7 on elsewhere."
    ) as refusal:
        publish(shop, output_url)
    assert f"If it has died, remove {output_url}/{LOCK}." in str(refusal.value)
    assert bucket.names("sets/one") == [LOCK] and not leftovers(tmp_path)
    bucket.remove(f"sets/one/{LOCK}")
    publish(shop, output_url)


def test_a_second_build_here_is_told_which_runs(output_url, shop, tmp_path):
    first = outputs.RemoteStaging(output_url, False, progress=ProgressTracker())
    with pytest.raises(
        OutputError,
        match=f"^{output_url}: another build of it is running .process {os.getpid()} on",
    ):
        publish(shop, output_url)
    first.discard()
    publish(shop, output_url)


def test_the_lock_comes_even_between_two_looks(output_url, bucket, shop, monkeypatch):
    """A lock that another build writes after the check is not overwritten: the storage decides."""
    other = json.dumps({"owner": "faster", "holder": "a faster build"}).encode()
    write = RemoteFolder.write

    def late(self: RemoteFolder, name: str, content: bytes, **options: Any) -> bool:
        if name == LOCK:
            bucket.put(f"sets/one/{LOCK}", other)
        return write(self, name, content, **options)

    monkeypatch.setattr(RemoteFolder, "write", late)
    with pytest.raises(OutputError, match="another build of it is running .a faster build."):
        publish(shop, output_url)
    assert bucket.get(f"sets/one/{LOCK}") == other


def test_a_build_whose_lock_was_taken_does_not_publish(output_url, bucket, shop, monkeypatch):
    other = json.dumps({"owner": "another", "holder": "another"}).encode()
    tables = pipeline.write_tables
    with monkeypatch.context() as patched:
        patched.setattr(
            pipeline,
            "write_tables",
            lambda *these: (bucket.put(f"sets/one/{LOCK}", other), tables(*these))[1],
        )
        with pytest.raises(
            OutputError, match="another process has taken its lock during the build"
        ):
            publish(shop, output_url)
    assert bucket.names("sets/one") == [LOCK] and bucket.get(f"sets/one/{LOCK}") == other


def test_a_lock_without_a_name_is_respected(output_url, bucket, shop):
    bucket.put(f"sets/one/{LOCK}", b"?")
    with pytest.raises(OutputError, match="another build of it is running .unknown."):
        publish(shop, output_url)


DRIVER = """
import os, signal, sys
from gpu_dcgen.cli import app
from gpu_dcgen.storage.remote.folder import RemoteFolder
put, calls = RemoteFolder.put, []
def killing(self, file, name):
    calls.append(name)
    if len(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, file, name)
RemoteFolder.put = killing
app(sys.argv[1:])
"""


def test_a_build_killed_while_it_uploads_is_gone_on_from(output_url, bucket, shop, tmp_path):
    """Its lock is still there, and is known to be that of a build that has died here."""
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))  # which is YAML
    arguments = [
        "build",
        str(shop),
        output_url,
        "--backend",
        "cpu",
        "--config",
        str(tmp_path / "tiny.yaml"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", DRIVER.format(at=5), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert {LOCK, UNFINISHED} <= set(bucket.names("sets/one")) and MANIFEST not in bucket.names(
        "sets/one"
    )
    result = CliRunner().invoke(app, [*arguments, "--resume"])
    assert result.exit_code == 0, result.output
    assert f"gpu-dcgen validate {output_url}" in result.output
    result = CliRunner().invoke(app, ["validate", output_url, "--checksums"])
    assert (
        result.exit_code == 0
        and result.output == f"{output_url}: every file is present and unchanged.\n"
    )
    assert not leftovers(tmp_path) and not {LOCK, UNFINISHED} & set(bucket.names("sets/one"))
