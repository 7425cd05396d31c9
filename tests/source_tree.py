"""Where the source tree is: the tests read documents, studies, charts and programs of it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
STAND_INS = TESTS / "stand_ins"
