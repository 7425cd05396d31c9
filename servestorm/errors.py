"""Errors of the `servestorm` package: each message is one sentence that names the thing and the remedy."""

from __future__ import annotations


class StudyError(Exception):
    """The plan, an option or a run directory cannot be used as asked (usage, exit code 2)."""

    exit_code = 2


class StudyEnvironmentError(StudyError):
    """This machine lacks something that the study needs: a program, disk space, a core (exit code 3)."""

    exit_code = 3


class StudyInvalid(StudyError):
    """Nothing valid came out: the question stays open (exit code 4)."""

    exit_code = 4
