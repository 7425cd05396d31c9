"""Programs that a study starts: where signals and the scheduler put them."""

from __future__ import annotations

import os
import sys

from servestorm.study.child_processes import start_child, stop_child


def test_a_child_shares_our_session_and_has_a_process_group_of_its_own(tmp_path):
    """Linux shares a core out among sessions: what one runs at idle priority would count as much as another's load."""
    child = start_child([sys.executable, "-S", "-c", "import time; time.sleep(600)"], log=tmp_path / "log")
    try:
        assert os.getsid(child.pid) == os.getsid(0)
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        stop_child(child)
    assert child.returncode is not None
