"""Errors of the `loadtests` package: each message is one sentence with the cause and the remedy."""


class LoadTestError(Exception):
    """A load was asked for that cannot be made (usage, exit code 2)."""


class LoadEnvironmentError(LoadTestError):
    """Something the load needs is not there: a host, a file, disk space (environment, exit code 3)."""
