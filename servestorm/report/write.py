"""report.html, report.md and results.json from a run directory, or the pages from a results.json alone."""

from __future__ import annotations

from pathlib import Path

from servestorm.analysis.results import Results, compute
from servestorm.analysis.stored_results import read_results
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.rundir.files import REPORT_MARKDOWN, REPORT_PAGE, RESULTS, write_json, write_text
from servestorm.rundir.owner import owned
from servestorm.rundir.record import read_run


def write_report(run: Path) -> tuple[Results, Path]:
    """Compute the results of a run directory, write results.json, report.html and report.md into it.

    A results.json stands for a run whose samples are gone: only the pages are written, beside it. Gives the results and
    the path of report.html.

    Raises StudyError where the directory is not a run, is broken, or another process writes into it.
    """
    if run.is_file():
        with owned(run.parent):
            return _pages(read_results(run), run.parent)
    if not run.is_dir():
        read_run(run)  # which says what it is instead
    with owned(run):
        results = compute(read_run(run))
        write_json(run / RESULTS, results.as_json())
        return _pages(results, run)


def _pages(results: Results, folder: Path) -> tuple[Results, Path]:
    page = page_of(results)
    path = folder / REPORT_PAGE
    write_text(path, render(page))
    write_text(folder / REPORT_MARKDOWN, markdown(page))
    return results, path
