"""certificate.json: what was audited, what was found, and a signature that shows later changes."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from .dataset import NOT_AUDITED
from .tables import sha256

PLAIN = (
    "The value is the SHA-256 of this certificate without its signature (JSON, keys sorted, no blanks). It shows accidental "
    "changes. It does not show who wrote it: whoever can change the certificate can compute the value anew."
)
KEYED = (
    "The value is the HMAC-SHA-256 of this certificate without its signature (JSON, keys sorted, no blanks) under a secret key. "
    "Only somebody who holds the key can have written it; who holds it can also forge it, so it proves nothing to outsiders."
)


def sign(body: dict[str, Any], key: bytes | None) -> dict[str, Any]:
    """The certificate: `body` with its signature."""
    algorithm, proves = ("SHA-256", PLAIN) if key is None else ("HMAC-SHA-256", KEYED)
    return {
        **body,
        "signature": {"algorithm": algorithm, "value": _value(body, key), "proves": proves},
    }


def _value(body: dict[str, Any], key: bytes | None) -> str:
    text = json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    return (
        hashlib.sha256(text).hexdigest()
        if key is None
        else hmac.new(key, text, hashlib.sha256).hexdigest()
    )


def read_key(path: Path | None) -> bytes | None:
    """The bytes of a key file, None without one. InputError where it is missing or shorter than 16 bytes."""
    if path is None:
        return None
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the key cannot be read ({error.strerror}).\nName a readable file."
        ) from error
    if len(key) < 16:
        raise InputError(
            f"{path}: the key has {len(key)} bytes; expected at least 16.\nMake one: openssl rand 32 > {path}"
        )
    return key


def write(path: Path, certificate: dict[str, Any]) -> None:
    text = json.dumps(certificate, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        remedy = "Name another file with --certificate."
        raise OutputError(
            f"{path}: the certificate cannot be written ({error.strerror}).\n{remedy}"
        ) from error


def verify(path: Path, dataset: Path | None = None, key: bytes | None = None) -> list[str]:
    """What speaks against a certificate: its signature, its verdict, and, given the dataset, files that have changed since.

    Empty when nothing does. InputError where the file is no certificate, or was signed with a key and none is given.
    """
    try:
        certificate = json.loads(path.read_text("utf-8"))
        signature = certificate.pop("signature")
        algorithm, value, outputs = (
            signature["algorithm"],
            signature["value"],
            certificate["outputs"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is no certificate of gpu-dcgen ({type(error).__name__}: {error})."
        ) from error
    if (algorithm == "HMAC-SHA-256") != (key is not None):
        needs = (
            "was signed with a key; give it with --key"
            if key is None
            else "was signed without a key; leave --key out"
        )
        raise InputError(f"{path}: the certificate {needs}.")
    found = []
    if not hmac.compare_digest(value, _value(certificate, key)):
        found.append(
            f"{path}: the signature does not fit: the certificate was changed, or signed with another key"
        )
    if certificate["verdict"] != "holds":
        found.append(f"{path}: the audit's verdict is '{certificate['verdict']}'")
    if dataset is not None:
        listed = {entry["file"]: entry["sha256"] for entry in outputs}
        there = {
            file.relative_to(dataset).as_posix(): file
            for file in sorted(dataset.rglob("*"))
            if file.is_file()
        }
        there = {
            name: file
            for name, file in there.items()
            if file.resolve() != path.resolve() and name not in NOT_AUDITED
        }
        for name in sorted(listed.keys() | there.keys()):
            if name not in there:
                found.append(f"{name}: is missing")
            elif name not in listed:
                found.append(f"{name}: was added after the audit")
            elif sha256(there[name]) != listed[name]:
                found.append(f"{name}: was changed after the audit")
    return found
