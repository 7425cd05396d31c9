"""What every verb that starts or measures anything does first."""

from __future__ import annotations

import sys

from serving.orphans import reap_orphans


def clean_up_after_the_killed() -> None:
    """End what an earlier, killed command left running, and say so."""
    if ended := reap_orphans():
        what = "process" if ended == 1 else "processes"
        sys.stderr.write(f"servestorm: ended {ended} {what} that an earlier, killed command had left.\n")
