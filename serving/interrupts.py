"""Interrupts in the first second of a program, while it imports what it works with.

Python would raise KeyboardInterrupt between any two lines of an import: a traceback, or one that a library swallows.
So a program of ours calls `leave_on_interrupt` in its first line, and this module imports next to nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import FrameType

INTERRUPTED = 130
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_on_interrupt(program: str, codes: Mapping[int, int] | None = None) -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP end the process at once, with 130 or with `codes` by signal number.

    For a process that has begun nothing yet: nothing is cleaned up. Signals that are ignored (nohup, a shell's
    background) stay so.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        os.write(2, f"{program}: interrupted.\n".encode())
        os._exit((codes or {}).get(number, INTERRUPTED))

    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def heed_interrupts_no_more() -> None:
    """The work is done, and the exit code is known: an interrupt during the last moments changes nothing."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
