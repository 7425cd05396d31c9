"""Errors of the `models` package: each message is one sentence with the cause and the remedy."""


class ModelError(Exception):
    """A data set, weights or an artifact cannot be used as asked (usage, exit code 2)."""


class ModelEnvironmentError(ModelError):
    """Something outside the project is missing: a download, a library, disk space (exit code 3)."""


class ParityError(ModelError):
    """The two artifacts do not compute the same function within the tolerance (exit code 4)."""
