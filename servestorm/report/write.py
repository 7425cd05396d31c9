"""report.html, report.md and results.json from a run directory, or the pages from a results.json alone."""

from __future__ import annotations

from pathlib import Path

from servestorm.analysis.results import Results, compute
from servestorm.analysis.stored_results import read_results
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.rundir.files import REPORT_MARKDOWN, REPORT_PAGE, RESULTS, write_json, write_text
from servestorm.rundir.record import read_run


def write_report(run: Path) -> tuple[Results, Path]:
    """Compute the results of a run directory, write results.json, report.html and report.md into it.

    A results.json stands for a run whose samples are gone: only the pages are written, beside it. Gives the results and
    the path of report.html.

    Raises StudyError where the directory is not a run, or is broken.
    """
    if run.is_file():
        results, folder = read_results(run), run.parent
    else:
        results, folder = compute(read_run(run)), run
        write_json(folder / RESULTS, results.as_json())
    page = page_of(results)
    path = folder / REPORT_PAGE
    write_text(path, render(page))
    write_text(folder / REPORT_MARKDOWN, markdown(page))
    return results, path
