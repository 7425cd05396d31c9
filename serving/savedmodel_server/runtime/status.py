"""TF_Status as an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.runtime.c_api import CApi


@contextmanager
def checked(api: CApi) -> Iterator[int]:
    """A TF_Status for one call; raises RequestError with its code and message where it is not OK afterwards."""
    status = api.TF_NewStatus()
    try:
        yield status
        require_ok(api, status)
    finally:
        api.TF_DeleteStatus(status)


def require_ok(api: CApi, status: int) -> None:
    """Raise RequestError where `status` is not OK."""
    if code := api.TF_GetCode(status):
        message = (api.TF_Message(status) or b"").decode("utf-8", "replace")
        raise RequestError(Code(code) if code in Code._value2member_map_ else Code.UNKNOWN, message)
