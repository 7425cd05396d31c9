"""Errors of the `serving` package: each message is one sentence with the cause and the remedy."""


class ServingError(Exception):
    """An engine or a backend was asked for something it cannot do (usage, exit code 2)."""


class AddressError(ServingError):
    """An endpoint's address that cannot be read, or holds what is never sent."""


class EngineUnavailable(ServingError):
    """The engine's program or a library is not on this machine (environment, exit code 3)."""


class DeploymentError(ServingError):
    """A deployment did not come up, died, or answered wrongly (environment, exit code 3)."""


class WireError(ServingError):
    """A reply that is not what the protocol promises."""
