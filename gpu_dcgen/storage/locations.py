"""Distinguish folders of this machine from URLs of remote storage."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import ConfigError

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_COLLAPSED_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # what Path makes of a URL


def is_url(location: Path | str) -> bool:
    """Return whether a location is in remote storage."""
    return isinstance(location, str) and _URL.match(location) is not None


def parse_location(location: Path | str) -> Path | str:
    """Return a local path as a Path, also from a file:// URL; a remote URL as a str.

    The URL has no slash at its end. ConfigError for a URL that holds a secret, a query or a
    fragment, for one that was turned into a Path, and for a path that is not UTF-8.
    """
    if isinstance(location, Path):
        if _COLLAPSED_URL.match(str(location)):
            raise ConfigError(
                f"{location}: is a URL as a Path, which lacks a slash.\nGive the URL as text."
            )
        return _require_text(location)
    match = _URL.match(location)
    if match is None:
        return _require_text(Path(location))
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return _require_text(Path(unquote(rest.removeprefix("localhost"))))
    authority = rest.partition("/")[0]
    if ":" in authority.rpartition("@")[0] or "?" in rest or "#" in rest:
        raise ConfigError(
            f"{location.partition('#')[0]}: a URL with a password, a query or a fragment cannot be "
            "used.\nLeave credentials to the environment or the storage library's own files, and "
            "rename what has ? or # in its name."
        )
    return f"{scheme}://{rest.rstrip('/')}"


def _require_text(path: Path) -> Path:
    """Return a path; ConfigError where it is not UTF-8, as manifests and Arrow need it."""
    absolute = path.absolute()
    try:
        str(absolute).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{absolute}: the path is not UTF-8.\nRename the folder, or name another one."
        ) from error
    return path


def require_local(location: Path | str) -> Path:
    """Return a location as a local path; ConfigError for a remote URL."""
    parsed = parse_location(location)
    if isinstance(parsed, Path):
        return parsed
    raise ConfigError(
        f"{parsed}: is remote; only builds and validate can use remote storage.\n"
        "Copy it to a local folder first."
    )
