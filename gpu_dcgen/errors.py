"""What can go wrong, by whose hands; the command line maps each to its exit code and prints the text alone."""


class DcgenError(Exception):
    """Base of every error this package raises on purpose; its text says where, what, and what to do."""

    exit_code = 1


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
