"""report.html, report.md and results.json from a run directory: a pure function of its files."""

from __future__ import annotations

from pathlib import Path

from servestorm.analysis.results import Results, compute
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.rundir.files import REPORT_MARKDOWN, REPORT_PAGE, RESULTS, write_json, write_text
from servestorm.rundir.record import read_run


def write_report(run: Path) -> tuple[Results, Path]:
    """Compute the results of a run directory, write results.json, report.html and report.md into it.

    Gives the results and the path of report.html.

    Raises StudyError where the directory is not a run, or is broken.
    """
    results = compute(read_run(run))
    write_json(run / RESULTS, results.as_json())
    page = page_of(results)
    path = run / REPORT_PAGE
    write_text(path, render(page))
    write_text(run / REPORT_MARKDOWN, markdown(page))
    return results, path
