"""The studies that are kept as examples are what this servestorm writes."""

from __future__ import annotations

import json

import jsonschema
import pytest

from servestorm.plan.study_plan import load_plan
from servestorm.rundir.results_file import read_recorded
from tests.source_tree import ROOT

DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").iterdir())


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_its_results_are_of_the_published_schema_and_of_its_plan(folder):
    results = json.loads((folder / "results.json").read_text())
    jsonschema.validate(results, json.loads((DOCS / "reference" / "results.schema.json").read_text()))
    assert read_recorded(folder).engines == load_plan(folder / "plan.yaml").engines


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_its_page_tells_of_the_same_study_as_its_results(folder):
    name = json.loads((folder / "results.json").read_text())["id"]
    assert name in (folder / "report.html").read_text()
    assert name in (folder / "report.md").read_text()
