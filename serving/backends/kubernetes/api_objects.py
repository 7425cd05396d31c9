"""Objects as the API sends them. The client's own models refuse what a newer or older server leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def answer_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> dict[str, Any]:
    """What a call of the client answers, parsed. Raises ApiException for any answer that is no success."""
    from kubernetes.client import ApiException

    response = call(*arguments, **named, _preload_content=False)
    body = response.data
    if not 200 <= response.status < 300:
        raise ApiException(http_resp=response)
    return dict(json.loads(body))
