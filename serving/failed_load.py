"""Why a server will never be ready, as its log says it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

REST_OF_LOG_S: Final = 0.3
"""After the first fatal line: the traceback follows it, and is wanted whole."""
_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINED: Final = ("During handling of the above exception", "The above exception was the direct cause")
_WORKER_LINE: Final = re.compile(r"^.*? MODEL_LOG - (.*)$")
"""TorchServe repeats what its Python worker writes, behind a head of its own."""
_OWN_HANDLERS: Final = "No module named 'ts.torch_handler."
"""TorchServe tries its own handlers after an archive's cannot be imported, and fails anew."""


def reason(lines: Sequence[str], fatal: str | None) -> str | None:
    """The exception of the worker that died first, or else the line of the log that matches `fatal`; None without one.

    Of a chain of exceptions it is the last, but for that of TorchServe's search among its own handlers.
    """
    begin = next((place for place, line in enumerate(lines) if fatal and re.search(fatal, line)), None)
    if begin is None:
        return None
    chain = _first_chain([found[1] for line in lines[begin:] if (found := _WORKER_LINE.match(line))])
    if len(chain) > 1 and _OWN_HANDLERS in chain[-1]:
        return chain[-2]
    return chain[-1] if chain else lines[begin].strip()


def _first_chain(lines: Sequence[str]) -> list[str]:
    """The exceptions, in the order in which they were raised, of the first traceback and those that it led to."""
    chain: list[str] = []
    inside = False
    for line in lines:
        if line.startswith(_TRACEBACK):
            inside = True
        elif inside and line and not line[0].isspace():
            chain.append(" ".join(line.split())[:300])
            inside = False
        elif chain and not inside and line.strip() and not line.startswith(_CHAINED):
            break
    return chain
