"""A command of servestorm as a person starts it, which the campaign looks at, disturbs and ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import SERVESTORM


class RunningCommand:
    """`servestorm ARGUMENT...` as a process of its own session, with its output in NAME.log in `folder`."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, name: str, env: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """`env` comes on top of ours; `more` goes to Popen."""
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(SERVESTORM), *arguments],
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **more,
            )

    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def code_within(self, seconds: float) -> int | None:
        """Wait for its exit code; None where it hung, and was killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
