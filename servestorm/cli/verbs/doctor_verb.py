"""`servestorm doctor`: what this machine has, and what to install for what it has not."""

from __future__ import annotations

import argparse

from servestorm.cli.verbs.doctor import examine
from servestorm.errors import StudyEnvironmentError


def run(_arguments: argparse.Namespace) -> int:
    """Print one line a thing; exit code 3 where the default study lacks something."""
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok     " if finding.found else "MISSING" if finding.required else "absent "
        print(f"{mark}  {finding.name:<{width}}  {finding.text}")
    lacking = [finding.name for finding in findings if finding.required and not finding.found]
    if lacking:
        raise StudyEnvironmentError(f"the default study lacks {', '.join(lacking)}: see above what to install.")
    print("Everything that the default study (studies/quickstart.yaml) needs is here.")
    return 0
