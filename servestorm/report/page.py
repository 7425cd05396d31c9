"""report.html, report.md and results.json from a run directory: a pure function of what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from servestorm import __version__
from servestorm.analysis.results import Results, compute
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.report import sentences
from servestorm.report.facts import environment, meta
from servestorm.report.markdown import markdown
from servestorm.report.result_table import aside, cards, groups, pairs, runs
from servestorm.report.sections.table import SECTIONS
from servestorm.rundir.files import write_json, write_text
from servestorm.rundir.record import read_run

_HERE = Path(__file__).parent


def write_report(run: Path) -> tuple[Results, Path]:
    """Compute the results of a run directory, write results.json, report.html and report.md into it.

    Gives the results and the path of report.html.

    Raises StudyError where the directory is not a run, or is broken.
    """
    results = compute(read_run(run))
    write_json(run / "results.json", results.as_json())
    facts = page_facts(results)
    path = run / "report.html"
    write_text(path, render(facts))
    write_text(run / "report.md", markdown(facts))
    return results, path


def render(facts: dict[str, Any]) -> str:
    """The self-contained page of what page_facts() gives: no scripts, nothing from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(css=(_HERE / "report.css").read_text(), **facts)


def page_facts(results: Results) -> dict[str, Any]:
    """Everything that the page and its Markdown twin say, in words and formatted numbers."""
    shown = [section for make in SECTIONS if (section := make(results)).parts]
    fixed = [("validity", "Validity"), ("environment", "Environment"), ("method", "How to read this")]
    return {
        "version": __version__,
        "id": results.id,
        "headline": sentences.headline(results),
        "meta": meta(results),
        "badges": _badges(results),
        "sections": [
            ("summary", "In short"),
            ("results", "Results"),
            *((section.id, section.title) for section in shown),
            *fixed,
        ],
        "cards": cards(results),
        "summary": sentences.summary(results),
        "doubts": sentences.doubts(results),
        "engines": [{"name": ENGINE_SHORT[engine], "aside": aside(engine)} for engine in results.engines],
        "pairs": pairs(results),
        "groups": groups(results),
        "figures": shown,
        "validity": sentences.validity(results),
        "runs": runs(results),
        "environment": environment(results),
    }


def _badges(results: Results) -> list[dict[str, str]]:
    badges = []
    if results.state != "complete":
        badges.append({"kind": "bad", "text": results.state})
    invalid = sum(run.valid is False for run in results.runs)
    judged = sum(run.valid is not None for run in results.runs)
    if invalid:
        badges.append({"kind": "bad", "text": f"{invalid} of {judged} load runs INVALID"})
    elif judged:
        badges.append({"kind": "good", "text": f"all {judged} load runs VALID"})
    parities = [model["parity"]["status"] for model in results.models if model.get("parity")]
    if parities:
        proved = set(parities) == {"proved"}
        text = "artifacts proved equal" if proved else next(status for status in parities if status != "proved")
        badges.append({"kind": "good" if proved else "bad", "text": text})
    return badges
