"""Sign, write and verify certificate.json."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from .dataset_files import NOT_AUDITED, list_files
from .table_reader import hash_file

MIN_KEY_BYTES = 16
UNKEYED, KEYED = "SHA-256", "HMAC-SHA-256"
PROVES = {
    UNKEYED: (
        "The value is the SHA-256 of this certificate without its signature (JSON, keys sorted, "
        "no blanks). It shows accidental changes. It does not show who wrote the certificate: "
        "whoever can change the certificate can compute the value again."
    ),
    KEYED: (
        "The value is the HMAC-SHA-256 of this certificate without its signature (JSON, keys "
        "sorted, no blanks) under a secret key. Only a holder of the key can have written it. "
        "Every holder of the key can forge it, so it proves nothing to outsiders."
    ),
}


def sign(body: dict[str, Any], key: bytes | None) -> dict[str, Any]:
    """Return the certificate: `body` with its signature."""
    algorithm = UNKEYED if key is None else KEYED
    signature = {"algorithm": algorithm, "value": _sign(body, key), "proves": PROVES[algorithm]}
    return {**body, "signature": signature}


def _sign(body: dict[str, Any], key: bytes | None) -> str:
    text = json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    if key is None:
        return hashlib.sha256(text).hexdigest()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def read_key(path: str | Path | None) -> bytes | None:
    """Read the key that signs certificates.

    Args:
        path: A file with at least 16 bytes, or None.

    Returns:
        The file's bytes; None without a path.

    Raises:
        InputError: The file cannot be read, or is too short.
    """
    if path is None:
        return None
    try:
        key = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the key cannot be read ({error.strerror}).\nName a readable file."
        ) from error
    if len(key) < MIN_KEY_BYTES:
        raise InputError(
            f"{path}: the key has {len(key)} bytes; expected at least {MIN_KEY_BYTES}.\n"
            f"Make one: openssl rand 32 > {path}"
        )
    return key


def write_certificate(path: Path, certificate: dict[str, Any]) -> None:
    """Write a certificate, and make its folder. OutputError if the file cannot be written."""
    text = json.dumps(certificate, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path}: the certificate cannot be written ({error.strerror}).\n"
            "Name another file with --certificate."
        ) from error


def verify(
    path: str | Path, dataset: str | Path | None = None, key: bytes | None = None
) -> list[str]:
    """Check that neither a certificate nor the dataset it describes has changed.

    Only hashes are computed; the rules are not checked again (`audit` does that).

    Args:
        path: A certificate that `audit` wrote.
        dataset: The dataset's folder, to compare the SHA-256 of its files; None to check the
            certificate alone.
        key: The key that signed the certificate, from `read_key`; None for one without a key.

    Returns:
        One sentence for each problem: a wrong signature, a verdict other than `holds`, and files
        that are missing, added or changed. An empty list if there is none.

    Raises:
        InputError: The file is no certificate, or it needs a key and none was given, or
            the other way round.

    Example:
        >>> verify("data/training/certificate.json", "data/training")
        []
    """
    path = Path(path)
    certificate, signature = _read_certificate(path)
    if (signature["algorithm"] == KEYED) != (key is not None):
        needs = (
            "was signed with a key; give it with --key"
            if key is None
            else "was signed without a key; leave --key out"
        )
        raise InputError(f"{path}: the certificate {needs}.")
    problems = []
    if not hmac.compare_digest(signature["value"], _sign(certificate, key)):
        problems.append(
            f"{path}: the signature does not match: "
            "the certificate was changed, or signed with another key"
        )
    if certificate["verdict"] != "holds":
        problems.append(f"{path}: the audit's verdict is '{certificate['verdict']}'")
    if dataset is not None:
        listed = {entry["file"]: entry["sha256"] for entry in certificate["outputs"]}
        problems += _find_changed_files(Path(dataset), listed, path)
    return problems


def _read_certificate(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a certificate without its signature, and the signature."""
    try:
        certificate = json.loads(path.read_text("utf-8"))
        signature = certificate.pop("signature")
        for content, names in (
            (signature, ("algorithm", "value")),
            (certificate, ("outputs", "verdict")),
        ):
            for name in names:
                content[name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is no certificate of gpu-dcgen ({type(error).__name__}: {error})."
        ) from error
    return certificate, signature


def _find_changed_files(dataset: Path, listed: dict[str, str], certificate: Path) -> list[str]:
    """Compare the dataset's files, but for the certificate, with the listed SHA-256."""
    files = {
        name: file
        for name, file in list_files(dataset).items()
        if file.resolve() != certificate.resolve() and name not in NOT_AUDITED
    }
    problems = []
    for name in sorted(listed.keys() | files.keys()):
        if name not in files:
            problems.append(f"{name}: is missing")
        elif name not in listed:
            problems.append(f"{name}: was added after the audit")
        elif hash_file(files[name]) != listed[name]:
            problems.append(f"{name}: was changed after the audit")
    return problems
