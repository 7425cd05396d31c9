"""What must be carried out whoever presses Ctrl-C meanwhile."""

from __future__ import annotations

from collections.abc import Callable


def through_interrupts(*steps: Callable[[], None]) -> None:
    """Carry out each step, again from its beginning after a Ctrl-C, which is passed on in the end."""
    interrupted = False
    for step in steps:
        while True:
            try:
                step()
                break
            except KeyboardInterrupt:  # an impatient second Ctrl-C must not leave anything behind
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
