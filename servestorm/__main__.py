"""The program `servestorm`: an interrupt ends it orderly from its first line on, before anything else is imported."""

from __future__ import annotations

import sys

from serving.interrupts import heed_interrupts_no_more, leave_on_interrupt


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    leave_on_interrupt("servestorm")
    from servestorm.cli.main import main as run

    code = run()
    heed_interrupts_no_more()
    return code


if __name__ == "__main__":
    sys.exit(main())
