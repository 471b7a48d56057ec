"""Where something lies: a folder of this machine, or a URL of storage that fsspec reaches."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import ConfigError

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_COLLAPSED = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # what a Path makes of a URL


def is_url(where: Path | str) -> bool:
    """Whether this names remote storage."""
    return isinstance(where, str) and _URL.match(where) is not None


def parse_location(where: Path | str) -> Path | str:
    """A local path as a Path (also from a file:// URL), or the URL of remote storage without the slash at its end.

    ConfigError for a URL that holds a secret or an unreadable part, and for one that has been made a Path.
    """
    if not is_url(where):
        if isinstance(where, Path) and _COLLAPSED.match(str(where)):
            raise ConfigError(f"{where}: a Path loses a slash of a URL.\nGive the URL as text.")
        return Path(where)
    scheme, rest = _URL.match(where).groups()
    if scheme.lower() == "file":
        return Path(unquote(rest.removeprefix("localhost")))
    authority = rest.partition("/")[0]
    if ":" in authority.rpartition("@")[0] or "?" in rest or "#" in rest:
        raise ConfigError(
            f"{where.partition('#')[0]}: a URL with a password, a query or a fragment cannot be used.\n"
            "Leave credentials to the environment or the storage library's own files; ? and # are for other URLs."
        )
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def require_local(where: Path | str) -> Path:
    """`where` as a local path; ConfigError for remote storage, which only builds and `validate` reach."""
    if is_url(found := parse_location(where)):
        raise ConfigError(
            f"{found}: is remote, and this reads and writes local folders only.\nCopy it to a local folder first."
        )
    return found
