"""Exceptions raised to users, with the exit codes of the command line.

    DcgenError
    ├── ConfigError           2  a setting or a configuration file
    ├── InputError            2  input tables, or a dataset that is read
    ├── OutputError           2  the output folder
    ├── BackendError          2  the machine, or what the build asks of it
    ├── MissingPackageError   2  a package of an extra; also an ImportError
    └── GateError             3  a critical quality gate

The command line prints the text alone; it shows a traceback only with `--debug`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

_HIDDEN = "***"
_URL = r"\b[a-z][a-z0-9+.-]{0,30}:/+"  # `Path` makes one slash of two
_KEYS = (
    r"sig|signature|token|secret|passw(?:or)?d|pwd|credentials?"
    r"|(?:api|access|account|secret|shared)[_-]?key(?:[_-]?id)?"
)
# What hides a secret: a pattern, and its replacement. Groups in front of the secret are shown.
_SECRETS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # user and password, or a token, of a URL
        (rf"({_URL})(?:[^\s/?#'\"@]*|[^\s/:'\"@]*:[^\s'\"@]*)@", rf"\1{_HIDDEN}@"),
        # the whole query of a URL: signatures have many names
        (rf"({_URL}[^\s?'\"]*\?)[^\s'\")>]+", rf"\1{_HIDDEN}"),
        # the path of a webhook, which is the secret
        (
            r"(\bhttps?:/+(?:[^\s/]*hook[^\s/]*|[^\s?'\"]*/(?:web)?hooks?)/)[^\s'\")>]+",
            rf"\1{_HIDDEN}",
        ),
        # settings of storage, as `key=value`, `key: value` or JSON
        (
            rf"((?:\b|[_-])(?:{_KEYS})['\"]?\s?[=:]\s?['\"]?)[^\s&;,'\")}}]+",
            rf"\1{_HIDDEN}",
        ),
        (r"\b(Bearer|Basic) [a-z0-9+/._~=-]{8,}", rf"\1 {_HIDDEN}"),
    )
)
_MAX_HEAD, _MAX_TAIL = 8000, 1000  # characters of a longer text that are shown


def redact(text: str) -> str:
    """Hide secrets in URLs and settings: passwords, tokens, signatures, webhooks.

    The middle of a very long text is left out.
    """
    if len(text) > _MAX_HEAD + _MAX_TAIL:
        # The tail starts at the beginning of a word: its first one could be part of a secret.
        tail = text[-_MAX_TAIL:].partition(" ")[2]
        n_left_out = len(text) - _MAX_HEAD - len(tail)
        text = f"{text[:_MAX_HEAD]} ... ({n_left_out} characters) ... {tail}"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def escape_controls(text: str) -> str:
    """Escape control characters and lone surrogates, so that any terminal can show the text.

    Line breaks and tabs remain.
    """
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    # Cc: controls. Cf: directions and joiners, which can make a text look like another.
    # Cs: surrogates, which cannot be encoded.
    is_hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t"
    return character.encode("unicode_escape").decode("ascii") if is_hidden else character


class DcgenError(Exception):
    """Base of every error that this package raises on purpose.

    Its text says where, what was found, what was expected and what to do. Secrets in it are hidden
    (`redact`) and control characters escaped (`escape_controls`), so that it is fit for any log.
    """

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(escape_controls(redact(text)))
        self.parts: tuple[str, ...] = (str(self),)  # texts of the problems that it tells


class ConfigError(DcgenError):
    """A setting or a configuration file that cannot be used."""

    exit_code = 2


class InputError(DcgenError):
    """Input tables, or a dataset that is read, that cannot be used as they are."""

    exit_code = 2


class OutputError(DcgenError):
    """An output that cannot be written, or must not be replaced."""

    exit_code = 2


class BackendError(DcgenError):
    """A backend that is not available or cannot do what was asked."""

    exit_code = 2


class MissingPackageError(DcgenError, ImportError):
    """A package of an extra that is not installed."""

    exit_code = 2


class GateError(DcgenError):
    """A critical quality gate failed; nothing was published."""

    exit_code = 3


class Problems:
    """Errors that are collected, so that one message shows them all."""

    def __init__(self) -> None:
        self.errors: list[DcgenError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep an InputError or ConfigError of the block instead of raising it.

        One that tells several problems counts as so many.
        """
        try:
            yield
        except (ConfigError, InputError) as error:
            several = [InputError(part) for part in error.parts]
            self.errors += several if len(several) > 1 else [error]

    def raise_all(self, where: str) -> None:
        """Raise the only error as it is, several as one InputError about `where`."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            texts = (str(error).replace("\n", "\n   ") for error in self.errors)
            numbered = (f"{number}. {text}" for number, text in enumerate(texts, 1))
            head = f"{where}: found {len(self.errors)} problems:"
            error = InputError("\n".join([head, *numbered]))
            error.parts = tuple(part for single in self.errors for part in single.parts)
            raise error from self.errors[0]


_FLAGS = ("overwrite", "resume")
# Options of the command line that are settings when a build is started from Python.
_SETTINGS = {
    "gpu-memory-limit": "resources.gpu_memory_limit",
    "on-bad-rows": "inputs.on_bad_rows",
    "scheduler": "resources.scheduler",
    "threads": "resources.num_workers",
    "workers": "resources.distributed_processing",
}
_PARAMETERS = {"staging": "workplace"}  # where the two names differ
_is_command_line = False


@contextmanager
def command_line_errors() -> Iterator[None]:
    """Let texts name options as the command line has them, while the context lasts."""
    global _is_command_line
    before, _is_command_line = _is_command_line, True
    try:
        yield
    finally:
        _is_command_line = before


def spell_setting(name: str, value: str) -> str:
    """Name a setting with its value as the caller of a build writes it.

    `split.windows` with the value `rows` is `--set split.windows=rows` on the command line and
    `DatasetConfig(split={"windows": "rows"})` from Python.
    """
    if _is_command_line:
        return f"--set {name}={value}"
    section, _, key = name.partition(".")
    return f'DatasetConfig({section}={{"{key}": "{value}"}})'


def spell_option(option: str, value: str | None = None) -> str:
    """Name an option of a build as its caller writes it.

    `overwrite` is `--overwrite` on the command line and `overwrite=True` from Python, `backend`
    with the value `cpu` is `--backend cpu` and `backend="cpu"`. `option` is spelled as on the
    command line.
    """
    if _is_command_line:
        return f"--{option}" if value is None else f"--{option} {value}"
    if option in _FLAGS:
        return f"{option}=True"
    if option in _SETTINGS:
        section, _, key = _SETTINGS[option].partition(".")
        if value is None:
            return _SETTINGS[option]
        return f'DatasetConfig({section}={{"{key}": "{value}"}})'
    name = _PARAMETERS.get(option, option.replace("-", "_"))
    return name if value is None else f'{name}="{value}"'
