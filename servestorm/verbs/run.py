"""`servestorm run`: a study from plan to report."""

from __future__ import annotations

import argparse
import sys

from servestorm.boundary import INTERRUPTED, INVALID, OK, explain, tell
from servestorm.labels import ENGINE_SHORT, SCENARIO_LABELS
from servestorm.plan import load_plan
from servestorm.results import Results
from servestorm.verbs.report import show


def run(arguments: argparse.Namespace) -> int:
    """Carry the plan out; whatever stops it, what was measured is written and shown."""
    plan = load_plan(arguments.plan)
    from servestorm.children import end_all
    from servestorm.runner import Study

    study = Study(plan, arguments.plan.read_text(encoding="utf-8"), arguments.out)
    code = OK
    try:
        study.carry_out()
    except KeyboardInterrupt:
        kept = "what was measured is kept" if study.path else "nothing was measured yet"
        code = tell(f"interrupted; {kept}.", INTERRUPTED)
    except Exception as error:
        if study.path is None:
            raise
        code = tell(*explain(error))
    finally:
        end_all()
    if study.path is None:
        return code
    results = show(study.path)
    return code or _judge(results)


def _judge(results: Results) -> int:
    """4 where a scenario of an engine has no run that counts."""
    if open_questions := results.unanswered():
        names = ", ".join(f"{SCENARIO_LABELS[s].lower()} of {ENGINE_SHORT[e]}" for s, e in open_questions)
        sys.stderr.write(f"servestorm: no valid run of: {names}. The report says why.\n")
        return INVALID
    return OK
