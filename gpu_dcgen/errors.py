"""What can go wrong, by whose hands; the command line maps each to its exit code and prints the text alone."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = "***"
_URL = r"\b[a-z][a-z0-9+.-]{0,30}:/+"  # `Path` makes one slash of two
_SECRETS = tuple(  # what to look for: the secret, behind a group that is shown
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        (
            rf"({_URL})(?:[^\s/?#'\"@]*|[^\s/:'\"@]*:[^\s'\"@]*)@",
            rf"\1{_HIDDEN}@",
        ),  # user and password, or a token
        (
            rf"({_URL}[^\s?'\"]*\?)[^\s'\")>]+",
            rf"\1{_HIDDEN}",
        ),  # a query: signatures have many names
        (
            r"(\bhttps?:/+(?:[^\s/]*hook[^\s/]*|[^\s?'\"]*/(?:web)?hooks?)/)[^\s'\")>]+",
            rf"\1{_HIDDEN}",
        ),  # the path is the secret
        (
            r"((?:\b|[_-])(?:sig|signature|token|secret|passw(?:or)?d|pwd|credentials?|(?:api|access|account|secret|shared)[_-]?key"
            r"(?:[_-]?id)?)['\"]?\s?[=:]\s?['\"]?)[^\s&;,'\")}]+",
            rf"\1{_HIDDEN}",
        ),
        (r"\b(Bearer|Basic) [a-z0-9+/._~=-]{8,}", rf"\1 {_HIDDEN}"),
    )
)
_HEAD, _TAIL = 8000, 1000  # characters of a longer text that are shown


def redact(text: str) -> str:
    """The text without what is secret in URLs and settings of storage: passwords, tokens, signatures, webhooks' paths.

    Of a very long text the middle is left out.
    """
    if len(text) > _HEAD + _TAIL:
        tail = text[-_TAIL:].partition(" ")[
            2
        ]  # from a word's beginning: it could be within a secret
        text = f"{text[:_HEAD]} ... ({len(text) - _HEAD - len(tail)} characters) ... {tail}"
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def escape_controls(text: str) -> str:
    """The text as any terminal and log can take it: control characters and halves of characters are escaped."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    # Cc: controls; Cf: directions and joiners, which can make a text look like another; Cs: halves,
    # which cannot be encoded.
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t"
    return character.encode("unicode_escape").decode("ascii") if hidden else character


class DcgenError(Exception):
    """Base of every error this package raises on purpose; its text says where, what, and what to do.

    The text is made escaped by `escape_controls`, its secrets hidden by `redact`: it may end in any log.
    """

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(escape_controls(redact(text)))


class ConfigError(DcgenError):
    """An option or configuration file that cannot be used."""

    exit_code = 2


class InputError(DcgenError):
    """Input tables that cannot be used as they are."""

    exit_code = 2


class OutputError(DcgenError):
    """An output folder that cannot be written to or must not be replaced."""

    exit_code = 2


class BackendError(DcgenError):
    """A machine that is not there or cannot do what was asked."""

    exit_code = 2


class MissingPackageError(DcgenError, ImportError):
    """A package of an extra that is not installed."""

    exit_code = 2


class GateError(DcgenError):
    """A critical quality gate failed; nothing was published."""

    exit_code = 3
