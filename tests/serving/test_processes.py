"""Processes by the tag in their environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving import processes


def test_a_process_is_found_in_the_moment_of_its_start(monkeypatch, tmp_path):
    """Its environment is empty then: the first reads are made so here."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "TAG": "new"})
    reads, real = [], Path.read_bytes

    def read_bytes(path):
        if path != Path(f"/proc/{child.pid}/environ"):
            return real(path)
        reads.append(path)
        return b"" if len(reads) < 4 else real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    try:
        assert [pid for pid, value in processes.tagged("TAG") if value == "new"] == [child.pid]
    finally:
        child.kill()
        child.communicate()
