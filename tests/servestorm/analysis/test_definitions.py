"""Every figure is defined once, and the page on statistics has that definition."""

from __future__ import annotations

import pytest

from servestorm.analysis import definitions
from servestorm.analysis.results import compute
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.analysis.stored_results import read_results
from servestorm.rundir.record import read_run
from tests.source_tree import ROOT
from tests.stand_ins.synthetic_run import make_run

PAGE = ROOT / "docs" / "explanation" / "statistics.md"
EXAMPLES = sorted((ROOT / "docs" / "examples").iterdir())


def test_the_page_has_the_table_of_the_code():
    table = PAGE.read_text().partition("<!-- figures -->\n")[2].partition("<!-- end of figures -->")[0]
    assert table.strip() == definitions.table().strip(), (
        "put it between the comments again: .venv/bin/python -m servestorm.analysis.definitions"
    )


def test_no_two_figures_of_a_scenario_share_a_name_and_each_says_what_it_is():
    for scenario, analysis in SCENARIO_ANALYSES.items():
        rows = list(analysis.defined_rows())
        assert len({row.name for row in rows}) == len(rows), scenario
        for row in rows:
            assert len(row.definition) > 20 and not row.definition.endswith("."), row.name


@pytest.fixture(scope="module", params=[*EXAMPLES, None], ids=lambda folder: folder.name if folder else "synthetic")
def results(request, tmp_path_factory):
    if request.param:
        return read_results(request.param / "results.json")
    return compute(read_run(make_run(tmp_path_factory.mktemp("runs"))))


def test_every_row_of_real_results_has_its_definition_in_the_page(results):
    text = PAGE.read_text()
    assert results.metrics
    for metric in results.metrics:
        assert metric.definition in text, metric.key
        name = metric.key.rpartition(".")[2]
        stem = name.rstrip("0123456789") + "N" if metric.scenario == "scaling" else name
        # the phases of a pod have names of their own
        assert f"`{metric.scenario}.{stem}`" in text or metric.scenario == "coldstart", metric.key
